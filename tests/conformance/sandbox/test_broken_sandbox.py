"""The suite can fail: for every clause function there is a broken driver that it catches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import sandbox_clauses
from clauses import Clause
from sandbox_beds import RemoteBed
from sandbox_clauses import suite

from septet.drivers.sandbox.fake_remote import FakeRemote
from septet.model.errors import Conflict, InstanceLost, InvalidInput, NotFound
from septet.model.instance import InstanceEvent, InstanceInfo, InstanceStats
from septet.ports.sandbox import Capabilities, EventHandler, GatewayHandler, LaunchRequest, OutputSink, ProtocolFactory


class ForgetsOnRestart(FakeRemote):
    async def instances(self) -> list[InstanceInfo]:
        return [info for info in await super().instances() if info.id in self._started]

    async def open(self, on_event: EventHandler, output: OutputSink, on_gateway: GatewayHandler | None) -> None:
        self._started: set[str] = set()
        await super().open(on_event, output, on_gateway)

    async def start(self, request: LaunchRequest) -> InstanceInfo:
        self._started.add(request.id)
        return await super().start(request)


class LeaksDescriptors(FakeRemote):
    async def stop(self, instance: str, grace: float) -> None:
        self.__dict__.setdefault("leaked", []).append(Path("/dev/null").open())  # noqa: SIM115
        await super().stop(instance, grace)


class TellsTheEndTwice(FakeRemote):
    async def open(self, on_event: EventHandler, output: OutputSink, on_gateway: GatewayHandler | None) -> None:
        def twice(event: InstanceEvent) -> None:
            on_event(event)
            if event.instance.state == "stopped":
                on_event(event)

        await super().open(twice, output, on_gateway)


class SkipsRunning(FakeRemote):
    async def open(self, on_event: EventHandler, output: OutputSink, on_gateway: GatewayHandler | None) -> None:
        def rename(event: InstanceEvent) -> None:
            state = "ready" if event.instance.state == "running" else event.instance.state
            on_event(InstanceEvent(instance=msgspec.structs.replace(event.instance, state=state), at=event.at))

        await super().open(rename, output, on_gateway)


class StartsAnything(FakeRemote):
    async def start(self, request: LaunchRequest) -> InstanceInfo:
        try:
            return await super().start(request)
        except (Conflict, InvalidInput):
            return (await self.instances())[0]


class SharesTheStream(FakeRemote):
    async def connect(self, instance: str, factory: ProtocolFactory) -> asyncio.Transport:
        self._links.pop(instance, None)
        return await super().connect(instance, factory)


class OneConnectionOnly(FakeRemote):
    async def connect(self, instance: str, factory: ProtocolFactory) -> asyncio.Transport:
        if self.__dict__.setdefault("used", False):
            raise Conflict("there was a connection already")
        transport = await super().connect(instance, factory)
        self.__dict__["used"] = True
        return transport


class ConfusesItsErrors(FakeRemote):
    async def connect(self, instance: str, factory: ProtocolFactory) -> asyncio.Transport:
        try:
            return await super().connect(instance, factory)
        except InstanceLost as error:
            raise NotFound("there is no such instance") from error


class ComplainsOfTheGone(FakeRemote):
    async def stop(self, instance: str, grace: float) -> None:
        self._find(instance)
        await super().stop(instance, grace)


class AlwaysKills(FakeRemote):
    async def stop(self, instance: str, grace: float) -> None:
        await super().stop(instance, 0)


class CountsTheDead(FakeRemote):
    async def stats(self, instance: str) -> InstanceStats:
        return InstanceStats(memory=1, memory_peak=1, pids=1)


class FreezesInNameOnly(FakeRemote):
    """It says "frozen", and the instance answers on."""

    def capabilities(self) -> Capabilities:
        return msgspec.structs.replace(super().capabilities(), freeze=True)

    async def freeze(self, instance: str) -> None:
        if pod := self._cluster.pods.get(instance):
            pod.info = msgspec.structs.replace(pod.info, state="frozen")

    async def thaw(self, instance: str) -> None:
        if pod := self._cluster.pods.get(instance):
            pod.info = msgspec.structs.replace(pod.info, state="running")


class KillsTheFrozen(FreezesInNameOnly):
    async def stop(self, instance: str, grace: float) -> None:
        await super().stop(instance, 0)


class IsDeafWhenFrozen(FreezesInNameOnly):
    async def freeze(self, instance: str) -> None:
        await super().freeze(instance)
        server = self._find(instance).server
        assert server is not None
        server.close()


BROKEN: dict[str, type[FakeRemote]] = {
    "death_of_the_holder_leaves_no_orphan": ForgetsOnRestart,
    "close_ends_or_keeps": ForgetsOnRestart,
    "nothing_remains": LeaksDescriptors,
    "exactly_one_stopped_event": TellsTheEndTwice,
    "states_in_order": SkipsRunning,
    "refuses_what_it_cannot_serve": StartsAnything,
    "frames_have_one_stream": SharesTheStream,
    "http_has_many": OneConnectionOnly,
    "connect_says_why_not": ConfusesItsErrors,
    "stop_is_idempotent": ComplainsOfTheGone,
    "grace_is_given_and_no_more": AlwaysKills,
    "stats_of_the_living_only": CountsTheDead,
    "frozen_uses_no_processor_and_goes_on_after": FreezesInNameOnly,
    "freeze_says_why_not": FreezesInNameOnly,
    "frozen_can_be_stopped": KillsTheFrozen,
    "frozen_accepts_and_is_measured": IsDeafWhenFrozen,
    "thaw_of_what_is_not_frozen": FreezesInNameOnly,
}


@contextlib.asynccontextmanager
async def broken_bed(folder: Path, kind: type[FakeRemote]) -> AsyncIterator[RemoteBed]:
    class BrokenBed(RemoteBed):
        def make(self) -> FakeRemote:
            return kind(self.cluster)

    bed = BrokenBed(folder)
    await bed.open()
    try:
        yield bed
    finally:
        for pod in list(bed.cluster.pods.values()):
            await bed.cluster.kill(pod)
        for file in bed.driver.__dict__.get("leaked", ()):
            file.close()


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_a_broken_driver_fails(clause: Clause, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A driver that never gets there is found out by the suite's patience; here it need not be long.
    monkeypatch.setattr(sandbox_clauses, "PATIENCE", 1.0)
    monkeypatch.setattr(sandbox_clauses.until, "__defaults__", (1.0,))
    async with broken_bed(tmp_path, BROKEN[clause.check.__name__]) as bed:
        with pytest.raises((AssertionError, Conflict, NotFound)):
            await clause.check(bed)
