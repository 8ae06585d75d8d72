"""The clauses of the trees port (`septet/ports/blobs.py`), as functions of a test bed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from clauses import Suite, raises

from septet.drivers.blobs.trees import DirectoryTrees
from septet.model.errors import InvalidInput, NotFound


class TreeBed:
    def __init__(self, folder: Path, make: type[DirectoryTrees] = DirectoryTrees) -> None:
        self.root = folder / "trees"
        self.make = make
        self.trees = make(self.root)

    def reopen(self) -> None:
        self.trees = self.make(self.root)

    async def frozen(self, fill: Callable[[Path], object]) -> str:
        fill(await self.trees.create("work"))
        return await self.trees.freeze("work")


suite: Suite[TreeBed] = Suite()


def plain(root: Path) -> None:
    """A tree with one of each."""
    (root / "code").mkdir()
    (root / "code" / "main.py").write_text("x = 1\n")
    (root / "code" / "run.sh").write_text("#!/bin/sh\n")
    (root / "code" / "run.sh").chmod(0o755)
    (root / "code" / "link").symlink_to("main.py")
    (root / "empty").mkdir()


def touched(root: Path) -> None:
    """The same with other times, and modes that do not count."""
    plain(root)
    (root / "code" / "main.py").chmod(0o600)
    (root / "code" / "run.sh").chmod(0o711)
    (root / "empty").chmod(0o770)
    os.utime(root / "code" / "main.py", (1, 1))


def _with(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def fill(root: Path) -> None:
        plain(root)
        change(root)

    return fill


def _replace(root: Path) -> None:
    (root / "empty").rmdir()
    (root / "empty").touch()


def _retarget(root: Path) -> None:
    (root / "code" / "link").unlink()
    (root / "code" / "link").symlink_to("run.sh")


DIFFERENT: dict[str, Callable[[Path], object]] = {
    "a name": lambda root: (root / "code" / "main.py").rename(root / "code" / "other.py"),
    "a content": lambda root: (root / "code" / "main.py").write_text("x = 2\n"),
    "a link's target": _retarget,
    "an execute bit": lambda root: (root / "code" / "main.py").chmod(0o755),
    "an empty directory": lambda root: (root / "empty").rmdir(),
    "a place": lambda root: (root / "code" / "main.py").rename(root / "main.py"),
    "a file in a directory's place": _replace,
}


@suite.clause("trees.1")
async def names_contents_targets_and_execute_bits_count(bed: TreeBed) -> None:
    digests = {await bed.frozen(plain)}
    for change in DIFFERENT.values():
        digests.add(await bed.frozen(_with(change)))
    assert len(digests) == len(DIFFERENT) + 1
    assert set(await bed.trees.digests()) == digests


@suite.clause("trees.1")
async def owners_times_and_other_modes_do_not_count(bed: TreeBed) -> None:
    first = await bed.frozen(plain)
    assert first.startswith("tree:")
    assert await bed.frozen(touched) == first
    assert await bed.trees.digests() == [first]
    assert list((bed.root / "work").iterdir()) == []
    bed.reopen()
    root = bed.trees.path(first)
    assert (root / "code" / "main.py").read_text() == "x = 1\n"
    assert (root / "code" / "link").readlink() == Path("main.py")


@suite.clause("trees.2")
async def privileges_and_write_bits_go(bed: TreeBed) -> None:
    def fill(root: Path) -> None:
        plain(root)
        (root / "code" / "run.sh").chmod(0o6755)
        (root / "code" / "main.py").chmod(0o4600)
        (root / "empty").chmod(0o3777)

    root = bed.trees.path(await bed.frozen(fill))
    modes = {
        str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode)
        for path in (root, *root.rglob("*"))
        if not path.is_symlink()
    }
    assert modes == {".": 0o555, "code": 0o555, "code/main.py": 0o444, "code/run.sh": 0o555, "empty": 0o555}


@suite.clause("trees.2")
async def anything_else_is_refused(bed: TreeBed) -> None:
    def deep(root: Path) -> None:
        here = os.open(root, os.O_RDONLY)
        for _ in range(1200):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)

    for fill in (lambda root: os.mkfifo(root / "pipe"), deep):
        fill(await bed.trees.create("work"))
        await raises(InvalidInput, bed.trees.freeze("work"))
        await bed.trees.discard("work")
    assert await bed.trees.digests() == []
    assert list((bed.root / "gone").iterdir()) == []


@suite.clause("trees.3")
async def a_kept_tree_outlives_the_process_within_its_bytes(bed: TreeBed) -> None:
    root = await bed.trees.keep("kept")
    outside = bed.root.parent / "outside"
    outside.write_bytes(bytes(50_000))
    (root / "folder").mkdir()
    for number in range(4):
        (root / "folder" / f"{number}").write_bytes(bytes(20_000))
        os.utime(root / "folder" / f"{number}", (1000 + number, 1000 + number))
    (root / "link").symlink_to(outside)
    os.utime(root / "link", (1, 1), follow_symlinks=False)
    await bed.trees.create("work")
    bed.reopen()
    assert await bed.trees.keep("kept") == bed.trees.working("kept") == root
    assert await bed.trees.kept() == ["kept"]
    whole = await bed.trees.trim("kept", 1 << 30)
    assert len(list(root.rglob("*"))) == 6
    assert 70_000 < await bed.trees.trim("kept", whole - 25_000) <= whole - 25_000
    assert sorted(path.name for path in root.rglob("*")) == ["1", "2", "3", "folder"], "the oldest go"
    assert outside.stat().st_size == 50_000
    await raises(NotFound, bed.trees.freeze("kept"))
    assert await bed.trees.trim("kept", 0) == 0
    assert await bed.trees.kept() == []
    await raises(NotFound, _working(bed, "kept"))


async def _working(bed: TreeBed, name: str) -> Path:
    return bed.trees.working(name)


async def in_the_making(bed: TreeBed) -> None:
    """What has no number: `create`, `working`, `discard`, `delete`, `path`."""
    root = await bed.trees.create("work")
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert bed.trees.working("work") == root
    (root / "old").touch()
    assert list((await bed.trees.create("work")).iterdir()) == []
    await bed.trees.discard("work")
    await bed.trees.discard("work")
    await raises(NotFound, bed.trees.freeze("work"))
    for bad in ("..", "a/b", "", ".", "/etc"):
        await raises(InvalidInput, bed.trees.create(bad))
    digest = await bed.frozen(plain)
    await bed.trees.delete(digest)
    await bed.trees.delete(digest)
    assert await bed.trees.digests() == []
