"""A strict reader of tar streams (ustar, GNU long names, pax), for archives from strangers.

The standard library's reader is lenient by design, and older versions of it loop on crafted sizes; this one
refuses what it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from septet.build.members import ArchiveLimits, Member, Members, clean_path
from septet.model.errors import InvalidInput

_BLOCK = 512
_META_LIMIT = 1024 * 1024
_SIZE_LIMIT = 1 << 50
Read = Callable[[int], bytes]
_KINDS: dict[bytes, Literal["file", "directory", "symlink", "hardlink"]] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"5": "directory",
}
_REFUSED = {b"3": "a character device", b"4": "a block device", b"6": "a named pipe", b"S": "a sparse file"}


def looks_like_tar(head: bytes) -> bool:
    """Whether the first block is a tar header: its checksum is right."""
    return len(head) >= _BLOCK and _checksum_ok(head[:_BLOCK])


def read_tar(read: Read, limits: ArchiveLimits) -> Members:
    """The members, in order; each must be consumed (or is skipped) before the next. Raises InvalidInput."""
    extra: dict[str, bytes] = {}
    while True:
        block = _exactly(read, _BLOCK, "header")
        if block == b"\0" * _BLOCK:
            return
        if not _checksum_ok(block):
            raise InvalidInput("the tar archive is damaged: a header's checksum is wrong")
        type_ = block[156:157]
        size = _number(block[124:136])
        if type_ in b"xgLK":
            extra |= _metadata(type_, size, read)
            continue
        if type_ in _REFUSED:
            raise InvalidInput(f"the archive's member {_text(block[:100])!r} is {_REFUSED[type_]}; files only, please")
        if type_ not in _KINDS:
            raise InvalidInput(f"the archive has a member of unknown type {type_!r}")
        if "size" in extra:
            size = _pax_number(extra["size"])
        yield from _member(block, _KINDS[type_], size, extra, read, limits)
        extra = {}


def _member(
    block: bytes,
    kind: Literal["file", "directory", "symlink", "hardlink"],
    size: int,
    extra: dict[str, bytes],
    read: Read,
    limits: ArchiveLimits,
) -> Members:
    raw = extra.get("path") or _name(block)
    if kind == "file" and raw.endswith(b"/"):
        kind = "directory"
    if kind != "file":
        size = 0
    left = size

    def read_some(n: int) -> bytes:
        nonlocal left
        if left == 0:
            return b""
        chunk = _some(read, min(n, left))
        left -= len(chunk)
        return chunk

    target = (extra.get("linkpath") or _cut(block[157:257])).decode("utf-8", "surrogateescape")
    executable = bool(_number(block[100:108]) & 0o111)
    yield Member(clean_path(raw, limits), kind, size, executable, target, read_some)
    while left:
        read_some(65536)
    if size % _BLOCK:
        _exactly(read, _BLOCK - size % _BLOCK, "padding")


def _metadata(type_: bytes, size: int, read: Read) -> dict[str, bytes]:
    if size > _META_LIMIT:
        raise InvalidInput(f"the tar archive has {size} bytes of metadata for one member")
    data = _exactly(read, size, "metadata")
    if size % _BLOCK:
        _exactly(read, _BLOCK - size % _BLOCK, "padding")
    if type_ == b"L":
        return {"path": _cut(data)}
    if type_ == b"K":
        return {"linkpath": _cut(data)}
    found = _pax(data)
    if any(key.startswith("GNU.sparse") for key in found):
        raise InvalidInput("the tar archive holds a sparse file")
    # A global header may not rename or resize every member after it.
    return {} if type_ == b"g" else {k: v for k, v in found.items() if k in ("path", "linkpath", "size")}


def _pax(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = data[at:space]
        if space < 0 or not length.isdigit() or int(length) <= space - at or at + int(length) > len(data):
            raise InvalidInput("the tar archive is damaged: a pax record has a wrong length")
        record = data[space + 1 : at + int(length)]
        key, sep, value = record.partition(b"=")
        if not sep or not value.endswith(b"\n") or b"\0" in value:
            raise InvalidInput("the tar archive is damaged: a pax record is malformed")
        found[key.decode("utf-8", "replace")] = value[:-1]
        at += int(length)
    return found


def _name(block: bytes) -> bytes:
    name, prefix = _cut(block[:100]), _cut(block[345:500])
    return prefix + b"/" + name if block[257:262] == b"ustar" and block[262:263] == b"\0" and prefix else name


def _cut(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _text(field: bytes) -> str:
    return _cut(field).decode("utf-8", "replace")


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    elif field[0] & 0x80:
        raise InvalidInput("the tar archive is damaged: a negative number in a header")
    else:
        text = field.strip(b"\0 ")
        if text and not all(48 <= c < 56 for c in text):
            raise InvalidInput("the tar archive is damaged: a header's number is not octal")
        value = int(text or b"0", 8)
    if value > _SIZE_LIMIT:
        raise InvalidInput(f"the tar archive claims a number of {value} in a header")
    return value


def _pax_number(value: bytes) -> int:
    if not value.isdigit() or len(value) > 16:
        raise InvalidInput("the tar archive is damaged: a pax size is not a number")
    return int(value)


def _checksum_ok(block: bytes) -> bool:
    try:
        stored = _number(block[148:156])
    except InvalidInput:
        return False
    return stored == sum(block[:148]) + 8 * 32 + sum(block[156:])


def _some(read: Read, n: int) -> bytes:
    data = read(n)
    if not data:
        raise InvalidInput("the archive ends in the middle of a member")
    return data


def _exactly(read: Read, n: int, what: str) -> bytes:
    parts: list[bytes] = []
    while n:
        data = read(n)
        if not data:
            raise InvalidInput(f"the archive ends in the middle of a {what}")
        parts.append(data)
        n -= len(data)
    return b"".join(parts)
