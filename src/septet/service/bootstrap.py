"""What a platform has from its first start: the namespace `default`, and the admin's token."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from septet.model.errors import Conflict, NotFound, Unavailable
from septet.model.meta import Meta
from septet.model.objects import Namespace, Token, TokenSpec
from septet.ports.store import Store
from septet.service.authenticate import digest, new_token

ADMIN = "admin"
DEFAULT_NAMESPACE = "default"


async def bootstrap(store: Store, data_dir: Path) -> str:
    """Makes what is missing; returns the admin's token. Raises Unavailable when its file cannot be kept private.

    The file's text and the store's hash are made to agree: a lost file gets a new token, and an edited one counts.
    """
    with contextlib.suppress(Conflict):
        await store.create(Namespace(meta=Meta(name=DEFAULT_NAMESPACE)))
    text = admin_token(data_dir / "admin-token")
    spec = TokenSpec(sha256=digest(text), description="the operator's, from the data directory")
    try:
        known = await store.get("Token", "", ADMIN)
    except NotFound:
        await store.create(Token(meta=Meta(name=ADMIN), spec=spec))
        return text
    if isinstance(known, Token) and known.spec.sha256 != spec.sha256:
        await store.update(msgspec.structs.replace(known, spec=spec))
    return text


def admin_token(path: Path) -> str:
    """The token in the file, which is made with mode 0600 when it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return _write(path)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise Unavailable(f"{path} belongs to another user", hint="delete it, and a new token is made")
        if status.st_mode & 0o077:
            os.fchmod(fd, 0o600)
        text = file.read(200).decode("ascii", "replace").strip()
    return text if len(text) == len(new_token()) and text.startswith("sept_") else _write(path)


def _write(path: Path) -> str:
    text = new_token()
    part = path.with_name(path.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return text
