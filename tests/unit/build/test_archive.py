"""A corpus of hostile archives: each is refused with a word about why, and nothing outside is touched."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import struct
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.build.archive import extract
from septet.build.members import ArchiveLimits, clean_path, clean_target
from septet.model.errors import InvalidInput, PayloadTooLarge

LIMITS = ArchiveLimits(members=200, total=4 * 1024 * 1024, ratio=50, ratio_from=256 * 1024, depth=16)


def tar_with(*members: tuple[str, Mapping[str, object]], data: bytes = b"x", fmt: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as tar:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                info.size = 0
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_with(*members: tuple[str, bytes], attr: int = 0o100644 << 16, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = attr
            info.compress_type = method
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the same name twice is what some cases are about
                archive.writestr(info, data)
    return out.getvalue()


def raw_header(name: bytes = b"f", size: bytes = b"00000000001\0", type_: bytes = b"0", link: bytes = b"") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124 : 124 + len(size)] = size
    block[156:157] = type_
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def raw_tar(*parts: bytes) -> bytes:
    return b"".join(parts) + b"\0" * 1024


def block(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def pax(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 2
    while len(b"%d" % length) + len(body) != length:
        length += 1
    record = b"%d" % length + body
    return raw_header(b"pax", b"%011o\0" % len(record), b"x") + block(record)


def patched_zip(edit: Callable[[bytearray], None]) -> bytes:
    data = bytearray(zip_with(("a.txt", b"hello"), ("b.txt", b"world")))
    edit(data)
    return bytes(data)


def local_name_differs(data: bytearray) -> None:
    data[30:35] = b"z.txt"


def local_size_differs(data: bytearray) -> None:
    struct.pack_into("<I", data, 22, 999)


def overlap(data: bytearray) -> None:
    at = data.rfind(b"PK\1\2")
    struct.pack_into("<I", data, at + 42, 0)


def encrypted(data: bytearray) -> None:
    for at in (data.find(b"PK\3\4") + 6, data.find(b"PK\1\2") + 8):
        data[at] |= 1


def unknown_method(data: bytearray) -> None:
    struct.pack_into("<H", data, data.find(b"PK\3\4") + 8, 97)
    struct.pack_into("<H", data, data.find(b"PK\1\2") + 10, 97)


def claims_more(data: bytearray) -> None:
    for at in (data.find(b"PK\3\4") + 22, data.find(b"PK\1\2") + 24):
        struct.pack_into("<I", data, at, 1 << 30)


def wrong_crc(data: bytearray) -> None:
    for at in (data.find(b"PK\3\4") + 14, data.find(b"PK\1\2") + 16):
        data[at] ^= 0xFF


def past_the_end(data: bytearray) -> None:
    at = data.find(b"PK\1\2")
    struct.pack_into("<I", data, at + 42, 1 << 30)


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


LINK = {"type": tarfile.SYMTYPE}
HARD = {"type": tarfile.LNKTYPE}
BIG = b"0" * (5 * 1024 * 1024)

HOSTILE: dict[str, bytes] = {
    "parent": tar_with(("../x", {})),
    "parent in the middle": tar_with(("a/../../x", {})),
    "parent that stays inside": tar_with(("a/../x", {})),
    "absolute": tar_with(("/etc/x", {})),
    "drive": tar_with(("C:\\x", {})),
    "drive slash": tar_with(("C:/x", {})),
    "backslash": tar_with(("..\\x", {})),
    "newline": tar_with(("a\nb", {})),
    "escape": tar_with(("a\x1b[2Jb", {})),
    "delete": tar_with(("a\x7fb", {})),
    "long part": tar_with(("n" * 300, {})),
    "long name": tar_with(("/".join(["n" * 200] * 25), {})),
    "deep": tar_with(("/".join("d" * 20), {})),
    "not utf-8": raw_tar(raw_header(b"\xff\xfe"), block(b"x")),
    "empty name": raw_tar(raw_header(b""), block(b"x")),
    "dot": raw_tar(raw_header(b"."), block(b"x")),
    "twice": tar_with(("a", {}), ("a", {})),
    "file then folder": tar_with(("a", {}), ("a/b", {})),
    "folder then file": tar_with(("a", {"type": tarfile.DIRTYPE}), ("a", {})),
    "file then link": tar_with(("a", {}), ("a", {**LINK, "linkname": "b"})),
    "link then file": tar_with(("a", {**LINK, "linkname": "b"}), ("a", {})),
    "link outside": tar_with(("a", {**LINK, "linkname": "../x"})),
    "link absolute": tar_with(("a", {**LINK, "linkname": "/etc/passwd"})),
    "link outside deeper": tar_with(("d/a", {**LINK, "linkname": "../../x"})),
    "link outside and back": tar_with(("a", {**LINK, "linkname": "../in/x"})),
    "link empty": raw_tar(raw_header(b"a", b"00000000000\0", b"2")),
    "write through link": tar_with(("a", {**LINK, "linkname": "b"}), ("b", {"type": tarfile.DIRTYPE}), ("a/x", {})),
    "link chain": tar_with(*((f"l{i}", {**LINK, "linkname": "/".join([".."] * 3)}) for i in range(3))),
    "hard outside": tar_with(("a", {**HARD, "linkname": "../x"})),
    "hard absolute": tar_with(("a", {**HARD, "linkname": "/etc/passwd"})),
    "hard to nothing": tar_with(("a", {**HARD, "linkname": "nothing"})),
    "hard to link": tar_with(("l", {**LINK, "linkname": "f"}), ("a", {**HARD, "linkname": "l"})),
    "hard to itself": tar_with(("a", {**HARD, "linkname": "a"})),
    "hard to folder": tar_with(("d", {"type": tarfile.DIRTYPE}), ("a", {**HARD, "linkname": "d"})),
    "character device": tar_with(("a", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
    "block device": tar_with(("a", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0})),
    "pipe": tar_with(("a", {"type": tarfile.FIFOTYPE})),
    "sparse": raw_tar(raw_header(b"a", b"00000000001\0", b"S"), block(b"x")),
    "pax sparse": raw_tar(pax(b"GNU.sparse.major", b"1"), raw_header(), block(b"x")),
    "unknown type": raw_tar(raw_header(b"a", b"00000000001\0", b"Z"), block(b"x")),
    "pax path outside": raw_tar(pax(b"path", b"../../x"), raw_header(), block(b"x")),
    "pax link outside": raw_tar(pax(b"linkpath", b"/etc"), raw_header(type_=b"2", size=b"00000000000\0")),
    "pax size negative": raw_tar(pax(b"size", b"-1"), raw_header(), block(b"x")),
    "pax size huge": raw_tar(pax(b"size", b"9" * 15), raw_header(), block(b"x")),
    "pax size words": raw_tar(pax(b"size", b"many"), raw_header(), block(b"x")),
    "pax record length zero": raw_tar(raw_header(b"p", b"%011o\0" % 9, b"x"), block(b"0 path=x\n"), raw_header()),
    "pax record too long": raw_tar(raw_header(b"p", b"%011o\0" % 9, b"x"), block(b"99 path=x"), raw_header()),
    "pax NUL": raw_tar(pax(b"path", b"a\0b"), raw_header(), block(b"x")),
    "metadata bomb": raw_tar(raw_header(b"p", b"77777777777\0", b"x")),
    "gnu long name outside": raw_tar(
        raw_header(b"L", b"%011o\0" % 5, b"L"), block(b"../x\0"), raw_header(), block(b"x")
    ),
    "negative size": raw_tar(raw_header(size=b"\xff" * 12)),
    "huge size": raw_tar(raw_header(size=b"\x80" + b"\x7f" * 11)),
    "size not octal": raw_tar(raw_header(size=b"9999999999\0\0")),
    "size past the end": raw_tar(raw_header(size=b"00077777777\0")),
    "bad checksum later": raw_tar(raw_header(size=b"00000000000\0"), b"A" * 512),
    "cut header": cut(tar_with(("a", {}), ("b", {})), 1100),
    "no end": cut(tar_with(("a", {})), 1024),
    "cut gzip": cut(gzip.compress(tar_with(("a", {}), data=os.urandom(9000))), 4000),
    "gzip garbage": b"\x1f\x8b" + os.urandom(600),
    "gzip not tar": gzip.compress(b"hello" * 300),
    "bzip2 garbage": b"BZh9" + os.urandom(600),
    "xz garbage": b"\xfd7zXZ\x00" + os.urandom(600),
    "gzip bomb": gzip.compress(tar_with(("a", {}), data=BIG)),
    "bzip2 bomb": bz2.compress(tar_with(("a", {}), data=BIG)),
    "xz bomb": lzma.compress(tar_with(("a", {}), data=BIG)),
    "many members": tar_with(*((f"f{i}", {}) for i in range(300))),
    "neither": b"#!/bin/sh\necho hi\n" + b" " * 600,
    "empty": b"",
    "zip parent": zip_with(("../x", b"x")),
    "zip absolute": zip_with(("/x", b"x")),
    "zip backslash": zip_with(("..\\x", b"x")),
    "zip newline": zip_with(("a\nb", b"x")),
    "zip twice": zip_with(("a", b"x"), ("a", b"y")),
    "zip file then folder": zip_with(("a", b"x"), ("a/b", b"y")),
    "zip link outside": zip_with(("a", b"../../x"), attr=0o120777 << 16),
    "zip link absolute": zip_with(("a", b"/etc/passwd"), attr=0o120777 << 16),
    "zip device": zip_with(("a", b""), attr=0o020666 << 16),
    "zip pipe": zip_with(("a", b""), attr=0o010666 << 16),
    "zip lzma": zip_with(("a", b"x"), method=zipfile.ZIP_LZMA),
    "zip bzip2": zip_with(("a", b"x"), method=zipfile.ZIP_BZIP2),
    "zip bomb": zip_with(("a", BIG)),
    "zip many": zip_with(*((f"f{i}", b"") for i in range(300))),
    "zip name differs": patched_zip(local_name_differs),
    "zip size differs": patched_zip(local_size_differs),
    "zip overlap": patched_zip(overlap),
    "zip encrypted": patched_zip(encrypted),
    "zip unknown method": patched_zip(unknown_method),
    "zip claims more": patched_zip(claims_more),
    "zip wrong crc": patched_zip(wrong_crc),
    "zip offset past the end": patched_zip(past_the_end),
    "zip cut": cut(zip_with(("a", os.urandom(9000))), 5000),
}


def digest(root: Path) -> str:
    """What the tree around the target looks like: names, kinds, sizes, contents."""
    seen = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        stat = path.lstat()
        seen.update(f"{path.relative_to(root)} {stat.st_mode} {stat.st_size}\n".encode())
        if path.is_file() and not path.is_symlink():
            seen.update(path.read_bytes())
    return seen.hexdigest()


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_hostile_archive_is_refused(case: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(HOSTILE[case])
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    (outside / "x").write_text("untouched")
    target = outside / "in" / "target"
    target.mkdir()
    before = digest(outside)
    began = time.monotonic()
    with pytest.raises((InvalidInput, PayloadTooLarge)) as caught:
        extract(archive, target, LIMITS)
    assert time.monotonic() - began < 2
    assert caught.value.message
    for path in target.rglob("*"):
        assert not path.is_symlink() or not os.readlink(path).startswith(("/", ".."))
    assert sum(p.lstat().st_size for p in target.rglob("*") if p.is_file()) <= LIMITS.total
    for path in sorted(target.rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
    assert digest(outside) == before


def test_corpus_is_as_large_as_promised() -> None:
    assert len(HOSTILE) >= 60


def packed(fmt: str) -> bytes:
    plain = tar_with(
        ("app", {"type": tarfile.DIRTYPE}),
        ("app/main.py", {"mode": 0o644}),
        ("app/run.sh", {"mode": 0o4755}),
        ("app/link", {**LINK, "linkname": "main.py"}),
        ("app/again.py", {**HARD, "linkname": "app/main.py"}),
        ("./dotted.txt", {}),
        ("n" * 120 + ".txt", {}),
        data=b"print('hi')\n",
        fmt=tarfile.PAX_FORMAT if fmt == "pax" else tarfile.GNU_FORMAT,
    )
    if fmt == "gzip":
        return gzip.compress(plain)
    if fmt == "bzip2":
        return bz2.compress(plain)
    return lzma.compress(plain) if fmt == "xz" else plain


@pytest.mark.parametrize("fmt", ["gnu", "pax", "gzip", "bzip2", "xz"])
def test_honest_tar_is_unpacked(fmt: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(packed(fmt))
    target = tmp_path / "target"
    target.mkdir()
    facts = extract(archive, target)
    assert facts.files == 5
    assert (target / "app/main.py").read_bytes() == b"print('hi')\n"
    assert (target / "app/again.py").read_bytes() == b"print('hi')\n"
    assert (target / "app/link").resolve() == target / "app/main.py"
    assert (target / "app/run.sh").stat().st_mode & 0o7777 == 0o755
    assert (target / "app/main.py").stat().st_mode & 0o7777 == 0o644
    assert (target / ("n" * 120 + ".txt")).exists()


def test_honest_zip_is_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(zip_with(("a/main.py", b"x = 1\n"), ("b.txt", b""), ("d/", b"")))
    target = tmp_path / "target"
    target.mkdir()
    assert extract(archive, target).files == 2
    assert (target / "a/main.py").read_bytes() == b"x = 1\n"
    assert (target / "d").is_dir()


@given(st.text(max_size=60) | st.lists(st.sampled_from(["..", ".", "a", "", "b\\c", "/", "C:"])).map("/".join))
@settings(max_examples=300)
def test_clean_path_never_leaves_the_root(name: str) -> None:
    try:
        path = clean_path(name, LIMITS)
    except InvalidInput:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert os.path.normpath(os.path.join("/data", path)) == ("/data/" + path if path else "/data")


@given(
    st.lists(st.sampled_from(["..", ".", "a", "b", ""]), min_size=1, max_size=8).map("/".join),
    st.integers(min_value=0, max_value=4),
)
@settings(max_examples=300)
def test_clean_target_never_leaves_the_root(target: str, depth: int) -> None:
    path = "/".join(["d"] * depth + ["link"])
    try:
        clean_target(path, target, LIMITS)
    except InvalidInput:
        return
    full = os.path.normpath(os.path.join("/data", os.path.dirname(path), target))
    assert full == "/data" or full.startswith("/data/")
