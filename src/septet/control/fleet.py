"""All instances: what each is doing, and carrying out what its life (`life.py`) asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

import msgspec

from septet.control import life
from septet.control.birth import Birth
from septet.control.exits import Exits
from septet.control.freezing import Freezing
from septet.control.launch import LABEL_UID
from septet.control.limits import LimitWatch
from septet.control.mirror import Mirror
from septet.control.settings import ControlSettings
from septet.model.errors import InitFailed, SeptetError, StartFailed, Unavailable
from septet.model.function import Revision
from septet.model.instance import InstanceEvent, InstanceExit, InstanceInfo
from septet.ports.clock import Clock
from septet.ports.contract import Link
from septet.ports.sandbox import Sandbox
from septet.ports.signals import Pool, RevisionKey

log = logging.getLogger("septet.control.fleet")

POLL = 0.05
EXIT_PATIENCE = 0.5
LIVE = frozenset({"waiting", "starting", "opening", "thawing", "ready"})
OUTSIDE = frozenset({"waiting", "gone"})
"""Phases in which the sandbox has nothing of it."""


class Outcome(Protocol):
    """Who decides how many instances there are hears how they fare. Calls must not block."""

    def ready(self, key: RevisionKey, instance: str) -> None: ...

    def failed(self, key: RevisionKey, instance: str, error: SeptetError) -> None:
        """A start failed."""
        ...

    def crashed(self, key: RevisionKey, instance: str) -> None:
        """An instance that was ready ended by itself, or could not be thawed."""
        ...

    def freed(self) -> None:
        """An instance or a build is gone and its memory is free."""
        ...


class Member:
    """One instance in the fleet."""

    def __init__(self, id: str, revision: Revision, info: InstanceInfo) -> None:
        self.id = id
        self.revision = revision
        self.key: RevisionKey = (revision.meta.namespace, revision.meta.name)
        self.info = info
        self.memory = revision.spec.template.limits.memory
        self.phase: life.Phase = "waiting"
        self.link: Link | None = None
        self.exit: InstanceExit | None = None
        self.birth: asyncio.Task[None] | None = None
        self.opening: asyncio.Task[None] | None = None
        self.watch: asyncio.Task[None] | None = None
        self.frozen_since = 0.0

    @property
    def live(self) -> bool:
        return self.phase in LIVE

    @property
    def starting(self) -> bool:
        return self.live and self.phase != "ready"


class Reservation:
    """Memory (MiB) of the node for something that is no instance; `held` once it is really free."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.held = False


class Fleet:
    """Starts, watches, drains and stops instances; tells listeners of every change of state."""

    def __init__(
        self,
        mirror: Mirror,
        birth: Birth,
        sandboxes: Mapping[str, Sandbox],
        pool: Pool,
        clock: Clock,
        settings: ControlSettings,
    ) -> None:
        self._mirror = mirror
        self._birth = birth
        self._sandboxes = sandboxes
        self._pool = pool
        self._clock = clock
        self._settings = settings
        self._members: dict[str, Member] = {}
        self._of: dict[RevisionKey, dict[str, Member]] = {}
        self._reserved: list[Reservation] = []
        self._listeners: list[Callable[[InstanceEvent], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._outcome: Outcome | None = None
        self.others: Callable[[InstanceEvent], None] = lambda event: None  # hears of what is no instance of ours
        self.exits = Exits()
        self.freezing = Freezing(sandboxes, self._handle, self._spawn)
        self.limits = LimitWatch(sandboxes, birth.say, clock, self._spawn, self._info)

    def report_to(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def members(self, key: RevisionKey | None = None) -> list[Member]:
        """All instances that are not gone, of one revision or of all."""
        return list(self._members.values() if key is None else self._of.get(key, {}).values())

    def instances(self, namespace: str | None = None, function: str | None = None) -> list[InstanceInfo]:
        """As the driver and the data plane see them together: state "ready" means that it takes calls."""
        return [
            member.info
            for member in self._members.values()
            if namespace in (None, member.info.namespace) and function in (None, member.info.function)
        ]

    def memory(self) -> int:
        """MiB that all instances and builds together may use: those that wait for room have none yet."""
        instances = sum(member.memory for member in self._members.values() if member.phase not in OUTSIDE)
        return instances + sum(wanted.memory for wanted in self._reserved if wanted.held)

    def reserved(self) -> list[Reservation]:
        """All reservations, those that are not yet held too."""
        return list(self._reserved)

    def listen(self, listener: Callable[[InstanceEvent], None]) -> Callable[[], None]:
        """Calls `listener` for each change of an instance's state; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def _info(self, instance: str) -> InstanceInfo | None:
        member = self._members.get(instance)
        return member.info if member is not None else None

    # -- what the scaler asks for

    def start(self, revision: Revision) -> str:
        """Begins an instance and returns its id; it waits until the node has the memory for it."""
        id = f"i-{secrets.token_hex(8)}"
        info = InstanceInfo(
            id=id,
            namespace=revision.meta.namespace,
            function=revision.spec.function,
            revision=revision.meta.name,
            driver=self._birth.driver(revision),
            state="starting",
            protocol=self._birth.runtime(revision).protocol,
            started_at=self._clock.wall(),
            memory=revision.spec.template.limits.memory,
            labels=revision.meta.labels,
        )
        member = self._enter(Member(id, revision, info))
        self._tell(member)
        self._admit()
        return id

    def retire(self, instance: str) -> None:
        """It is no longer wanted: running calls end first. Of an unknown instance, nothing happens."""
        self._handle(instance, life.Retire())

    def reserve(self, wanted: Reservation) -> None:
        """Counts it from now on; `held` is set as soon as what is being stopped has left the room."""
        self._reserved.append(wanted)
        self._admit()

    def release(self, reservation: Reservation) -> None:
        """Its memory is free for others. Of an unknown reservation, nothing happens."""
        if reservation in self._reserved:
            self._reserved.remove(reservation)
            self._admit()
            if self._outcome is not None:
                self._outcome.freed()

    def freeze(self, instance: str) -> bool:
        """It is kept although nothing calls it, and runs no more; False when its driver cannot do that, or a call is
        in it."""
        member = self._members.get(instance)
        if member is None or member.phase != "ready" or self._pool.running(member.key, instance):
            return False
        if not self.freezing.able(member.info.driver):
            return False
        self._handle(instance, life.Freeze())
        return True

    def thaw(self, instance: str) -> None:
        """A frozen one shall take calls again."""
        self._handle(instance, life.Thaw())

    # -- what the world reports

    def on_event(self, event: InstanceEvent) -> None:
        """The handler for `Sandbox.open`; instances that are not ours (build tasks) are passed over."""
        id = event.instance.id
        if event.instance.state == "stopped" and event.instance.exit is not None:
            self.exits.note(id, event.instance.exit)
            self.limits.ended(event.instance, event.instance.exit)
        if id not in self._members:
            self.others(event)
            return
        if event.instance.state in ("running", "ready"):
            self._handle(id, life.Running())
        elif event.instance.state == "stopped":
            self._stopped(self._members[id], event.instance.exit or InstanceExit(message="it vanished"))

    def lost(self, instance: str) -> None:
        """The link broke: no call may find it from now on."""
        if member := self._members.get(instance):
            self._pool.remove(member.key, instance)
        self._handle(instance, life.Lost())

    async def adopt(self) -> None:
        """Takes over what still runs from an earlier life; ends what no revision wants. Raises Unavailable."""
        for sandbox in self._sandboxes.values():
            for info in await sandbox.instances():
                if info.id in self._members:
                    continue
                revision = self._mirror.get(Revision, info.namespace, info.revision)
                if (
                    revision is None
                    or revision.meta.uid != info.labels.get(LABEL_UID, "")
                    or revision.status.phase not in ("starting", "ready")
                ):
                    await sandbox.stop(info.id, 0)
                    continue
                member = self._enter(Member(info.id, revision, info))
                member.phase = "starting"
                if info.state == "frozen":
                    await sandbox.thaw(info.id)
                if info.state != "starting":
                    self._handle(info.id, life.Running())
                else:
                    member.watch = self._spawn(self._watch_start(member))

    async def close(self) -> None:
        """Closes all links; stops the instances of drivers that cannot hand them to a later life."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        members = list(self._members.values())
        await asyncio.gather(*(self._end(member) for member in members), return_exceptions=True)
        self._members.clear()
        self._of.clear()

    # -- one instance's life

    def _enter(self, member: Member) -> Member:
        self._members[member.id] = member
        self._of.setdefault(member.key, {})[member.id] = member
        return member

    def _handle(self, instance: str, event: life.Event) -> None:
        member = self._members.get(instance)
        if member is None:
            return
        before = member.phase
        step = life.step(before, event)
        if step.phase == before:
            return
        member.phase = step.phase
        if before == "starting" and member.watch is not None and member.watch is not asyncio.current_task():
            member.watch.cancel()
        ended = event.exit if isinstance(event, life.Stopped) else None
        member.info = msgspec.structs.replace(member.info, state=life.SHOWN[step.phase], exit=ended)
        for instruction in step.do:
            self._do(member, instruction)
        self._tell(member)
        self._report(member, before, step)

    def _do(self, member: Member, instruction: life.Do) -> None:
        if instruction == "launch":
            member.birth = self._spawn(self._launch(member))
        elif instruction == "open":
            member.opening = self._spawn(self._open(member))
        elif instruction == "join" and member.link is not None:
            self._pool.add(member.key, member.link, self._birth.concurrency(member.revision))
        elif instruction == "freeze":
            # Whoever calls from now on waits for it to be thawed.
            self._pool.remove(member.key, member.id)
            member.frozen_since = self._clock.now()
            self.freezing.freeze(member.id, member.info.driver)
        elif instruction == "thaw":
            self.freezing.thaw(member.id, member.info.driver)
        elif instruction == "drain":
            self._spawn(self._drain(member))
        elif instruction == "bury":
            self._spawn(self._bury(member))
        elif instruction in ("stop", "kill"):
            self._spawn(self._stop(member, self._settings.stop_grace if instruction == "stop" else 0.0))
        elif instruction == "forget":
            self._forget(member)

    def _report(self, member: Member, before: life.Phase, step: life.Step) -> None:
        if self._outcome is None:
            return
        if step.error is not None:
            self._outcome.failed(member.key, member.id, step.error)
        elif step.phase == "ready":
            self._outcome.ready(member.key, member.id)
        elif before in ("ready", "thawing") and step.phase in ("gone", "stopping"):
            self._outcome.crashed(member.key, member.id)
        if step.phase == "gone":
            self._outcome.freed()

    def _admit(self) -> None:
        """Lets those begin that wait for memory which is free by now: what is being stopped still counts."""
        budget = self._settings.memory
        used = self.memory()
        for wanted in self._reserved:
            if not wanted.held and (not budget or used + wanted.memory <= budget):
                used += wanted.memory
                wanted.held = True
        for member in list(self._members.values()):
            if member.phase == "waiting" and (not budget or used + member.memory <= budget):
                used += member.memory
                self._handle(member.id, life.Room())

    async def _launch(self, member: Member) -> None:
        try:
            info = await self._birth.launch(member.id, member.revision)
        except Exception as error:
            self._handle(member.id, life.Failed(_known(error)))
            return
        member.info = msgspec.structs.replace(info, state=member.info.state, exit=member.info.exit)
        if member.phase == "starting":
            member.watch = self._spawn(self._watch_start(member))

    async def _watch_start(self, member: Member) -> None:
        """A process that does not even exist after the start timeout never will."""
        patience = member.revision.spec.template.limits.start_timeout
        await self._clock.sleep(patience)
        if member.phase == "starting":
            self._handle(
                member.id,
                life.Failed(
                    StartFailed(
                        f"the sandbox did not start the process within {patience:g} s",
                        hint="raise limits.start_timeout, or look at the load of the node",
                        limit=f"start_timeout {patience:g} s",
                    )
                ),
            )

    async def _open(self, member: Member) -> None:
        def lost() -> None:
            self.lost(member.id)

        try:
            link = await self._birth.open(member.info, member.revision, lost)
        except Exception as error:
            self._handle(member.id, life.Failed(await self._why(member, _known(error))))
            return
        if member.phase != "opening":
            await link.close(0)
            return
        member.link = link
        self._handle(member.id, life.Opened())

    async def _why(self, member: Member, error: SeptetError) -> SeptetError:
        """A stream that just ended says little: the exit, which may come a little later, says more."""
        if isinstance(error, InitFailed) or error.fault == "platform":
            return error
        deadline = self._clock.now() + EXIT_PATIENCE
        while member.exit is None and member.phase == "opening" and self._clock.now() < deadline:
            await self._clock.sleep(POLL)
        if member.exit is None:
            return error
        told = life.ended(member.exit)
        told.details.update(error.details)
        return told

    def _stopped(self, member: Member, exit: InstanceExit) -> None:
        member.exit = exit
        if member.phase in ("starting", "opening"):
            self._spawn(self._settle(member, exit))
        else:
            self._handle(member.id, life.Stopped(exit))

    async def _settle(self, member: Member, exit: InstanceExit) -> None:
        """It ended before it was ready: an opener knows why, and gets the time to say it; else its output tells."""
        if member.phase == "opening" and member.opening is not None:
            await asyncio.wait([member.opening], timeout=2 * EXIT_PATIENCE)
        output = await self._birth.output(member.info) if member.phase in ("starting", "opening") else ""
        self._handle(member.id, life.Stopped(exit, output))

    async def _drain(self, member: Member) -> None:
        """Waits until nothing runs in it, as long as its longest call may take."""
        deadline = self._clock.now() + member.revision.spec.template.limits.timeout
        idle = self._pool.drain(member.key, member.id)
        while not idle and self._clock.now() < deadline and member.phase == "draining":
            await self._clock.sleep(POLL)
            idle = self._pool.running(member.key, member.id) == 0
        self._handle(member.id, life.Idle())

    async def _bury(self, member: Member) -> None:
        """Its link broke, so it is probably dead: the sandbox gets the time to say why before it is asked to kill."""
        self._pool.remove(member.key, member.id)
        deadline = self._clock.now() + EXIT_PATIENCE
        while member.phase != "gone" and self._clock.now() < deadline:
            await self._clock.sleep(POLL)
        if member.phase != "gone":
            await self._stop(member, 0.0)

    async def _stop(self, member: Member, grace: float) -> None:
        """Asks the sandbox until it does it; a launch that is under way is waited for, so that none escapes."""
        if member.birth is not None and member.birth is not asyncio.current_task():
            await asyncio.wait([member.birth])
        await self.freezing.end(member.id)
        self._pool.remove(member.key, member.id)
        if member.link is not None:
            await member.link.close(grace)
        pause = POLL
        while member.phase != "gone":
            try:
                await self._sandboxes[member.info.driver].stop(member.id, grace)
                break
            except (Unavailable, KeyError) as error:
                if isinstance(error, KeyError):
                    break
                log.warning("instance %s cannot be stopped: %s", member.id, error)
                await self._clock.sleep(pause)
                pause = min(pause * 2, 5.0)
        self._handle(member.id, life.Stopped(InstanceExit(asked=True)))

    def _forget(self, member: Member) -> None:
        self._pool.remove(member.key, member.id)
        self._members.pop(member.id, None)
        self.limits.forget(member.id)
        own = self._of.get(member.key, {})
        own.pop(member.id, None)
        if not own:
            self._of.pop(member.key, None)
        if member.revision.spec.template.platform:
            self._spawn(self._birth.withdraw(member.id, member.revision))
        # It, its link and its tasks know each other: let go by hand, they need not be searched for.
        link, member.link = member.link, None
        member.birth = member.opening = member.watch = None
        if link is not None:
            self._spawn(link.close(0))
        self._admit()

    async def _end(self, member: Member) -> None:
        self._pool.drain(member.key, member.id)
        if member.link is not None:
            await member.link.close(self._settings.stop_grace)
        self._pool.remove(member.key, member.id)
        sandbox = self._sandboxes.get(member.info.driver)
        if sandbox is not None and not sandbox.capabilities().adopt and member.phase not in OUTSIDE:
            await sandbox.stop(member.id, self._settings.stop_grace)

    def _tell(self, member: Member) -> None:
        event = InstanceEvent(instance=member.info, at=self._clock.wall())
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener to instances failed and hears no more")
                self._listeners.remove(listener)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # One that is cancelled before its first step has not been run at all.
        task.add_done_callback(lambda _: work.close())
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Whatever a task of one instance runs into, it must not take the others with it."""
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await work
            except Exception:
                log.exception("an instance's task failed")


def _known(error: Exception) -> SeptetError:
    """What a driver raised beyond its port's word is the platform's own failure, and is logged as such."""
    if isinstance(error, SeptetError):
        return error
    log.error("an instance could not be started", exc_info=error)
    return Unavailable(f"the instance could not be started: {type(error).__name__}: {error}")
