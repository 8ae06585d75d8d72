"""The clauses of the logs port (`septet/ports/logs.py`), as functions of a test bed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from clauses import Suite, raises

from septet.drivers.logs.files import FileLogs
from septet.model.errors import NotFound
from septet.model.invocation import InvocationRecord
from septet.ports.logs import LogLine

BOUND = 128 * 1024


class WallClock:
    time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class LogBed:
    def __init__(self, folder: Path, make: type[FileLogs] = FileLogs) -> None:
        self.root = folder / "logs"
        self.make = make
        self.clock = WallClock()
        self.logs: FileLogs

    def open(self) -> None:
        self.logs = self.make(self.root, self.clock, limit=BOUND)

    async def reopen(self) -> None:
        await self.logs.close()
        self.open()

    async def stored(self) -> None:
        """Returns when everything written so far is on disk."""
        await self.logs.read("n", "nothing")

    def size(self, kind: str = "lines") -> int:
        return sum(path.stat().st_size for path in self.root.glob(f"*/*/{kind}/*"))

    def lines_on_disk(self) -> list[bytes]:
        return b"".join(path.read_bytes() for path in sorted(self.root.glob("*/*/lines/*"))).splitlines()


suite: Suite[LogBed] = Suite()


def line(text: str, at: float = 1.0, function: str = "f", **fields: Any) -> LogLine:
    given = {"namespace": "n", "revision": "f-00001", "instance": "i", "stream": "stdout", **fields}
    return LogLine(at=at, function=function, text=text, **given)


def record(id: str, at: float = 1.0, function: str = "f", **fields: Any) -> InvocationRecord:
    return InvocationRecord(id=id, namespace="n", function=function, queued_at=at, **fields)


def texts(lines: list[LogLine]) -> list[str]:
    return [each.text for each in lines]


async def take(lines: AsyncIterator[LogLine], count: int) -> list[str]:
    found: list[str] = []
    for _ in range(count):
        try:
            found.append((await asyncio.wait_for(anext(lines), 2)).text)
        except TimeoutError:
            raise AssertionError(f"{len(found)} lines came, not {count}") from None
    return found


@suite.clause("logs.1")
async def a_function_stays_below_its_bound(bed: LogBed) -> None:
    for number in range(3000):
        bed.logs.write(line(f"{number} " + "x" * 100))
        bed.logs.write(line("quiet", function="other")) if number == 0 else None
        if number % 500 == 0:
            await bed.stored()
            assert bed.size() <= BOUND + 1000
    await bed.stored()
    assert BOUND // 2 < bed.size() <= BOUND + 1000
    kept = texts(await bed.logs.read("n", "f"))
    assert "older lines were dropped" in kept[0]
    numbers = [int(text.split()[0]) for text in kept[1:]]
    assert numbers == list(range(numbers[0], 3000))
    assert texts(await bed.logs.read("n", "other")) == ["quiet"]
    await bed.reopen()
    assert texts(await bed.logs.read("n", "f")) == kept
    assert len(await bed.logs.read("n", "f", tail=5)) == 5


@suite.clause("logs.1")
async def the_longest_lines_stay_below_it_too(bed: LogBed) -> None:
    for text in ("x" * 200_000, "\x00" * 200_000, "\U0001f600" * 200_000, '"\\' * 200_000) * 6:
        bed.logs.write(line(text))
        await bed.stored()
    assert 0 < bed.size() <= BOUND
    newest = (await bed.logs.read("n", "f"))[-1].text
    assert newest.endswith("(cut)") and newest.startswith('"\\"\\')


@suite.clause("logs.1")
async def records_are_bounded_too(bed: LogBed) -> None:
    for number in range(3000):
        bed.logs.record(record(f"{number:032x}", at=number, path="/" + "x" * 50))
        if number % 500 == 0:
            await bed.stored()
    found = await bed.logs.invocations("n", "f", limit=5)
    assert [each.queued_at for each in found] == [2999, 2998, 2997, 2996, 2995]
    bed.logs.record_encoded(("n", "f"), msgspec.json.encode(record("e" * 32, at=3000)))
    assert await bed.logs.invocation("n", "e" * 32) == record("e" * 32, at=3000)
    assert (await bed.logs.invocations("n", "f", limit=1))[0].queued_at == 3000
    assert 0 < bed.size("calls") <= BOUND
    assert (await bed.logs.invocation("n", f"{2999:032x}")).queued_at == 2999
    await raises(NotFound, bed.logs.invocation("n", f"{0:032x}"))
    await raises(NotFound, bed.logs.invocation("other", f"{2999:032x}"))


@suite.clause("logs.2")
async def no_text_can_forge_a_line(bed: LogBed) -> None:
    forged = '{"at":1,"namespace":"n","function":"f","revision":"","instance":"","stream":"platform","text":"forged"}'
    hostile = [f"a\n{forged}\nb", f"a\r{forged}", "\x1b[2J\x1b]0;title\x07", "\x9b31m", "\u202egnp.exe", "a\u2028b"]
    hostile += ["a\x00b", "tab\tstays", "lone \udc80 surrogate", "bad \udcff\udcfe bytes", "\x85next", "ünïcödé ✓"]
    for text in hostile:
        bed.logs.write(line(text))
        bed.logs.record(record("a" * 32, path=text, message=text, correlation=text))
    found = await bed.logs.read("n", "f")
    assert len(found) == len(hostile)
    for each in found:
        assert each.stream == "stdout"
        assert all(c.isprintable() or c == "\t" for c in each.text), repr(each.text)
    assert texts(found)[-1] == "ünïcödé ✓" and texts(found)[7] == "tab\tstays"
    assert len(bed.lines_on_disk()) == len(hostile)
    records = await bed.logs.invocations("n", "f")
    assert len(records) == len(hostile)
    assert all((each.path + each.message + each.correlation).replace("\t", "").isprintable() for each in records)
