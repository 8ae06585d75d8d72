"""What an archive may hold: names, kinds, sizes. Pure rules, shared by the readers of each format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from septet.model.errors import InvalidInput


class ArchiveLimits(NamedTuple):
    """Ceilings of one archive: members, unpacked bytes, unpacked to packed ratio (once past `ratio_from` bytes),
    path depth."""

    members: int = 50_000
    total: int = 512 * 1024 * 1024
    ratio: int = 200
    ratio_from: int = 16 * 1024 * 1024
    depth: int = 64


class Member(NamedTuple):
    """One entry. `read` gives the next bytes of a file, empty at its end; `target` is a link's."""

    path: str
    kind: Literal["file", "directory", "symlink", "hardlink"]
    size: int
    executable: bool
    target: str
    read: Callable[[int], bytes]


Members = Iterator[Member]


def clean_path(raw: bytes | str, limits: ArchiveLimits) -> str:
    """The member's path in normal form ("" for the root itself); InvalidInput for anything that could surprise."""
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"the archive's member name {raw!r} is not UTF-8") from error
    shown = repr(raw if len(raw) < 120 else raw[:120] + "...")
    if len(raw.encode("utf-8", "surrogateescape")) > 4096:
        raise InvalidInput(f"the archive's member name {shown} is longer than 4096 bytes")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in raw):
        raise InvalidInput(f"the archive's member name {shown} holds a control character")
    if raw.startswith("/") or "\\" in raw or (len(raw) > 1 and raw[1] == ":"):
        raise InvalidInput(f"the archive's member {shown} has an absolute or a Windows path")
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidInput(f"the archive's member {shown} climbs out of its folder")
    if any(len(part.encode()) > 255 for part in parts):
        raise InvalidInput(f"the archive's member {shown} has a name longer than 255 bytes")
    if len(parts) > limits.depth:
        raise InvalidInput(f"the archive's member {shown} is nested deeper than {limits.depth} folders")
    return "/".join(parts)


def clean_target(path: str, target: str, limits: ArchiveLimits) -> str:
    """A symbolic link's target; InvalidInput when it would leave the tree."""
    if not target or target.startswith("/") or "\\" in target or "\0" in target or len(target.encode()) > 4096:
        raise InvalidInput(f"the link {path!r} points to {target[:120]!r}: only relative targets inside are taken")
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            raise InvalidInput(f"the link {path!r} points outside the archive ({target[:120]!r})")
    if depth > limits.depth * 2:
        raise InvalidInput(f"the link {path!r} is nested too deep")
    return target
