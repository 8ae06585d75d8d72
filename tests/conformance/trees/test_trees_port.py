"""Every clause of the trees port, for every driver; and for each check a broken one that it finds out."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 (loaded before the child gives up what could load it)
import hashlib
import os
import stat
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import tree_clauses
from clauses import Clause, written_clauses
from tree_clauses import TreeBed, in_the_making, plain, suite

import septet.ports.blobs
from septet.drivers.blobs.trees import DirectoryTrees
from septet.model.errors import InvalidInput, NotFound, SeptetError

NOBODY = 65534


@pytest.fixture
def bed(tmp_path: Path) -> TreeBed:
    return TreeBed(tmp_path)


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_clause(clause: Clause, bed: TreeBed) -> None:
    await clause.check(bed)


async def test_trees_in_the_making(bed: TreeBed) -> None:
    await in_the_making(bed)
    for unknown in ("tree:" + "0" * 64, "tree:../work", "x", ""):
        with pytest.raises(NotFound):
            bed.trees.path(unknown)
    with pytest.raises(NotFound):
        bed.trees.working("nothing")


def test_every_clause_of_the_port_has_a_test() -> None:
    assert written_clauses(septet.ports.blobs, "trees") == suite.ids()


class CountsBytesOnly(DirectoryTrees):
    """Names and modes do not go into its digest."""

    async def freeze(self, work: str) -> str:
        root = self.working(work)
        content = b"".join(sorted(path.read_bytes() for path in root.rglob("*") if path.is_file()))
        digest = hashlib.sha256(content).hexdigest()
        os.utime(root, (0, 0))
        root.rename(self._frozen / digest) if not (self._frozen / digest).exists() else None
        return f"tree:{digest}"


class CountsTimes(DirectoryTrees):
    async def freeze(self, work: str) -> str:
        root = self.working(work)
        times = [path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))]
        (root / ".times").write_text(str(times))
        return await super().freeze(work)


class KeepsModes(DirectoryTrees):
    async def freeze(self, work: str) -> str:
        root = self.working(work)
        modes = {path.relative_to(root): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}
        digest = await super().freeze(work)
        for path, mode in modes.items():
            (self.path(digest) / path).chmod(mode)
        return digest


class TakesAnything(DirectoryTrees):
    async def freeze(self, work: str) -> str:
        try:
            return await super().freeze(work)
        except InvalidInput:
            return "tree:" + "0" * 64


class KeepsNothing(DirectoryTrees):
    async def keep(self, name: str) -> Path:
        return await self.create(name)


BROKEN: dict[str, type[DirectoryTrees]] = {
    "names_contents_targets_and_execute_bits_count": CountsBytesOnly,
    "owners_times_and_other_modes_do_not_count": CountsTimes,
    "privileges_and_write_bits_go": KeepsModes,
    "anything_else_is_refused": TakesAnything,
    "a_kept_tree_outlives_the_process_within_its_bytes": KeepsNothing,
}


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_a_broken_driver_fails(clause: Clause, tmp_path: Path) -> None:
    bed = TreeBed(tmp_path, BROKEN[clause.check.__name__])
    with pytest.raises((AssertionError, SeptetError)):
        await clause.check(bed)


async def test_equal_trees_at_once_are_kept_once(bed: TreeBed) -> None:
    for number in range(4):
        plain(await bed.trees.create(f"w{number}"))
    digests = await asyncio.gather(*(bed.trees.freeze(f"w{number}") for number in range(4)))
    assert await bed.trees.digests() == [digests[0]]
    assert set(digests) == {digests[0]}
    assert [list((bed.root / name).iterdir()) for name in ("work", "gone")] == [[], []]


async def test_what_a_crash_left_is_cleared(bed: TreeBed) -> None:
    digest = await bed.frozen(plain)
    plain(await bed.trees.create("interrupted"))
    half = bed.root / "gone" / "half"
    half.mkdir()
    plain(half)
    (half / "code").chmod(0o000)
    bed.reopen()
    assert [list((bed.root / name).iterdir()) for name in ("work", "gone")] == [[], []]
    assert await bed.trees.digests() == [digest]


async def test_everything_is_synced_before_the_tree_has_its_name(bed: TreeBed, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    true_sync = os.fsync

    def sync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        true_sync(fd)

    monkeypatch.setattr(os, "fsync", sync)
    await bed.frozen(plain)
    work = str(bed.root / "work" / "work")
    before = {path.removeprefix(work) for path in synced[:-1]}
    assert before == {"", "/code", "/empty", "/code/main.py", "/code/run.sh"}
    assert synced[-1] == str(bed.root / "frozen")


def as_nobody(work: Callable[[], Awaitable[None]]) -> None:
    """Runs it as an ordinary user, in a child."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            asyncio.run(work())  # type: ignore[arg-type]
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def nobodys(tmp_path: Path) -> Path:
    """A directory that the ordinary user reaches and owns."""
    folder = tmp_path / "own"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    for parent in folder.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder


@pytest.mark.root
@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
def test_clause_as_an_ordinary_user(clause: Clause, nobodys: Path) -> None:
    as_nobody(lambda: clause.check(TreeBed(nobodys)))


@pytest.mark.root
def test_shut_directories_are_no_way_to_stay(nobodys: Path) -> None:
    async def work() -> None:
        bed = TreeBed(nobodys)
        right = await bed.frozen(plain)

        def shut(root: Path) -> None:
            plain(root)
            for path in ("code/main.py", "code", "empty"):
                (root / path).chmod(0o000)

        assert await bed.frozen(shut) == right
        shut(await bed.trees.create("work"))
        await bed.trees.discard("work")
        await bed.trees.delete(right)
        assert [list((bed.root / name).iterdir()) for name in ("work", "gone", "frozen")] == [[], [], []]

    as_nobody(work)


def test_the_suite_has_a_broken_driver_for_each_check() -> None:
    assert set(BROKEN) == {clause.check.__name__ for clause in tree_clauses.suite.clauses}


async def test_a_kept_tree_of_an_odd_shape_goes_as_a_whole(bed: TreeBed) -> None:
    deep = await bed.trees.keep("deep")
    for _ in range(40):
        deep /= "d"
    deep.mkdir(parents=True)
    assert await bed.trees.trim("deep", 1 << 30) == 0
    wide = await bed.trees.keep("wide")
    for number in range(50):
        (wide / f"{number}").mkdir()
    assert await bed.trees.trim("wide", 100_000) == 0, "folders alone take more"
    assert await bed.trees.kept() == []
