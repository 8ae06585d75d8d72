"""The clauses of `septet.ports.contract`, each as a check of one bed. A check raises AssertionError or TimeoutError."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from contract_beds import Bed
from contract_processes import PATIENCE, Instance, Recorder, Short, call, head

from septet.model.errors import FunctionCrashed, InitFailed, InstanceLost, SeptetError, StartFailed
from septet.ports.contract import Link, ShortLink
from septet.ports.sandbox import ProtocolFactory

MIB = 1024 * 1024


def resident() -> int:
    """This process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def clause_1(bed: Bed, folder: Path) -> None:
    """`write` never blocks, and past the high-water mark `pause_upload` is called before it returns."""
    async with bed.running(folder) as (_, link):
        unread = Recorder()
        upload = link.begin(head("POST", "/slow?s=0.3", length=None), unread)
        sent, begun = 0, time.monotonic()
        while unread.may_write and sent < 64 * MIB:
            upload.write(b"x" * 65536)
            sent += 65536
            # A process that reads nothing: only what the kernel's buffers take is gone after this.
            await asyncio.sleep(0)
        assert time.monotonic() - begun < 1
        assert not unread.may_write, "nothing held the sender"
        assert sent < 32 * MIB
        await unread.over()
        assert unread.status == 200
        await _upload_all(link, 4 * MIB)


async def _upload_all(link: Link, size: int) -> None:
    """A sender that waits when it is told to gets everything through."""
    reply = Recorder()
    upload = link.begin(head("POST", "/count", length=None), reply)
    for _ in range(size // 65536):
        await reply.until(lambda: reply.may_write)
        upload.write(b"x" * 65536)
    upload.end()
    await reply.over()
    assert (reply.status, bytes(reply.body)) == (200, str(size).encode())


async def clause_2(bed: Bed, folder: Path) -> None:
    """A cancelled call that was not started never runs; one that runs is told, or its instance is given up."""
    async with bed.running(folder / "a") as (instance, link):
        marker = folder / "marker"
        busy = [Recorder() for _ in range(bed.concurrency)]
        for slow in busy:
            link.begin(head("GET", "/slow?s=0.5"), slow)
        for slow in busy:
            await slow.until(lambda slow=slow: "started" in slow.events)  # type: ignore[misc]
        unwanted, gone = Recorder(), asyncio.Event()
        upload = link.begin(head("GET", f"/mark?file={marker}"), unwanted)
        upload.cancel(gone.set)
        for slow in busy:
            await slow.over()
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
        assert bytes((await call(link, "GET", "/hello")).body) == b"hello GET"
        assert not marker.exists(), "a call ran that was cancelled before it started"
        assert not unwanted.events
        await _cancel_running(bed, instance, link)


async def _cancel_running(bed: Bed, instance: Instance, link: Link) -> None:
    running, gone = Recorder(), asyncio.Event()
    upload = link.begin(head("GET", "/slow?s=20"), running)
    await running.until(lambda: "started" in running.events)
    await asyncio.sleep(0.05)
    upload.cancel(gone.set)
    async with asyncio.timeout(PATIENCE):
        await gone.wait()
    assert running.events == ["started"], "the reply was told something after `cancel`"
    if bed.stops:
        assert instance.lost == 0
        assert (await call(link, "GET", "/hello")).status == 200
    elif not bed.http:
        assert instance.lost == 1, "it did not stop, and its instance is used on"
        with pytest.raises(InstanceLost):
            link.begin(head(), Recorder())


async def clause_3(bed: Bed, folder: Path) -> None:
    """While paused nothing is delivered, and what the link holds is bounded; then all of it comes."""
    async with bed.running(folder) as (_, link):
        reply = Recorder(keep=False)
        upload = link.begin(head("GET", "/flood?mib=64"), reply)
        await reply.until(lambda: reply.size > 0)
        upload.pause()
        size, memory = reply.size, resident()
        await asyncio.sleep(0.4)
        assert reply.size == size, "data was delivered while paused"
        assert resident() - memory < 6 * MIB, "the link holds more than it may"
        upload.resume()
        await reply.over(30)
        assert (reply.status, reply.size) == (200, 64 * MIB)


async def clause_4(bed: Bed, folder: Path) -> None:
    """More exchanges than the concurrency are not refused."""
    async with bed.running(folder) as (_, link):
        replies = [Recorder() for _ in range(bed.concurrency * 2 + 1)]
        for reply in replies:
            link.begin(head("GET", "/slow?s=0.05"), reply)
        for reply in replies:
            await reply.over()
            assert (reply.status, bytes(reply.body)) == (200, b"slow")


async def clause_5(bed: Bed, folder: Path) -> None:
    """When the instance dies, every open exchange fails, and `on_lost` is called once: before any InstanceLost."""
    async with bed.running(folder) as (instance, link):
        order: list[str] = []
        instance.when_lost = lambda: order.append("lost")
        begun, waiting = Recorder(), Recorder()
        begun.when_over = lambda: order.append("failed")
        waiting.when_over = lambda: order.append("moves" if isinstance(waiting.error, InstanceLost) else "ends")
        link.begin(head("GET", "/slow?s=20"), begun)
        await begun.until(lambda: "started" in begun.events)
        for _ in range(bed.concurrency - 1):
            link.begin(head("GET", "/slow?s=20"), Recorder())
        link.begin(head("GET", "/hello"), waiting)
        await asyncio.sleep(0)
        instance.kill()
        await begun.over()
        assert isinstance(begun.error, FunctionCrashed)
        if "end" not in waiting.events:
            await waiting.over()
            expected = FunctionCrashed if "started" in waiting.events else InstanceLost
            assert isinstance(waiting.error, expected)
        async with asyncio.timeout(PATIENCE):
            while not instance.lost:
                await asyncio.sleep(0.01)
        assert order.count("lost") == 1
        assert order.count("failed") == 1
        assert "moves" not in order or order.index("lost") < order.index("moves")
        with pytest.raises(InstanceLost):
            link.begin(head(), Recorder())


async def clause_6(bed: Bed, folder: Path) -> None:
    """`open` tries `connect` again while it raises InstanceLost, and raises InitFailed or StartFailed."""
    started, connect = await bed.start(folder / "a")
    tries = 0

    async def late(factory: ProtocolFactory) -> asyncio.Transport:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise InstanceLost("not yet")
        return await connect(factory)

    try:
        link = await started.open(late, 30)
        assert (await call(link, "GET", "/hello")).status == 200
        assert tries >= 3
    finally:
        await started.close()
    await _never_ready(bed, folder / "b")
    if bed.broken:
        await _cannot_be_loaded(bed, folder / "c")


async def clause_7(bed: Bed, folder: Path) -> None:
    """`ask` on a lost link raises InstanceLost, and the call hears nothing."""
    async with bed.running(folder) as (instance, link):
        if not isinstance(link, ShortLink):
            assert bed.http, "our own runtimes take short calls"
            return
        instance.kill()
        async with asyncio.timeout(PATIENCE):
            while not instance.lost:
                await asyncio.sleep(0.01)
        short = Short(link)
        with contextlib.suppress(InstanceLost):
            short.ask("GET", "/hello")
            raise AssertionError("a lost link took a call")
        assert not short.heard


async def clause_8(bed: Bed, folder: Path) -> None:
    """A whole reply is handed over whole; with anything else, and when that is declined, the call goes on as others."""
    async with bed.running(folder) as (instance, link):
        if not isinstance(link, ShortLink):
            return
        short = await _asked(Short(link), "GET", "/hello")
        assert (short.status, short.whole) == (200, b"hello GET")
        # Some runtimes send every reply in pieces.
        assert bed.runtime == "exec" or short.heard == ["answered"]
        declined = await _asked(Short(link, declines=True), "GET", "/hello")
        assert declined.heard[-1:] == ["unfold"]
        assert (declined.status, declined.whole) == (200, b"hello GET")
        counted = await _asked(Short(link), "POST", "/count", b"x" * 1000)
        assert (counted.status, counted.whole) == (200, b"1000")
        await _short_ends(bed, instance, link)


async def _short_ends(bed: Bed, instance: Instance, link: ShortLink) -> None:
    """A stream, a call that is cancelled, and one whose instance dies."""
    pieces = await _asked(Short(link), "GET", "/flood?mib=2")
    assert pieces.heard == ["unfold"] and pieces.reply.size == 2 * MIB
    running = Short(link)
    running.ask("GET", "/slow?s=20")
    async with asyncio.timeout(PATIENCE):
        while not running.running:
            await asyncio.sleep(0.01)
    instance.kill()
    await running.reply.over()
    assert running.heard == ["unfold"] and isinstance(running.reply.error, FunctionCrashed)


async def clause_9(bed: Bed, folder: Path) -> None:
    """Calls that wait behind a running one are given back while it runs, and never run there."""
    async with bed.running(folder) as (_, link):
        if not isinstance(link, ShortLink):
            return
        serial = bed.name == "python-sync"
        end = time.monotonic() + (PATIENCE if serial else 0.2)
        while not link.takes_ahead() and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert link.takes_ahead() == serial
        if serial:
            await _given_back(link, folder / "marker")


async def _given_back(link: ShortLink, marker: Path) -> None:
    slow, behind = Short(link), [Short(link) for _ in range(3)]
    slow.ask("GET", "/slow?s=1.5")
    async with asyncio.timeout(PATIENCE):
        while not slow.running:
            await asyncio.sleep(0.01)
    for short in behind:
        short.ask("GET", f"/mark?file={marker}")
    link.recall()
    async with asyncio.timeout(1.2):
        while not all(short.heard for short in behind):
            await asyncio.sleep(0.01)
    assert [short.heard for short in behind] == [["returned"]] * 3
    assert not slow.heard, "it runs still"
    async with asyncio.timeout(PATIENCE):
        while not slow.heard:
            await asyncio.sleep(0.01)
    assert slow.body == b"slow" and not marker.exists()
    assert (await _asked(Short(link), "GET", "/hello")).whole == b"hello GET"


async def _asked(short: Short, method: str, target: str, body: bytes = b"") -> Short:
    short.ask(method, target, body)
    async with asyncio.timeout(PATIENCE):
        while not (short.reply.done or short.heard == ["answered"]):
            await asyncio.sleep(0.005)
    return short


async def _never_ready(bed: Bed, folder: Path) -> None:
    started, _ = await bed.start(folder)

    async def never(factory: ProtocolFactory) -> asyncio.Transport:
        raise InstanceLost("not yet")

    try:
        with pytest.raises(StartFailed) as caught:
            await started.open(never, 0.2)
        assert caught.value.limit == "start_timeout"
        assert started.lost == 0
    finally:
        await started.close()


async def _cannot_be_loaded(bed: Bed, folder: Path) -> None:
    started, connect = await bed.start(folder, files=bed.broken)
    try:
        with pytest.raises(SeptetError) as caught:
            await started.open(connect)
        assert isinstance(caught.value, InitFailed)
        assert caught.value.details["type"]
        assert "runtime" not in str(caught.value.details["trace"]), "the trace shows more than the user's own code"
        assert started.lost == 0
    finally:
        await started.close()


CLAUSES: dict[str, Callable[[Bed, Path], Awaitable[None]]] = {
    "contract.1": clause_1,
    "contract.2": clause_2,
    "contract.3": clause_3,
    "contract.4": clause_4,
    "contract.5": clause_5,
    "contract.6": clause_6,
    "contract.7": clause_7,
    "contract.8": clause_8,
    "contract.9": clause_9,
}
