"""Every clause of the fleet's view, for control's own and for views that are broken on purpose."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import AsyncIterator, Iterable

import fleet_clauses
import pytest
from clauses import Clause
from fakes import VirtualLoop
from fleet_clauses import Bed, suite

import septet.control.view
import septet.ports.fleetview
from septet.control.view import View
from septet.model.instance import InstanceEvent, InstanceInfo
from septet.model.objects import AnyObject
from septet.ports.fleetview import NodeFacts
from septet.ports.sandbox import Check

BLOCKED = 4 * fleet_clauses.QUICK


def run(clause: Clause, make: type[View]) -> None:
    async def scenario() -> None:
        bed = Bed(make)
        try:
            await bed.open()
            await clause.check(bed)
        finally:
            await bed.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario())


@pytest.fixture(autouse=True)
def small_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader need not miss ten thousand events to be found slow."""
    monkeypatch.setattr(septet.control.view, "BACKLOG", 30)


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
def test_clause(clause: Clause) -> None:
    run(clause, View)


def test_every_clause_of_the_port_has_a_test() -> None:
    written = set(re.findall(r"fleet\.\d+", inspect.getsource(septet.ports.fleetview)))
    assert written == suite.ids()


# -- the suite can fail


class BlocksForInstances(View):
    def instances(self, namespace: str = "", function: str = "") -> list[InstanceInfo]:
        time.sleep(BLOCKED)
        return super().instances(namespace, function)


class BlocksForObstacles(View):
    def obstacle(self, namespace: str, function: str) -> str:
        time.sleep(BLOCKED)
        return super().obstacle(namespace, function)


class BlocksForTheNode(View):
    def node(self) -> NodeFacts:
        time.sleep(BLOCKED)
        return super().node()


class BlocksForEgress(View):
    def egress_missing(self, sandbox: str = "") -> tuple[Check, ...]:
        time.sleep(BLOCKED)
        return super().egress_missing(sandbox)


class AsksTheDefaultSandbox(View):
    def egress_missing(self, sandbox: str = "") -> tuple[Check, ...]:
        return super().egress_missing()


class KnowsAtOnce(View):
    async def known(self, objects: Iterable[AnyObject]) -> None:
        await asyncio.sleep(0)


class LooksAtOneAlone(View):
    async def known(self, objects: Iterable[AnyObject]) -> None:
        await super().known(list(objects)[:1])


class WaitsForEver(View):
    async def known(self, objects: Iterable[AnyObject]) -> None:
        for obj in objects:
            await self._mirror.reach(obj)


class WaitsForWhatIsGone(View):
    async def known(self, objects: Iterable[AnyObject]) -> None:
        while any(self._mirror.get(type(obj), obj.meta.namespace, obj.meta.name) is None for obj in objects):
            await asyncio.sleep(1)


class BlocksBeforeWatching(View):
    async def watch(self) -> AsyncIterator[InstanceEvent]:
        time.sleep(BLOCKED)
        async for event in super().watch():
            yield event


class AssumesTheHost(View):
    async def checks(self) -> list[Check]:
        checking = asyncio.ensure_future(super().checks())
        await asyncio.sleep(0)
        checking.cancel()
        return []


class BeginsEmpty(View):
    async def watch(self) -> AsyncIterator[InstanceEvent]:
        there = len(self._fleet.instances())
        async for event in super().watch():
            if there:
                there -= 1
            else:
                yield event


class SkipsEnds(View):
    async def watch(self) -> AsyncIterator[InstanceEvent]:
        async for event in super().watch():
            if event.instance.state != "stopped":
                yield event


class ListensTooLate(View):
    async def watch(self) -> AsyncIterator[InstanceEvent]:
        for info in self._fleet.instances():
            yield InstanceEvent(instance=info, at=0.0)
        there = len(self._fleet.instances())
        async for event in super().watch():
            if there:
                there -= 1
            else:
                yield event


class ServesTheNewestOnly(View):
    turn = 0

    async def watch(self) -> AsyncIterator[InstanceEvent]:
        self.turn += 1
        mine = self.turn
        async for event in super().watch():
            if mine == self.turn or event.at == self._started_at:
                yield event


class OneEndsAll(View):
    closed = False

    async def watch(self) -> AsyncIterator[InstanceEvent]:
        try:
            async for event in super().watch():
                if self.closed:
                    return
                yield event
        finally:
            self.closed = True


class DropsWhatIsTooMuch(View):
    async def watch(self) -> AsyncIterator[InstanceEvent]:
        events: asyncio.Queue[InstanceEvent] = asyncio.Queue(30)

        def heard(event: InstanceEvent) -> None:
            if events.full():
                events.get_nowait()
            events.put_nowait(event)

        stop = self._fleet.listen(heard)
        try:
            for info in self._fleet.instances():
                yield InstanceEvent(instance=info, at=self._clock.wall())
            while True:
                yield await events.get()
        finally:
            stop()


BROKEN: dict[str, type[View]] = {
    "instances_do_not_block": BlocksForInstances,
    "obstacle_does_not_block": BlocksForObstacles,
    "node_does_not_block": BlocksForTheNode,
    "egress_is_told_from_memory": BlocksForEgress,
    "egress_is_the_named_sandboxs": AsksTheDefaultSandbox,
    "a_reader_waits_for_what_calls_do_not_know_yet": KnowsAtOnce,
    "a_reader_waits_for_all_of_a_list": LooksAtOneAlone,
    "a_reader_does_not_wait_for_what_is_gone": WaitsForWhatIsGone,
    "a_reader_does_not_wait_for_ever": WaitsForEver,
    "beginning_to_watch_does_not_block": BlocksBeforeWatching,
    "checks_leave_the_loop_to_others": AssumesTheHost,
    "a_watch_begins_with_what_there_is": BeginsEmpty,
    "a_watch_tells_every_change_in_order": SkipsEnds,
    "what_happens_while_a_watch_begins_is_told": ListensTooLate,
    "watches_are_independent": ServesTheNewestOnly,
    "a_closed_watch_ends_and_the_others_go_on": OneEndsAll,
    "a_slow_reader_is_never_told_half": DropsWhatIsTooMuch,
}
"""By the name of the check that finds them."""


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
def test_a_broken_view_fails(clause: Clause) -> None:
    with pytest.raises((AssertionError, TimeoutError)):
        run(clause, BROKEN[clause.check.__name__])
