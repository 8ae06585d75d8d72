"""Packing a function's source: the same files give the same bytes, whoever packs them and whenever."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from septet.cli.failures import Exit, Failure

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SPOOL = 8 * 1024 * 1024
# Left out unless an ignore file brings them back with "!": what is never source, and what holds secrets.
ALWAYS_IGNORED = (
    ".git",
    ".hg",
    ".svn",
    "__pycache__",
    "*.py[co]",
    ".venv",
    "node_modules",
    ".env",
    ".DS_Store",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".septetignore",
    "/septet.yaml",
)


@dataclass
class Package:
    """A packed source: an open file at its beginning, its size in bytes, and its digest ("sha256:...")."""

    file: BinaryIO
    size: int
    digest: str

    def close(self) -> None:
        self.file.close()


def pack(source: Path) -> Package:
    """Packs a folder or a file as a tar; a zip or a tar is taken as it is. Failure names what cannot be packed."""
    if not source.exists():
        raise Failure(f"there is no {source}", hint="`source` is a folder, a file, a zip or a tar", code=Exit.USAGE)
    if source.is_file() and source.name.lower().endswith(ARCHIVES):
        return _finish(cast(BinaryIO, source.open("rb")))
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL)  # noqa: SIM115 - the package owns it
    with tarfile.open(fileobj=cast(IO[bytes], spool), mode="w", format=tarfile.PAX_FORMAT) as archive:
        if source.is_file():
            _add(archive, source, source.name, source)
        elif source.is_dir():
            for path, name in walk(source):
                _add(archive, path, name, source)
        else:
            raise Failure(f"{source} is neither a file nor a folder", code=Exit.USAGE)
    return _finish(cast(BinaryIO, spool))


def walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """What is packed of a folder, as (path, name with slashes), sorted, folders before what is in them."""
    rules = Ignore.of(folder)

    def descend(inner: Path, prefix: str) -> Iterator[tuple[Path, str]]:
        for entry in sorted(os.scandir(inner), key=lambda e: e.name):
            name = prefix + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if rules.matches(name, is_folder):
                continue
            yield Path(entry.path), name
            if is_folder:
                yield from descend(Path(entry.path), name + "/")

    return descend(folder, "")


def _add(archive: tarfile.TarFile, path: Path, name: str, root: Path) -> None:
    status = path.lstat()
    member = tarfile.TarInfo(name)
    if stat.S_ISLNK(status.st_mode):
        target = str(path.readlink())
        if not (path.parent / target).resolve().is_relative_to(root.resolve()) or Path(target).is_absolute():
            raise Failure(
                f"{path} links to {target}, outside of the source",
                hint="leave it out with .septetignore",
                code=Exit.USAGE,
            )
        member.type, member.linkname = tarfile.SYMTYPE, target
        archive.addfile(member)
    elif stat.S_ISDIR(status.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    elif stat.S_ISREG(status.st_mode):
        member.mode = 0o755 if status.st_mode & 0o111 else 0o644
        with path.open("rb") as content:
            # Of the opened file, which is the one that gets packed.
            member.size = os.fstat(content.fileno()).st_size
            try:
                archive.addfile(member, content)
            except OSError as error:
                raise Failure(f"{path} changed while it was packed", hint="try again") from error
    else:
        raise Failure(f"{path} is not a file, folder or link", hint="leave it out with .septetignore", code=Exit.USAGE)


def _finish(file: BinaryIO) -> Package:
    digest = hashlib.sha256()
    size = 0
    file.seek(0)
    while chunk := file.read(1024 * 1024):
        digest.update(chunk)
        size += len(chunk)
    file.seek(0)
    return Package(file=file, size=size, digest=f"sha256:{digest.hexdigest()}")


class Ignore:
    """The basics of .gitignore: comments, `!`, slash at either end, `*`, `?`, `[...]`, `**`. The last match wins."""

    def __init__(self, lines: list[str]) -> None:
        self.rules = [rule for line in lines if (rule := _rule(line)) is not None]

    @classmethod
    def of(cls, folder: Path) -> Ignore:
        """The rules of a folder: what is always left out, then .septetignore or, without one, .gitignore."""
        for name in (".septetignore", ".gitignore"):
            file = folder / name
            if file.is_file():
                return cls([*ALWAYS_IGNORED, *file.read_text("utf-8", "replace").splitlines()])
        return cls(list(ALWAYS_IGNORED))

    def matches(self, name: str, is_folder: bool) -> bool:
        """Whether `name`, relative and with slashes, is left out."""
        ignored = False
        for pattern, keep, folders_only in self.rules:
            if (is_folder or not folders_only) and pattern.fullmatch(name):
                ignored = not keep
        return ignored


def _rule(line: str) -> tuple[re.Pattern[str], bool, bool] | None:
    text = line.rstrip()
    if not text or text.startswith("#"):
        return None
    keep = text.startswith("!")
    text = text[1:] if keep or text.startswith("\\") else text
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    anchored = "/" in text
    text = text.lstrip("/")
    body = _glob(text)
    return re.compile(body if anchored else f"(?:.*/)?{body}"), keep, folders_only


def _glob(text: str) -> str:
    """A pattern of .gitignore as a regular expression."""
    out, i = "", 0
    while i < len(text):
        if text.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif text.startswith("**", i):
            out, i = out + ".*", i + 2
        elif text[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif text[i] == "?":
            out, i = out + "[^/]", i + 1
        elif text[i] == "[" and (end := text.find("]", i + 2)) > 0:
            inside = text[i + 1 : end].replace("\\", "\\\\")
            out, i = out + "[" + ("^" + inside[1:] if inside[0] == "!" else inside) + "]", end + 1
        else:
            out, i = out + re.escape(text[i]), i + 1
    return out
