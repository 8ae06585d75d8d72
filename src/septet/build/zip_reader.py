"""A strict reader of zip files: what the central directory and the local headers disagree about is refused."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal

from septet.build.members import ArchiveLimits, Member, Members, clean_path
from septet.model.errors import InvalidInput

_LOCAL = struct.Struct("<4s5H3I2H")
_BAD = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, struct.error, ValueError)


def read_zip(path: Path, limits: ArchiveLimits) -> Members:
    """The members by offset. Raises InvalidInput."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            if len(entries) > limits.members:
                raise InvalidInput(f"the archive has {len(entries)} members; {limits.members} are allowed")
            _check_layout(entries, raw, path.stat().st_size)
            for entry in entries:
                yield from _member(archive, entry, limits)
    except _BAD as error:
        raise InvalidInput(f"the zip archive is damaged: {error}") from error


def _check_layout(entries: Iterable[zipfile.ZipInfo], raw: IO[bytes], size: int) -> None:
    """No two members share bytes (the trick of small bombs), and each local header says what the directory says."""
    end = 0
    for entry in entries:
        raw.seek(entry.header_offset)
        head = raw.read(_LOCAL.size)
        if len(head) < _LOCAL.size or head[:4] != b"PK\3\4":
            raise InvalidInput(f"the zip archive is damaged: no header for {entry.filename!r}")
        fields = _LOCAL.unpack(head)
        flags, method, packed, unpacked = fields[2], fields[3], fields[7], fields[8]
        if entry.header_offset < end:
            raise InvalidInput(f"the zip archive's members overlap at {entry.filename!r}")
        end = entry.header_offset + _LOCAL.size + fields[9] + fields[10] + entry.compress_size
        if end > size:
            raise InvalidInput(f"the zip archive ends in the middle of {entry.filename!r}")
        if method != entry.compress_type or flags != entry.flag_bits:
            raise InvalidInput(f"the zip archive's two headers of {entry.filename!r} disagree")
        has_sizes = not flags & 8 and 0xFFFFFFFF not in (packed, unpacked)
        if has_sizes and (packed, unpacked) != (entry.compress_size, entry.file_size):
            raise InvalidInput(f"the zip archive's two sizes of {entry.filename!r} disagree")


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: ArchiveLimits) -> Members:
    if entry.flag_bits & 1:
        raise InvalidInput(f"the archive's member {entry.filename!r} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidInput(f"the archive's member {entry.filename!r} uses compression method {entry.compress_type}")
    mode = entry.external_attr >> 16
    kind: Literal["file", "directory", "symlink"] = "file"
    if entry.orig_filename != entry.filename:
        # zipfile cuts names at a NUL and replaces separators; what it changed is not what the sender wrote
        raise InvalidInput(f"the archive's member name {entry.orig_filename!r} holds a forbidden character")
    if entry.is_dir():
        kind = "directory"
    elif stat.S_IFMT(mode) == stat.S_IFLNK:
        kind = "symlink"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise InvalidInput(f"the archive's member {entry.filename!r} is no file, folder or link")
    path = clean_path(entry.filename, limits)
    with archive.open(entry) as file:
        target = file.read(4097).decode("utf-8", "surrogateescape") if kind == "symlink" else ""

        def read(n: int) -> bytes:
            try:
                return file.read(n)
            except _BAD as error:
                raise InvalidInput(f"the archive's member {entry.filename!r} is damaged: {error}") from error

        yield Member(path, kind, entry.file_size, bool(mode & 0o111), target, read)
