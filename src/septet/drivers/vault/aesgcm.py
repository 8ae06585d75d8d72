"""Secrets at rest under AES-256-GCM, with a key in a file of its own."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from septet.model.errors import Corrupt, Unavailable

KEY_BYTES = 32
NONCE_BYTES = 12
_VERSION = "1"


class AesGcmVault:
    """Sealed values are "1.<key id>.<base64 of nonce and ciphertext>"; the key id says which key opens it."""

    def __init__(self, key: bytes, older: tuple[bytes, ...] = ()) -> None:
        """`key` seals and opens; `older` keys open what was sealed before a change of keys."""
        self._id = key_id(key)
        self._ciphers = {key_id(each): AESGCM(each) for each in (key, *older)}

    def seal(self, plain: bytes, context: str) -> str:
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._ciphers[self._id].encrypt(nonce, plain, context.encode())
        return f"{_VERSION}.{self._id}.{base64.b64encode(sealed).decode()}"

    def open(self, sealed: str, context: str) -> bytes:
        version, _, rest = sealed.partition(".")
        id_, _, text = rest.partition(".")
        if version != _VERSION or id_ not in self._ciphers:
            raise Corrupt(
                f"the secret {context!r} was sealed with a key that is not here",
                hint="put the vault's key back into the data directory, or write the secret again",
            )
        try:
            data = base64.b64decode(text, validate=True)
            if base64.b64encode(data).decode() != text:
                raise ValueError("base64 with bits that say nothing")
            return self._ciphers[id_].decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], context.encode())
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise Corrupt(f"the secret {context!r} was altered and is not used", hint="write it again") from error


def key_id(key: bytes) -> str:
    """Names a key without telling anything of it."""
    return hashlib.sha256(b"septet vault key " + key).hexdigest()[:8]


def load_key(path: Path) -> bytes:
    """The key in the file, made with mode 0600 when there is none. Unavailable when others could read it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise Unavailable(
            f"the vault's key {path} cannot be read: {error.strerror}", hint="it must be a file of our own, mode 0600"
        ) from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        key = file.read(KEY_BYTES + 1)
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise Unavailable(f"the vault's key {path} is open to others", hint=f"chmod 600 {path}, as its owner")
    if len(key) != KEY_BYTES:
        raise Unavailable(f"the vault's key {path} has {len(key)} bytes, not {KEY_BYTES}", hint="restore it")
    return key


def _make(path: Path) -> bytes:
    key = AESGCM.generate_key(bit_length=KEY_BYTES * 8)
    try:
        _write(path, key)
    except OSError as error:
        raise Unavailable(
            f"the vault's key {path} cannot be written: {error.strerror}", hint="look at the data directory's disk"
        ) from error
    return key


def _write(path: Path, key: bytes) -> None:
    """Complete and on disk, or not there; a key that is there is never replaced."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(fd)
    os.link(part, path)
    part.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
