"""Every clause of the logs port, for every driver; broken ones that the checks find out; and what has no number."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import log_clauses
import pytest
from clauses import Clause, raises, written_clauses
from log_clauses import LogBed, line, record, suite, take, texts

import septet.ports.logs
from septet.drivers.logs import files, following
from septet.drivers.logs.files import FileLogs
from septet.drivers.logs.segments import Segments
from septet.model.errors import SeptetError, Unavailable
from septet.model.invocation import InvocationRecord
from septet.ports.logs import LogLine


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[LogBed]:
    made = LogBed(tmp_path)
    made.open()
    yield made
    await made.logs.close()


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_clause(clause: Clause, bed: LogBed) -> None:
    await clause.check(bed)


def test_every_clause_of_the_port_has_a_test() -> None:
    assert written_clauses(septet.ports.logs, "logs") == suite.ids()


class HasNoBound(FileLogs):
    def _file(self, key: tuple[str, str], kind: str) -> Segments:
        self._limit = 1 << 40
        return super()._file(key, kind)


class NeverCuts(FileLogs):
    def write(self, line: LogLine) -> None:
        self._text_max = 1 << 40
        super().write(line)


class KeepsTheFirst(FileLogs):
    def record(self, record: InvocationRecord) -> None:
        if record.queued_at < 1000:
            super().record(record)


class WritesAsItCame(FileLogs):
    def write(self, line: LogLine) -> None:
        for part in line.text.splitlines():
            raw = line.__class__(**{**{f: getattr(line, f) for f in line.__struct_fields__}, "text": part})
            batch = self._room((line.namespace, line.function), 1)
            assert batch is not None
            batch.lines.append(raw)


BROKEN: dict[str, type[FileLogs]] = {
    "a_function_stays_below_its_bound": HasNoBound,
    "the_longest_lines_stay_below_it_too": NeverCuts,
    "records_are_bounded_too": KeepsTheFirst,
    "no_text_can_forge_a_line": WritesAsItCame,
}


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_a_broken_driver_fails(clause: Clause, tmp_path: Path) -> None:
    bed = LogBed(tmp_path, BROKEN[clause.check.__name__])
    bed.open()
    try:
        with pytest.raises((AssertionError, SeptetError)):
            await clause.check(bed)
    finally:
        await bed.logs.close()


async def test_lines_are_found_by_what_they_are_of(bed: LogBed) -> None:
    bed.logs.write(line("one", at=10, revision="f-00001", instance="a", invocation="x"))
    bed.logs.write(line("two", at=20, revision="f-00002", instance="b", stream="stderr"))
    bed.logs.write(line("three", at=300, revision="f-00002", instance="b", invocation="x"))
    read = bed.logs.read
    assert texts(await read("n", "f")) == ["one", "two", "three"]
    assert texts(await read("n", "f", revision="f-00002")) == ["two", "three"]
    assert texts(await read("n", "f", instance="a")) == ["one"]
    assert texts(await read("n", "f", invocation="x")) == ["one", "three"]
    assert texts(await read("n", "f", since=20)) == ["two", "three"]
    assert texts(await read("n", "f", since=301)) == []
    assert texts(await read("n", "f", tail=2)) == ["two", "three"]
    assert texts(await read("n", "f", tail=1, invocation="x", revision="f-00001")) == ["one"]
    assert await read("n", "g") == await read("m", "f") == []
    await bed.reopen()
    assert texts(await bed.logs.read("n", "f")) == ["one", "two", "three"]


async def test_following_misses_nothing_and_tells_nothing_twice(bed: LogBed) -> None:
    for number in range(50):
        bed.logs.write(line(str(number)))

    async def write() -> None:
        for number in range(50, 600):
            bed.logs.write(line(str(number)))
            if number % 7 == 0:
                await asyncio.sleep(0)

    writing = asyncio.ensure_future(write())
    followed = [bed.logs.follow("n", "f") for _ in range(3)]
    try:
        for lines in followed:
            assert await take(lines, 600) == [str(number) for number in range(600)]
            await asyncio.sleep(0.001)
    finally:
        for lines in followed:
            await lines.aclose()  # type: ignore[attr-defined]
    await writing
    assert bed.logs._followers == {}


async def test_a_line_is_seen_within_a_tenth_of_a_second(bed: LogBed) -> None:
    lines = bed.logs.follow("n", "f")
    waiting = asyncio.ensure_future(take(lines, 1))
    await asyncio.sleep(0.05)
    start = time.monotonic()
    bed.logs.write(line("now"))
    assert await waiting == ["now"]
    assert time.monotonic() - start < 0.1
    await asyncio.sleep(0.1)
    while not bed.lines_on_disk():
        assert time.monotonic() - start < 2, "it never came to the disk by itself"
        await asyncio.sleep(0.01)
    await lines.aclose()  # type: ignore[attr-defined]


async def test_following_ends_when_the_logs_close(bed: LogBed) -> None:
    lines = bed.logs.follow("n", "f")
    waiting = asyncio.ensure_future(anext(lines, None))
    await asyncio.sleep(0.02)
    await bed.logs.close()
    assert await asyncio.wait_for(waiting, 2) is None
    await raises(Unavailable, bed.logs.read("n", "f"))
    bed.logs.write(line("too late"))
    bed.logs.record(record("a" * 32))


async def test_a_slow_follower_is_bounded_and_told(bed: LogBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WAITING", 1000)
    lines = bed.logs.follow("n", "f")
    bed.logs.write(line("first"))
    assert await take(lines, 1) == ["first"]
    for number in range(100):
        bed.logs.write(line(f"{number:02d}" + "x" * 98))
    assert [text[:2] for text in await take(lines, 10)] == [f"{number:02d}" for number in range(10)]
    bed.logs.write(line("last"))
    assert await take(lines, 2) == ["90 lines were left out here: they came faster than they were read", "last"]
    await lines.aclose()  # type: ignore[attr-defined]


async def test_a_noisy_function_costs_no_other_its_lines(bed: LogBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WAITING_EACH", 50_000)
    for number in range(1000):
        bed.logs.write(line(f"{number} noise"))
    bed.logs.write(line("calm", function="g"))
    kept = texts(await bed.logs.read("n", "f"))
    dropped = 1000 - (len(kept) - 1)
    assert 0 < dropped < 1000
    assert kept[-1] == f"{dropped} lines were dropped here: they came faster than the disk takes them"
    assert texts(await bed.logs.read("n", "g")) == ["calm"]
    bed.logs.write(line("after"))
    assert texts(await bed.logs.read("n", "f"))[-1] == "after"
    await asyncio.sleep(0.01)
    assert bed.logs._waiting_all == 0 and bed.logs._waiting == {}


async def test_half_a_line_spoils_no_other(bed: LogBed) -> None:
    """What a kill in the middle of a write leaves, and what a broken disk does to a line."""
    for text in ("one", "two", "three"):
        bed.logs.write(line(text))
    await bed.stored()
    await bed.logs.close()
    (path,) = bed.root.glob("*/*/lines/*")
    data = path.read_bytes().replace(b'"two"', b'"two\xff')
    path.write_bytes(data + b'{"at":4.0,"names')
    bed.open()
    bed.logs.write(line("four"))
    assert texts(await bed.logs.read("n", "f")) == ["one", "three", "four"]
    assert bed.lines_on_disk()[-1].endswith(b'"four","invocation":""}')


async def test_a_disk_that_refuses_costs_lines_and_nothing_else(
    bed: LogBed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bed.logs.write(line("before"))
    await bed.stored()
    with monkeypatch.context() as patch:

        def refuse(self: Segments, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Segments, "_write", refuse)
        for number in range(3):
            bed.logs.write(line(f"lost {number}"))
            await bed.stored()
    bed.logs.write(line("after"))
    assert texts(await bed.logs.read("n", "f")) == ["before", "after"]
    assert [each.getMessage() for each in caplog.records].count(
        "function logs cannot be written, and are lost meanwhile: [Errno 28] No space left on device"
    ) == 1


async def test_records_of_many_functions_outlive_a_crash_and_come_once(bed: LogBed) -> None:
    ids = [f"{number:032x}" for number in range(40)]
    for number, id in enumerate(ids):
        bed.logs.record(record(id, function=f"f{number % 20}", at=number))
    await bed.logs.invocations("elsewhere")
    assert not list(bed.root.glob("*/*/calls/*")), "each function's file was written for two records"
    journal = bed.root / "journal"
    assert journal.read_bytes().count(b"\n") == 40
    for number in range(files.MANY):  # this one's go to its own file, the two that wait in front
        bed.logs.record(record(f"{100 + number:032x}", function="f0", at=100 + number))
    await bed.logs.invocations("elsewhere")
    left = journal.read_bytes()
    await bed.logs.close()
    assert journal.read_bytes() == b""
    for path in bed.root.glob("*/*f7/calls/*"):
        path.unlink()
    journal.write_bytes(left + b'{"id": "cut sho')  # as if it had been killed, with f7's not yet where they belong
    bed.open()
    found = await bed.logs.invocations("n", limit=1000)
    assert sorted(each.id for each in found if each.queued_at < 100) == ids
    assert len(found) == 40 + files.MANY
    assert [each.queued_at for each in await bed.logs.invocations("n", "f0", limit=3)][-1] == 100 + files.MANY - 3
    assert journal.read_bytes() == b""


async def test_what_was_deleted_does_not_come_back_from_the_journal(bed: LogBed) -> None:
    bed.logs.record(record("a" * 32))
    await bed.stored()
    await bed.logs.delete("n", "f")
    assert (bed.root / "journal").read_bytes() == b""
    await bed.reopen()
    assert await bed.logs.invocations("n") == []


async def test_a_full_journal_goes_to_the_functions_files(bed: LogBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "JOURNAL", 1000)
    for number in range(30):
        bed.logs.record(record(f"{number:032x}", function=f"f{number}"))
        await bed.stored()
    assert (bed.root / "journal").stat().st_size < 2000
    assert len(list(bed.root.glob("*/*/calls/*"))) > 20
    assert len(await bed.logs.invocations("n")) == 30


async def test_any_name_of_a_function_has_its_own_log(bed: LogBed) -> None:
    names = ["a", "A", "%61", "%", "..x", "é" * 126, "é" * 125 + "ee", "x" * 253, "a b", "\U0001f600"]
    for name in names:
        bed.logs.write(line(name, function=name))
        bed.logs.record(record("a" * 31 + "b", function=name, message=name))
    for name in names:
        assert texts(await bed.logs.read("n", name)) == [name]
        assert [each.message for each in await bed.logs.invocations("n", name)] == [name]
    assert {each.function for each in await bed.logs.invocations("n")} == set(names)


async def test_deleting_forgets_lines_and_records(bed: LogBed) -> None:
    bed.logs.write(line("gone"))
    bed.logs.write(line("stays", function="g"))
    bed.logs.record(record("a" * 32))
    await bed.logs.delete("n", "f")
    await bed.logs.delete("n", "unknown")
    assert await bed.logs.read("n", "f") == [] and await bed.logs.invocations("n", "f") == []
    bed.logs.write(line("new"))
    assert texts(await bed.logs.read("n", "f")) == ["new"]
    assert texts(await bed.logs.read("n", "g")) == ["stays"]


async def test_what_is_old_goes(bed: LogBed) -> None:
    bed.logs.write(line("old"))
    bed.logs.write(line("young", function="g"))
    await bed.stored()
    old = bed.clock.wall() - 31 * 24 * 3600
    for path in bed.root.glob("*/*/lines/*"):
        os.utime(path, (old, old) if b'"old"' in path.read_bytes() else (bed.clock.wall(), bed.clock.wall()))
    bed.logs._sweep_later()
    assert await bed.logs.read("n", "f") == []
    assert texts(await bed.logs.read("n", "g")) == ["young"]
    bed.logs.write(line("again"))
    assert texts(await bed.logs.read("n", "f")) == ["again"]


def test_the_suite_has_a_broken_driver_for_each_check() -> None:
    assert set(BROKEN) == {clause.check.__name__ for clause in log_clauses.suite.clauses}
