"""Control's pool and links where instances are in workers: what it knows when, and what it sends."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from septet.app.workers.messages import (
    Add,
    Close,
    Emptied,
    FailWaiting,
    Message,
    NoStream,
    Open,
    Quiesce,
    Remove,
    RevisionLoad,
    SlotLoad,
)
from septet.app.workers.remote import Links, RemoteContract, RemoteLink, RemotePool
from septet.model.errors import InitFailed, InstanceLost, NotFound, StartFailed
from septet.model.function import FunctionTemplate
from septet.model.instance import ColdReason, InstanceInfo
from septet.ports.signals import Demand, RevisionKey

KEY = ("default", "hello-00001")


def info(name: str = "i-1") -> InstanceInfo:
    return InstanceInfo(
        id=name,
        namespace=KEY[0],
        function="hello",
        revision=KEY[1],
        driver="process",
        state="running",
        protocol="frames",
        started_at=0.0,
    )


class Crew:
    """Worker 0 owns all; `alive` is whether it lives, `settling` holds `settle` back while it is set."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.alive = True
        self.settled = asyncio.Event()
        self.settled.set()

    def owner(self, key: RevisionKey) -> int:
        return 0

    def send(self, slot: int, message: Message, *fds: int) -> bool:
        self.sent.append(message)
        return self.alive

    async def settle(self) -> None:
        await self.settled.wait()

    async def available(self) -> None: ...

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]


class Wishes:
    """A demand that remembers."""

    def __init__(self) -> None:
        self.keys: list[RevisionKey] = []
        self.reason: ColdReason = "crashed"

    def wanted(self, key: RevisionKey) -> None:
        self.keys.append(key)

    def cold_reason(self, key: RevisionKey) -> ColdReason:
        return self.reason


def load(waiting: int = 0, running: int = 0, area: float = 0.0, slots: tuple[SlotLoad, ...] = ()) -> RevisionLoad:
    return RevisionLoad(KEY, area, 0.0, waiting, running, slots)


def added(crew: Crew) -> tuple[RemotePool, list[str]]:
    pool, lost = RemotePool(crew), cast("list[str]", [])
    link = RemoteLink(info(), cast("Any", None), 0, lambda: lost.append("i-1"))
    pool.add(KEY, cast("Any", link), 1)
    return pool, lost


async def beats() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_an_instance_leaves_after_all_workers_know_and_its_own_says_so() -> None:
    crew = Crew()
    pool, _ = added(crew)
    assert crew.of(Add) == [Add(KEY, "i-1", 1)]
    crew.settled.clear()
    assert pool.drain(KEY, "i-1") is False
    await beats()
    assert crew.of(Quiesce) == []
    assert pool.running(KEY, "i-1") == 1
    crew.settled.set()
    await beats()
    assert crew.of(Quiesce) == [Quiesce(KEY, "i-1")]
    # A report that was on its way says nothing of the new state.
    pool.told(0, load(slots=(SlotLoad("i-1", 0, 1.0, False),)))
    assert pool.running(KEY, "i-1") == 1
    pool.told(0, load(running=2, slots=(SlotLoad("i-1", 2, 1.0, True),)))
    assert pool.running(KEY, "i-1") == 2
    assert pool.idle_since(KEY, "i-1") is None
    pool.told(0, load(slots=(SlotLoad("i-1", 0, 7.0, True),)))
    assert pool.running(KEY, "i-1") == 0
    assert pool.idle_since(KEY, "i-1") == 7.0
    assert pool.drain(KEY, "i-1") is True
    assert len(crew.of(Quiesce)) == 1


async def test_load_is_what_workers_counted_over_the_time_between_two_looks() -> None:
    loop = asyncio.get_running_loop()
    crew = Crew()
    pool = RemotePool(crew)
    pool.sample(KEY)
    began = loop.time()
    await asyncio.sleep(0.05)
    pool.told(0, load(area=0.4))
    seen = pool.sample(KEY)
    assert seen.average == pytest.approx(0.4 / (loop.time() - began), rel=0.3)
    assert (seen.waiting, seen.running) == (0, 0)


async def test_calls_that_run_on_between_reports_count_and_count_once() -> None:
    pool = RemotePool(Crew())
    pool.told(0, load(running=3))
    pool.sample(KEY)
    await asyncio.sleep(0.05)
    assert pool.sample(KEY).average == pytest.approx(3.0, rel=0.2)
    # The report that follows includes what was assumed.
    pool.told(0, load(area=0.15))
    await asyncio.sleep(0.05)
    assert pool.sample(KEY).average < 1.5


async def test_waiting_calls_are_wishes_and_die_with_their_worker() -> None:
    pool, wishes = RemotePool(Crew()), Wishes()
    pool.attach(cast("Demand", wishes))
    pool.told(0, load(running=1))
    assert wishes.keys == []
    pool.told(0, load(waiting=4))
    assert wishes.keys == [KEY]
    pool.told(1, load(waiting=9))
    assert pool.sample(KEY).waiting == 4, "worker 1 does not own it"
    pool.died(0)
    assert pool.sample(KEY).waiting == 0


async def test_failing_those_who_wait_reaches_the_owner() -> None:
    crew = Crew()
    pool = RemotePool(crew)
    pool.told(0, load(waiting=4))
    assert pool.fail_waiting(KEY, NotFound("gone")) == 4
    (sent,) = crew.of(FailWaiting)
    assert (sent.key, sent.failure.name, sent.failure.message) == (KEY, "NotFound", "gone")


async def test_an_instance_that_is_removed_leaves_the_reason_behind() -> None:
    crew, wishes = Crew(), Wishes()
    pool, _ = added(crew)
    pool.attach(cast("Demand", wishes))
    pool.remove(KEY, "i-1")
    wishes.reason = "evicted"
    await beats()
    assert crew.of(Remove) == [Remove(KEY, "i-1")]
    assert crew.of(Emptied) == [Emptied(KEY, "evicted")]


async def test_a_link_that_was_lost_before_it_joined_is_told_as_lost() -> None:
    pool, lost = RemotePool(Crew()), cast("list[str]", [])
    link = RemoteLink(info(), cast("Any", None), 0, lambda: lost.append("i-1"))
    link.lost = True
    pool.add(KEY, cast("Any", link), 1)
    await beats()
    assert lost == ["i-1"]
    assert pool.running(KEY, "i-1") == 0


def opening(links: Links, lost: list[str]) -> asyncio.Task[Any]:
    async def no_stream(factory: Any) -> asyncio.Transport:
        raise InstanceLost("not yet")

    async def work() -> Any:
        return await RemoteContract("frames", links).open(
            no_stream,
            info(),
            FunctionTemplate(runtime="python"),
            deadline=asyncio.get_running_loop().time() + 5,
            on_lost=lambda: lost.append("i-1"),
            on_log=lambda *_: None,
        )

    return asyncio.create_task(work())


async def test_the_owner_opens_the_link_and_loses_it() -> None:
    crew, changed, lost = Crew(), cast("list[RevisionKey]", []), cast("list[str]", [])
    links = Links(crew, changed.append)
    task = opening(links, lost)
    await beats()
    (sent,) = crew.of(Open)
    assert links.owners() == {KEY: 0}
    links.stream(0, 77, "i-1")
    await beats()
    assert [(each.number, each.failure.name) for each in crew.of(NoStream)] == [(77, "InstanceLost")]
    links.opened(sent.number, None)
    link = await task
    assert link.instance.id == "i-1"
    links.lost("i-1")
    assert (lost, changed, links.owners()) == (["i-1"], [KEY], {})


async def test_what_the_owner_could_not_open_is_an_error_here() -> None:
    crew = Crew()
    links = Links(crew, lambda _: None)
    task = opening(links, [])
    await beats()
    links.opened(crew.of(Open)[0].number, InitFailed("no handler"))
    with pytest.raises(InitFailed, match="no handler"):
        await task
    assert links.owners() == {}


async def test_a_worker_that_dies_ends_what_it_opened_and_what_it_had() -> None:
    crew, lost = Crew(), cast("list[str]", [])
    links = Links(crew, lambda _: None)
    task = opening(links, lost)
    await beats()
    links.died(0)
    with pytest.raises(StartFailed):
        await task
    task = opening(links, lost)
    await beats()
    links.opened(crew.of(Open)[-1].number, None)
    link = await task
    links.died(0)
    assert lost == ["i-1"]
    await link.close(1.0)
    assert crew.of(Close)[-1] == Close("i-1", 0.0), "only the failed opening was closed"


async def test_a_worker_that_is_gone_already_opens_nothing() -> None:
    crew = Crew()
    crew.alive = False
    with pytest.raises(StartFailed):
        await opening(Links(crew, lambda _: None), [])


async def test_closing_waits_for_the_worker() -> None:
    crew = Crew()
    links = Links(crew, lambda _: None)
    task = opening(links, [])
    await beats()
    links.opened(crew.of(Open)[0].number, None)
    link = await task
    closing = asyncio.create_task(link.close(3.0))
    await beats()
    assert crew.of(Close) == [Close("i-1", 3.0)]
    assert not closing.done()
    links.closed("i-1")
    await closing
    assert links.owners() == {}


async def test_an_instance_that_was_removed_is_empty_when_its_worker_says_so() -> None:
    pool, _ = added(Crew())
    await pool.vacated("i-1")
    pool.remove(KEY, "i-1")
    waiting = asyncio.create_task(pool.vacated("i-1"))
    await beats()
    assert not waiting.done(), "a call may have come to it in the meantime"
    pool.empty("i-1")
    await waiting
    pool, _ = added(Crew())
    pool.remove(KEY, "i-1")
    pool.died(0)
    await pool.vacated("i-1")
