"""Unpacks an uploaded archive into a directory that it cannot leave, within limits."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from pathlib import Path
from typing import IO, NamedTuple, cast

from septet.build.confined import ConfinedDirectory
from septet.build.members import ArchiveLimits, Member, Members, clean_path, clean_target
from septet.build.tar_reader import looks_like_tar, read_tar
from septet.build.zip_reader import read_zip
from septet.model.errors import InvalidInput, PayloadTooLarge

_CHUNK = 65536


class ArchiveFacts(NamedTuple):
    """What was unpacked."""

    files: int
    bytes: int


def extract(archive: Path, into: Path, limits: ArchiveLimits | None = None) -> ArchiveFacts:
    """Unpacks a zip or a tar (plain, gzip, bzip2, xz) into the existing directory `into`.

    Raises InvalidInput naming the member that breaks a rule, PayloadTooLarge for a limit. What was written
    before the error stays: the caller throws the directory away.
    """
    limits = limits or ArchiveLimits()
    writer = _Writer(into, limits, archive.stat().st_size)
    try:
        with archive.open("rb") as raw:
            for member in _open(archive, raw, limits):
                writer.add(member)
        writer.finish()
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InvalidInput(f"the archive cannot be read: {error}", hint="send a zip or a tar") from error
    finally:
        writer.close()
    return ArchiveFacts(writer.files, writer.bytes)


def _open(archive: Path, raw: IO[bytes], limits: ArchiveLimits) -> Members:
    head = raw.read(512)
    raw.seek(0)
    if head[:4] in (b"PK\3\4", b"PK\5\6"):
        return read_zip(archive, limits)
    stream: IO[bytes] = raw
    if head[:2] == b"\x1f\x8b":
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    elif head[:3] == b"BZh":
        stream = cast(IO[bytes], bz2.BZ2File(raw))
    elif head[:6] == b"\xfd7zXZ\x00":
        stream = cast(IO[bytes], lzma.LZMAFile(raw))  # noqa: SIM115 (the caller closes what is below)
    elif not looks_like_tar(head):
        raise InvalidInput("the upload is neither a zip nor a tar", hint="pack the folder, or send the file as a tar")
    return read_tar(stream.read, limits)


class _Writer:
    def __init__(self, into: Path, limits: ArchiveLimits, packed: int) -> None:
        self.files = 0
        self.bytes = 0
        self._members = 0
        self._limits = limits
        self._packed = packed
        self._directory = ConfinedDirectory(into)
        self._links: dict[str, str] = {}

    def close(self) -> None:
        self._directory.close()

    def add(self, member: Member) -> None:
        self._members += 1
        if self._members > self._limits.members:
            raise PayloadTooLarge(
                f"the archive has more than {self._limits.members} members", limit=f"members {self._limits.members}"
            )
        if member.path == "" and member.kind == "directory":
            return
        if member.path == "":
            raise InvalidInput("the archive has a member without a name")
        if member.path in self._links:
            raise InvalidInput(f"the archive has {member.path!r} twice")
        if member.kind == "directory":
            self._directory.directory(member.path)
        elif member.kind == "symlink":
            self._links[member.path] = clean_target(member.path, member.target, self._limits)
        elif member.kind == "hardlink":
            self._copy(member)
        else:
            self._write(member)

    def finish(self) -> None:
        # Links come last, so that no member can be written through one.
        for path, target in self._links.items():
            self._directory.link(path, target)

    def _write(self, member: Member) -> None:
        fd = self._directory.create(member.path, member.executable)
        self.files += 1
        written = 0
        with os.fdopen(fd, "wb") as file:
            while chunk := member.read(_CHUNK):
                self._count(len(chunk), member.path)
                written += len(chunk)
                file.write(chunk)
        if written != member.size:
            raise InvalidInput(
                f"the archive's member {member.path!r} has {written} bytes, not {member.size} as it says"
            )

    def _copy(self, member: Member) -> None:
        target = clean_path(member.target, self._limits)
        source = os.fdopen(self._directory.read(target), "rb")
        with source:
            size = os.fstat(source.fileno()).st_size
            executable = bool(os.fstat(source.fileno()).st_mode & 0o111)
            self._write(member._replace(kind="file", size=size, executable=executable, read=source.read))

    def _count(self, n: int, path: str) -> None:
        self.bytes += n
        if self.bytes > self._limits.total:
            raise PayloadTooLarge(
                f"the archive unpacks to more than {self._limits.total >> 20} MiB (at {path!r})",
                limit=f"total {self._limits.total >> 20} MiB",
            )
        if self.bytes > self._limits.ratio_from and self.bytes > self._limits.ratio * self._packed:
            raise PayloadTooLarge(
                f"the archive unpacks to more than {self._limits.ratio} times its size (at {path!r})",
                limit=f"ratio {self._limits.ratio}",
            )
