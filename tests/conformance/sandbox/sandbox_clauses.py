"""The clauses of the sandbox port (`septet/ports/sandbox.py`), each as functions that take a test bed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from clauses import Suite, raises
from sandbox_beds import NETWORK, Bed

from septet.model.errors import Conflict, InstanceLost, InvalidInput, NotFound
from septet.model.instance import InstanceExit

PATIENCE = 10.0


suite: Suite[Bed] = Suite()
clause = suite.clause


class Ears(asyncio.Protocol):
    """Our side of a stream: collects what comes."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.closed = False

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True


async def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"within {seconds:g} s it was not so that {what}"
        await asyncio.sleep(0.005)


def states(bed: Bed, instance: str) -> list[str]:
    return [event.instance.state for event in bed.events if event.instance.id == instance]


def ending(bed: Bed, instance: str) -> InstanceExit:
    (found,) = [event.instance.exit for event in bed.events if event.instance.id == instance and event.instance.exit]
    return found


async def started(bed: Bed, instance: str, words: str = "echo", protocol: str = "frames") -> None:
    await bed.driver.start(bed.request(instance, words, protocol=protocol))
    await until(lambda: "running" in states(bed, instance), f"{instance} runs")


async def stopped(bed: Bed, instance: str) -> None:
    await until(lambda: "stopped" in states(bed, instance), f"{instance} stopped")


async def connected(bed: Bed, instance: str) -> tuple[asyncio.Transport, Ears]:
    end = time.monotonic() + PATIENCE
    ears = Ears()
    while True:
        try:
            return await bed.driver.connect(instance, lambda: ears), ears
        except InstanceLost:
            assert time.monotonic() < end, "it never accepted"
            await asyncio.sleep(0.01)


async def echoes(transport: asyncio.Transport, ears: Ears, data: bytes) -> None:
    transport.write(data)
    await until(lambda: bytes(ears.heard) == data, f"{data!r} came back")


@clause("sandbox.1")
async def death_of_the_holder_leaves_no_orphan(bed: Bed) -> None:
    assert await bed.crash() == []


@clause("sandbox.1")
async def close_ends_or_keeps(bed: Bed) -> None:
    await started(bed, "one", "echo fork")
    before = bed.inventory()
    await bed.reopen()
    listed = [info.id for info in await bed.driver.instances()]
    if bed.driver.capabilities().adopt:
        assert listed == ["one"]
        await bed.driver.stop("one", 0)
    else:
        assert listed == []
        assert states(bed, "one").count("stopped") == 1
        assert bed.inventory() != before


@clause("sandbox.2")
async def nothing_remains(bed: Bed) -> None:
    await started(bed, "warm-up")
    await bed.driver.stop("warm-up", 0)
    before = bed.inventory()
    for number, words in enumerate(("echo", "echo fork", "deaf", "exit=3", "print exit=0")):
        name = f"n{number}"
        await bed.driver.start(bed.request(name, words, protocol="http1" if number == 1 else "frames"))
        if not words.endswith(("exit=3", "exit=0")):
            await until(lambda name=name: "running" in states(bed, name), "it runs")  # type: ignore[misc]
            transport, _ = await connected(bed, name)
            await bed.driver.stop(name, 0.05)
            transport.abort()
        await stopped(bed, name)
    end = time.monotonic() + 5
    while (left := _more(bed.inventory(), before)) and time.monotonic() < end:
        await asyncio.sleep(0.02)
    assert left == {}


def _more(now: dict[str, object], before: dict[str, object]) -> dict[str, object]:
    """What is there now and was not before. What has gone since is no instance's trace: the collector of garbage
    closes what earlier tests of this process dropped when it likes."""
    found: dict[str, object] = {}
    for name, there in now.items():
        was = before[name]
        if isinstance(there, list) and isinstance(was, list):
            if extra := Counter(there) - Counter(was):
                found[name] = sorted(extra.elements())
        elif isinstance(there, int) and isinstance(was, int):
            if there > was:
                found[name] = f"{there}, not {was}"
        else:
            raise TypeError(f"{name} can be neither counted nor listed")
    return found


@clause("sandbox.3")
async def exactly_one_stopped_event(bed: Bed) -> None:
    await started(bed, "asked")
    await bed.driver.start(bed.request("early"))
    await bed.driver.start(bed.request("crashing", "exit=3"))
    await asyncio.gather(
        bed.driver.stop("asked", 5),
        bed.driver.stop("asked", 0),
        bed.driver.stop("early", 0),
        bed.driver.stop("early", 0),
    )
    await stopped(bed, "crashing")
    await asyncio.sleep(0.1)
    for name in ("asked", "early", "crashing"):
        assert states(bed, name).count("stopped") == 1, name
        assert states(bed, name)[-1] == "stopped"
    assert ending(bed, "crashing").code == 3
    assert not ending(bed, "crashing").asked
    assert ending(bed, "asked").asked
    assert ending(bed, "crashing").message


@clause("sandbox.3")
async def states_in_order(bed: Bed) -> None:
    info = await bed.driver.start(bed.request("one", labels={"a": "b"}))
    assert (info.state, info.id, info.labels, info.driver) == ("starting", "one", {"a": "b"}, bed.driver.name)
    await until(lambda: bool(states(bed, "one")), "it runs")
    await bed.driver.stop("one", 0)
    assert states(bed, "one") == ["running", "stopped"]
    assert bed.events[-1].instance.labels == {"a": "b"}


@clause("sandbox.4")
async def refuses_what_it_cannot_serve(bed: Bed) -> None:
    await started(bed, "one")
    await raises(Conflict, bed.driver.start(bed.request("one")))
    error = await raises(InvalidInput, bed.driver.start(bed.request("r", runtime="cobol")))
    assert "cobol" in error.message
    error = await raises(InvalidInput, bed.driver.start(bed.request("i", runtime="missing")))
    assert "missing" in error.message
    error = await raises(InvalidInput, bed.driver.start(bed.request("t", tree="tree:gone")))
    assert "tree:gone" in error.message
    await raises(InvalidInput, bed.driver.start(bed.request("e", network=NETWORK)))
    assert [info.id for info in await bed.driver.instances()] == ["one"]
    await asyncio.sleep(0.1)
    assert {event.instance.id for event in bed.events} == {"one"}


@clause("sandbox.5")
async def frames_have_one_stream(bed: Bed) -> None:
    await started(bed, "one")
    transport, ears = await connected(bed, "one")
    await echoes(transport, ears, b"hello")
    await raises(Conflict, bed.driver.connect("one", Ears))
    transport.close()


@clause("sandbox.5")
async def http_has_many(bed: Bed) -> None:
    await started(bed, "one", protocol="http1")
    opened = [await connected(bed, "one") for _ in range(3)]
    for number, (transport, ears) in enumerate(opened):
        await echoes(transport, ears, b"number %d" % number)
    for transport, _ in opened:
        transport.close()


@clause("sandbox.6")
async def connect_says_why_not(bed: Bed) -> None:
    await raises(NotFound, bed.driver.connect("nobody", Ears))
    await bed.driver.start(bed.request("late", "late", protocol="http1"))
    await raises(InstanceLost, bed.driver.connect("late", Ears))
    await until(lambda: "running" in states(bed, "late"), "it runs")
    await raises(InstanceLost, bed.driver.connect("late", Ears))
    transport, ears = await connected(bed, "late")
    await echoes(transport, ears, b"at last")
    await bed.driver.stop("late", 0)
    await raises(NotFound, bed.driver.connect("late", Ears))
    await until(lambda: ears.closed, "the stream ended with its instance")


@clause("sandbox.7")
async def stop_is_idempotent(bed: Bed) -> None:
    await bed.driver.stop("nobody", 1)
    await started(bed, "one")
    await bed.driver.stop("one", 0)
    await bed.driver.stop("one", 0)
    assert states(bed, "one")[-1] == "stopped"
    assert await bed.driver.instances() == []


@clause("sandbox.7")
async def grace_is_given_and_no_more(bed: Bed) -> None:
    await started(bed, "gentle")
    await started(bed, "deaf", "deaf")
    transport, ears = await connected(bed, "deaf")
    await echoes(transport, ears, b"its handlers are set")
    begin = time.monotonic()
    await bed.driver.stop("gentle", 30)
    assert time.monotonic() - begin < 3
    assert ending(bed, "gentle").signal == 15
    begin = time.monotonic()
    await bed.driver.stop("deaf", 0.3)
    assert time.monotonic() - begin < 3
    assert ending(bed, "deaf").signal == 9
    await started(bed, "at-once", "deaf")
    begin = time.monotonic()
    await bed.driver.stop("at-once", 0)
    assert time.monotonic() - begin < 1


@clause("sandbox.8")
async def stats_of_the_living_only(bed: Bed) -> None:
    await raises(NotFound, bed.driver.stats("nobody"))
    await started(bed, "one")
    stats = await bed.driver.stats("one")
    assert 0 < stats.memory <= stats.memory_peak
    assert stats.pids >= 1
    await bed.driver.stop("one", 0)
    await raises(NotFound, bed.driver.stats("one"))


async def frozen(bed: Bed, instance: str, words: str = "echo") -> tuple[asyncio.Transport, Ears] | None:
    """A frozen instance with its stream open, or None where the driver says that it freezes none."""
    await started(bed, instance, words)
    transport, ears = await connected(bed, instance)
    await echoes(transport, ears, b"before")
    if not bed.driver.capabilities().freeze:
        await raises(InvalidInput, bed.driver.freeze(instance))
        await raises(InvalidInput, bed.driver.thaw(instance))
        transport.abort()
        return None
    await bed.driver.freeze(instance)
    assert [info.state for info in await bed.driver.instances() if info.id == instance] == ["frozen"]
    return transport, ears


@clause("sandbox.9")
async def frozen_uses_no_processor_and_goes_on_after(bed: Bed) -> None:
    if (stream := await frozen(bed, "cold", "echo spin")) is None:
        return
    transport, ears = stream
    used = (await bed.driver.stats("cold")).cpu_seconds
    transport.write(b" waits")
    await asyncio.sleep(0.3)
    assert (await bed.driver.stats("cold")).cpu_seconds - used <= 0.02
    assert bytes(ears.heard) == b"before"
    await bed.driver.thaw("cold")
    await until(lambda: bytes(ears.heard) == b"before waits", "what was written while frozen came back")
    await asyncio.sleep(0.3)
    assert (await bed.driver.stats("cold")).cpu_seconds - used > 0.05
    assert states(bed, "cold") == ["running"]
    transport.abort()


@clause("sandbox.10")
async def freeze_says_why_not(bed: Bed) -> None:
    await raises(NotFound, bed.driver.freeze("nobody"))
    if (stream := await frozen(bed, "one")) is None:
        return
    await bed.driver.freeze("one")
    stream[0].abort()
    await bed.driver.start(bed.request("early"))
    await raises(Conflict, bed.driver.freeze("early"))
    await bed.driver.stop("early", 0)
    await raises(NotFound, bed.driver.freeze("early"))


@clause("sandbox.11")
async def frozen_can_be_stopped(bed: Bed) -> None:
    await started(bed, "warm-up")
    await bed.driver.stop("warm-up", 0)
    before = bed.inventory()
    for name, words, grace, number in (
        ("kill", "echo spin fork", 0, 9),
        ("ask", "echo", 30, 15),
        ("deaf", "deaf", 0.3, 9),
    ):
        if (stream := await frozen(bed, name, words)) is None:
            return
        begin = time.monotonic()
        await bed.driver.stop(name, grace)
        assert time.monotonic() - begin < 3
        assert ending(bed, name).signal == number
        stream[0].abort()
    end = time.monotonic() + 2
    while (after := bed.inventory()) != before and time.monotonic() < end:
        await asyncio.sleep(0.02)
    assert {name: (was, after[name]) for name, was in before.items() if was != after[name]} == {}


@clause("sandbox.11")
async def frozen_accepts_and_is_measured(bed: Bed) -> None:
    await started(bed, "web", protocol="http1")
    transport, ears = await connected(bed, "web")
    await echoes(transport, ears, b"warm")
    if not bed.driver.capabilities().freeze:
        return
    await bed.driver.freeze("web")
    assert (await bed.driver.stats("web")).memory > 0
    second, heard = await connected(bed, "web")
    second.write(b"waits")
    await bed.driver.thaw("web")
    await until(lambda: bytes(heard.heard) == b"waits", "a connection made while frozen is served")
    transport.abort()
    second.abort()


@clause("sandbox.12")
async def thaw_of_what_is_not_frozen(bed: Bed) -> None:
    await raises(NotFound, bed.driver.thaw("nobody"))
    if (stream := await frozen(bed, "one")) is None:
        return
    transport, ears = stream
    for round_ in range(3):
        await bed.driver.thaw("one")
        await bed.driver.thaw("one")
        ears.heard.clear()
        await echoes(transport, ears, b"round %d" % round_)
        await bed.driver.freeze("one")
    await bed.driver.stop("one", 0)
    await raises(NotFound, bed.driver.thaw("one"))
    transport.abort()
