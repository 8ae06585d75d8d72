"""Packing: deterministic, honest about what it leaves out, and never more than the source."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.cli.failures import Failure
from septet.cli.pack import Ignore, pack


def members(source: Path) -> dict[str, tarfile.TarInfo]:
    package = pack(source)
    with tarfile.open(fileobj=io.BytesIO(package.file.read())) as archive:
        found = {member.name: member for member in archive.getmembers()}
    package.close()
    return found


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one", "b", "a/x", "c.sh"), fill(tmp_path / "two", "c.sh", "a/x", "b")
    os.utime(two / "b", (1, 1))
    (one / "c.sh").chmod(0o755)
    (two / "c.sh").chmod(0o711)
    (two / "b").chmod(0o600)
    first, second = pack(one), pack(two)
    assert first.digest == second.digest and first.file.read() == second.file.read()
    assert first.size == len(pack(one).file.read())
    (two / "c.sh").chmod(0o644)
    assert pack(two).digest != first.digest


def test_what_is_packed(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "main.py",
        "lib/util.py",
        "lib/x.pyc",
        ".git/config",
        ".env",
        "node_modules/a/b",
        "septet.yaml",
        "sub/septet.yaml",
    )
    (tmp_path / "link").symlink_to("lib/util.py")
    found = members(tmp_path)
    assert list(found) == ["lib", "lib/util.py", "link", "main.py", "sub", "sub/septet.yaml"]
    assert found["link"].linkname == "lib/util.py"
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in found.values()} == {(0, 0, 0, "")}


def test_one_file_and_archives(tmp_path: Path) -> None:
    fill(tmp_path, "handler.js")
    assert list(members(tmp_path / "handler.js")) == ["handler.js"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("main.py", "x")
    package = pack(tmp_path / "a.zip")
    assert package.file.read() == (tmp_path / "a.zip").read_bytes()


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside"])
def test_links_that_leave_are_refused(tmp_path: Path, target: str) -> None:
    fill(tmp_path / "src", "sub/a")
    fill(tmp_path, "outside")
    (tmp_path / "src" / "evil").symlink_to(target)
    with pytest.raises(Failure, match="outside of the source"):
        pack(tmp_path / "src")


def test_other_kinds_and_nothing_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Failure, match="is not a file, folder or link"):
        pack(tmp_path)
    with pytest.raises(Failure, match="there is no"):
        pack(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("lines", "name", "folder", "ignored"),
    [
        (["*.log"], "a/b.log", False, True),
        (["*.log", "!keep.log"], "a/keep.log", False, False),
        (["/top"], "top", False, True),
        (["/top"], "a/top", False, False),
        (["a/b"], "a/b", False, True),
        (["a/b"], "x/a/b", False, False),
        (["build/"], "build", True, True),
        (["build/"], "build", False, False),
        (["**/x"], "a/b/x", False, True),
        (["a/**/x"], "a/x", False, True),
        (["a/**"], "a/b/c", False, True),
        (["doc[0-9].md"], "doc1.md", False, True),
        (["doc[!0-9].md"], "doc1.md", False, False),
        (["?.md"], "ab.md", False, False),
        (["# a comment", "", "\\#file"], "#file", False, True),
        (["a.b"], "aXb", False, False),
    ],
)
def test_ignore_rules(lines: list[str], name: str, folder: bool, ignored: bool) -> None:
    assert Ignore(lines).matches(name, folder) is ignored


def test_septetignore_stands_in_for_gitignore(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", "node_modules/m")
    (tmp_path / ".gitignore").write_text("a\n")
    assert "a" not in members(tmp_path)
    (tmp_path / ".septetignore").write_text("b\n!node_modules\n")
    assert [n for n in members(tmp_path) if not n.startswith(".")] == ["a", "node_modules", "node_modules/m"]


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_rule_and_name_end(rule: str, name: str) -> None:
    assert Ignore([rule]).matches(name, False) in (True, False)
