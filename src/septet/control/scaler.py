"""As many instances of each revision as its policy says: at every tick, and at once when calls wait."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from septet.control.fleet import Fleet, Member
from septet.control.keeping import Keeping
from septet.control.mirror import Mirror
from septet.control.references import reachable
from septet.control.room import Room
from septet.control.settings import ControlSettings
from septet.control.standing import Standing
from septet.model.errors import CallerError, InitFailed, NodeFull, NotFound, QuotaExceeded, SeptetError, Unavailable
from septet.model.function import Function, Revision
from septet.model.instance import ColdReason, InstanceExit, LimitMet
from septet.policy import admission, autoscale, keepalive
from septet.ports.clock import Clock
from septet.ports.signals import Load, Pool, RevisionKey
from septet.ports.store import Change

log = logging.getLogger("septet.control.scaler")

REASONS = 1000
"""Revisions without instances of which is known why they have none, beyond that nobody called them."""
GAP = 0.01
"""Seconds between two answers to demand, so that a burst of calls is one question."""
AGAIN = 0.1
"""Seconds until a full node is asked again."""


class Scaler:
    """Implements `ports/signals.Demand` for the data plane and `Outcome` for the fleet."""

    def __init__(
        self,
        mirror: Mirror,
        fleet: Fleet,
        pool: Pool,
        clock: Clock,
        settings: ControlSettings,
        concurrency: Callable[[Revision], int],
        number: Callable[[], float] = random.random,
    ) -> None:
        self._mirror = mirror
        self._fleet = fleet
        self._pool = pool
        self._clock = clock
        self._settings = settings
        self._concurrency = concurrency
        self._number = number
        self._room = Room(mirror, fleet, pool, settings)
        self.keeping = Keeping(mirror, settings)
        self.prewarms = 0
        self._standings: dict[RevisionKey, Standing] = {}
        self._dirty: set[RevisionKey] = set()
        self._later: dict[RevisionKey, float] = {}
        self._wake = asyncio.Event()
        self._turns = admission.Turns()
        self._watched: set[RevisionKey] = set()
        """Revisions that may have to run although nobody calls them."""
        fleet.report_to(self)
        mirror.listen(self._changed)

    # -- Demand, for the data plane

    def wanted(self, key: RevisionKey) -> None:
        if key not in self._dirty:
            self._dirty.add(key)
            self._wake.set()

    def cold_reason(self, key: RevisionKey) -> ColdReason:
        if any(member.phase == "ready" for member in self._fleet.members(key)):
            return "burst"
        return self._standing(key).emptied

    def lost(self, key: RevisionKey, instance: str) -> None:
        self._fleet.lost(instance)

    def explain(self, instance: str, then: Callable[[InstanceExit | None], None]) -> None:
        self._fleet.exits.ask(instance, then)

    def limits(self, instance: str, age: float, then: Callable[[tuple[LimitMet, ...]], None]) -> None:
        self._fleet.limits.ask(instance, age, then)

    # -- Outcome, for the fleet

    def ready(self, key: RevisionKey, instance: str) -> None:
        standing = self._standing(key)
        standing.succeeded()
        standing.prove(self._count(key).ready)
        self._later.pop(key, None)
        self.wanted(key)

    def failed(self, key: RevisionKey, instance: str, error: SeptetError) -> None:
        log.info("an instance of %s/%s did not start: %s", *key, error)
        standing = self._standing(key)
        standing.failed(error, self._clock.now(), self._settings.backoff, self._number())
        hopeless = isinstance(error, InitFailed | CallerError)
        if standing.failures >= self._settings.attempts or hopeless:
            standing.give_up(error)
        count = self._count(key)
        if count.ready + count.starting == 0 and (standing.failures > 1 or hopeless):
            self._pool.fail_waiting(key, error)
        self._later[key] = standing.retry_at
        self._wake.set()

    def crashed(self, key: RevisionKey, instance: str) -> None:
        self._standing(key).emptied = "crashed"
        self.wanted(key)

    def freed(self) -> None:
        """Those who wait for room may have it now."""
        now = self._clock.now()
        for key, standing in self._standings.items():
            if standing.full_since is not None:
                self._later[key] = now
        self._wake.set()

    # -- for the deployer

    async def trial(self, key: RevisionKey, need: int) -> None:
        """Returns when `need` instances of a starting revision are ready; raises the error of a revision that is
        given up: it failed too often, cannot be loaded at all, or had no room for too long."""
        proof = self._standing(key).trial(need, self._clock.now())
        self._standing(key).prove(self._count(key).ready)
        self.wanted(key)
        await proof

    def trouble(self, key: RevisionKey) -> SeptetError | None:
        """The error of the last failed start, or lack of room, if no start has succeeded since."""
        return self._standing(key).error

    def standing(self, key: RevisionKey) -> tuple[int, SeptetError | None]:
        """Ready instances, and the trouble if there is any."""
        return self._count(key).ready, self.trouble(key)

    def idle(self, key: RevisionKey) -> bool:
        """Did no call run or wait when it was last looked at?"""
        standing = self._standings.get(key)
        return standing is None or not standing.calls

    # -- the loop

    async def run(self) -> None:
        """Ticks for ever, and answers demand in between; begins with all that the mirror has."""
        tick_at = self._clock.now()
        while True:
            now = self._clock.now()
            if now >= tick_at:
                tick_at = max(tick_at + self._settings.tick, now)
                self._tick_all(now)
            self._respond_all(self._clock.now())
            await self._clock.sleep(GAP)
            await self._rest(tick_at)

    async def _rest(self, until: float) -> None:
        """Until demand arrives, or the next thing is due."""
        if self._dirty:
            return
        self._wake.clear()
        due = min([until, *self._later.values()]) - self._clock.now()
        if due <= 0:
            return
        woken = asyncio.ensure_future(self._wake.wait())
        slept = asyncio.ensure_future(self._clock.sleep(due))
        try:
            await asyncio.wait((woken, slept), return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            slept.cancel()

    def _tick_all(self, now: float) -> None:
        """Looks at those that run, are called or must run: never at all, since most of very many sleep."""
        for key in [key for key in self._standings if self._gone(key)]:
            self._standings.pop(key).give_up(NotFound(f"revision {key[1]} was deleted"))
            self._later.pop(key, None)
        self._forget(now)
        members = {member.key: member.revision for member in self._fleet.members()}
        for key in dict.fromkeys((*self._watched, *self._standings, *members)):
            revision = self._mirror.get(Revision, *key) or members.get(key)
            if revision is None:
                continue
            if revision.status.phase not in ("starting", "ready") and key not in members:
                continue
            self._prewarm(key, revision, now)
            if key in members and all(member.phase == "frozen" for member in self._fleet.members(key)):
                self._kept(key, revision, now)
            elif not self._asleep(key, revision):
                self._tick(key, revision, now)

    def _forget(self, now: float) -> None:
        """Of a revision that sleeps, what is remembered says nothing that a fresh start would not."""
        for key, standing in list(self._standings.items()):
            told = standing.emptied == "scaled-to-zero" or len(self._standings) > REASONS
            if told and standing.sleeps(now) and key not in self._later and not self._fleet.members(key):
                del self._standings[key]

    def remembers(self, key: RevisionKey) -> bool:
        """Whether it is looked at again and again."""
        return key in self._standings

    def _gone(self, key: RevisionKey) -> bool:
        return self._mirror.get(Revision, *key) is None and not self._fleet.members(key)

    def _respond_all(self, now: float) -> None:
        """Answers everybody who has demand, the least served revision first."""
        due = {key for key, at in self._later.items() if at <= now}
        for key in due:
            del self._later[key]
        waiting = {"\n".join(key): key for key in self._dirty | due}
        self._dirty.clear()
        while waiting:
            name, self._turns = admission.next_turn(dict.fromkeys(waiting, 1.0), self._turns)
            self._respond(waiting.pop(name), now)

    def _changed(self, change: Change) -> None:
        """What may no longer run ends now, and what may begins: a tick is too long to wait."""
        obj = change.obj
        if isinstance(obj, Revision):
            key = (obj.meta.namespace, obj.meta.name)
            scale, phase = obj.spec.template.scale, obj.status.phase
            must = phase == "starting" or (phase == "ready" and (scale.min > 0 or scale.policy == "fixed"))
            if must and change.type != "delete":
                self._watched.add(key)
            else:
                self._watched.discard(key)
            if change.type == "delete" or not self._at_rest(key, obj):
                self.wanted(key)
        elif isinstance(obj, Function) and obj.meta.deleting_since is not None:
            for revision in self._mirror.revisions(obj):
                self.wanted((revision.meta.namespace, revision.meta.name))

    # -- one revision

    def _at_rest(self, key: RevisionKey, revision: Revision) -> bool:
        """Asleep whatever leads to it. After a start of the platform all revisions are told of at once."""
        standing = self._standings.get(key)
        scale = revision.spec.template.scale
        return (
            revision.status.phase == "ready"
            and not self._fleet.members(key)
            and (standing is None or standing.memory is None)
            and scale.min == 0
            and scale.policy != "fixed"
        )

    def _asleep(self, key: RevisionKey, revision: Revision) -> bool:
        """Nothing runs, nothing is remembered, and nothing must run: most revisions are so most of the time."""
        if self._at_rest(key, revision):
            return True
        standing = self._standings.get(key)
        return (
            revision.status.phase == "ready"
            and not reachable(self._mirror, revision)
            and not self._fleet.members(key)
            and (standing is None or standing.memory is None)
        )

    def _tick(self, key: RevisionKey, revision: Revision, now: float) -> None:
        standing, load = self._observe(key, revision, now)
        if standing is None or standing.memory is None:
            self._reconcile(key, revision, 0, now)
            return
        if load.running and not load.rate:  # what hangs may hang at a limit; other calls tell when they fail
            for member in self._fleet.members(key):
                if member.phase == "ready":
                    self._fleet.limits.look(member.info)
        facts = self._facts(key, revision, load)
        decision, standing.memory = autoscale.decide(
            facts, standing.configure(revision, self._concurrency), standing.memory, now
        )
        self._reconcile(key, revision, decision.desired, now, waiting=load.waiting)
        if decision.desired == 0 and not load.waiting and all(m.phase == "frozen" for m in self._fleet.members(key)):
            standing.memory = None

    def _respond(self, key: RevisionKey, now: float) -> None:
        revision = self._mirror.get(Revision, *key)
        if revision is None:
            for member in self._fleet.members(key):
                self._fleet.retire(member.id)
            self._pool.fail_waiting(key, NotFound(f"there is no revision {key[1]}"))
            return
        standing, load = self._observe(key, revision, now)
        if standing is None or standing.memory is None:
            self._reconcile(key, revision, 0, now)
            return
        facts = self._facts(key, revision, load)
        settings = standing.configure(revision, self._concurrency)
        decision, standing.memory = autoscale.activate(facts, settings, standing.memory, now, self._settings.step)
        fresh = 0 if facts.initialised else max(1, settings.initial, settings.minimum)
        desired = max(decision.desired, fresh, facts.ready + facts.starting)
        self._reconcile(key, revision, desired, now, waiting=load.waiting)

    def _observe(self, key: RevisionKey, revision: Revision, now: float) -> tuple[Standing | None, Load]:
        """Puts the load since the last look into the memory; None for a revision that must not run."""
        load = self._pool.sample(key)
        standing = self._standing(key)
        standing.calls = load.waiting + load.running
        if standing.calls or load.rate:
            self.keeping.saw(revision, now)
            standing.prewarm_at = 0.0
        if not self._serves(key):
            if load.waiting:
                self._pool.fail_waiting(key, standing.error or _not_served(revision))
            return None, load
        try:
            settings = standing.configure(revision, self._concurrency)
        except SeptetError as error:
            self._refuse(key, standing, error, load.waiting)
            return None, load
        if standing.memory is None:
            standing.memory = autoscale.start(settings, self._count(key).ready, now)
        metric = load.rate if settings.metric == "rps" else load.average
        standing.memory = autoscale.observe(metric, standing.memory, now)
        return standing, load

    def _facts(self, key: RevisionKey, revision: Revision, load: Load) -> autoscale.Facts:
        count = self._count(key)
        initialised = revision.status.phase == "ready"
        return autoscale.Facts(
            ready=count.ready,
            starting=count.starting,
            running=load.running,
            waiting=load.waiting,
            reachable=not initialised or reachable(self._mirror, revision),
            initialised=initialised,
        )

    def _reconcile(self, key: RevisionKey, revision: Revision, desired: int, now: float, waiting: int = 0) -> None:
        live = [member for member in self._fleet.members(key) if member.live]
        for member in self._kept(key, revision, now)[: max(0, desired - len(live))]:
            self._fleet.thaw(member.id)
            live.append(member)
        if len(live) > desired:
            self._shrink(key, revision, live, desired, now)
            return
        standing = self._standing(key)
        if standing.retry_at > now:
            self._later[key] = standing.retry_at
            if waiting and not live and standing.error is not None and standing.failures > 1:
                self._pool.fail_waiting(key, standing.error)
            return
        step = 1 if standing.failures else self._settings.step
        starting = sum(1 for member in live if member.starting)
        for _ in range(min(desired - len(live), step - starting)):
            if not self._start(key, revision, standing, waiting):
                return

    def _shrink(self, key: RevisionKey, revision: Revision, live: list[Member], desired: int, now: float) -> None:
        """Fewer instances; of a revision that goes to zero the last one may be kept."""
        going = keepalive.surplus([self._candidate(member) for member in live], desired)
        if desired == 0:
            self._standing(key).emptied = "scaled-to-zero"
            if self._keep(key, revision, going[-1], now):
                going = going[:-1]
        for instance in going:
            self._fleet.retire(instance)

    def _keep(self, key: RevisionKey, revision: Revision, instance: str, now: float) -> bool:
        """Whether it stays: frozen, or, when it starts for a call that is expected, as it is."""
        standing = self._standing(key)
        plan = self.keeping.plan(revision, now) if self._may_keep(key, revision) else None
        if plan is None or self._kept(key, revision, now):
            return False
        standing.kept_until, standing.prewarm_at = plan.until, plan.prewarm_at
        if plan.prewarm_at:
            return False
        if any(member.id == instance and member.starting for member in self._fleet.members(key)):
            return True
        if self._fleet.freeze(instance):
            standing.emptied = "frozen"
            return True
        return False

    def _kept(self, key: RevisionKey, revision: Revision, now: float) -> list[Member]:
        """Its frozen instances; those that are kept no longer go."""
        frozen = [member for member in self._fleet.members(key) if member.phase == "frozen"]
        if not frozen or (now < self._standing(key).kept_until and self._may_keep(key, revision)):
            return frozen
        self._standing(key).emptied = "scaled-to-zero"
        for member in frozen:
            self._fleet.retire(member.id)
        return []

    def _may_keep(self, key: RevisionKey, revision: Revision) -> bool:
        return self._serves(key) and reachable(self._mirror, revision)

    def _prewarm(self, key: RevisionKey, revision: Revision, now: float) -> None:
        """Starts an instance for a call that is expected, where there is room that nobody else has."""
        standing = self._standings.get(key)
        if standing is None or not 0 < standing.prewarm_at <= now:
            return
        standing.prewarm_at = 0.0
        busy = any(member.live or member.phase == "frozen" for member in self._fleet.members(key))
        if busy or now >= standing.kept_until or not self._may_keep(key, revision):
            return
        try:
            self._room.make(revision, claim=False, expected=True)
            self._fleet.start(revision)
        except SeptetError as error:
            log.info("no instance of %s/%s for the call that is expected: %s", *key, error)
            return
        self.prewarms += 1

    def _start(self, key: RevisionKey, revision: Revision, standing: Standing, waiting: int) -> bool:
        """Begins one instance, making room for it; False when there is none or it cannot be begun."""
        try:
            count = self._count(key)
            short = count.ready + count.starting < revision.spec.template.scale.min
            claim = bool(waiting) or standing.on_trial or short
            going = self._room.make(revision, claim)
            for instance in going:
                self.evict(instance)
            self._fleet.start(revision)
        except (NodeFull, QuotaExceeded) as error:
            self._no_room(key, standing, error, waiting)
            return False
        except SeptetError as error:
            self._refuse(key, standing, error, waiting)
            return False
        standing.full_since = None
        return True

    def evict(self, instance: str) -> None:
        """It goes so that another instance, or a build, has room."""
        for member in self._fleet.members():
            if member.id == instance:
                self._standing(member.key).emptied = "evicted"
        self._fleet.retire(instance)

    def _no_room(self, key: RevisionKey, standing: Standing, error: SeptetError, waiting: int) -> None:
        """Calls of a revision without any instance wait a little, then fail with what is full."""
        now = self._clock.now()
        standing.full_since = now if standing.full_since is None else standing.full_since
        alone = not any(member.live for member in self._fleet.members(key))
        if alone and waiting and (now - standing.full_since >= self._settings.patience or error.retry_after is None):
            self._pool.fail_waiting(key, error)
        if standing.proof is not None and not standing.proof.done():
            standing.error = error
            if now - standing.full_since >= self._settings.patience and self._count(key).ready:
                standing.prove_with_less()
            elif now - standing.tried_since >= self._settings.progress:
                standing.give_up(error)
        if alone:
            self._later[key] = now + AGAIN

    def _refuse(self, key: RevisionKey, standing: Standing, error: SeptetError, waiting: int) -> None:
        """It cannot be started as it is, whatever the room."""
        standing.give_up(error)
        standing.error = error
        if waiting:
            self._pool.fail_waiting(key, error)

    # -- small things

    def _serves(self, key: RevisionKey) -> bool:
        """May it have instances: it is there, built, not given up, and so is its function?"""
        revision = self._mirror.get(Revision, *key)
        if revision is None or revision.status.phase not in ("starting", "ready"):
            return False
        function = self._mirror.get(Function, key[0], revision.spec.function)
        return function is not None and function.meta.deleting_since is None

    def _standing(self, key: RevisionKey) -> Standing:
        standing = self._standings.get(key)
        if standing is None:
            revision = self._mirror.get(Revision, *key)
            fresh = revision is None or revision.status.phase != "ready"
            standing = self._standings[key] = Standing("new-revision" if fresh else "scaled-to-zero")
        return standing

    def _count(self, key: RevisionKey) -> autoscale.Facts:
        members = self._fleet.members(key)
        return autoscale.Facts(
            ready=sum(1 for member in members if member.phase == "ready"),
            starting=sum(1 for member in members if member.starting),
        )

    def _candidate(self, member: Member) -> keepalive.Candidate:
        return keepalive.Candidate(
            member.id,
            member.phase == "ready",
            self._pool.running(member.key, member.id),
            self._pool.idle_since(member.key, member.id) if member.phase == "ready" else None,
        )


def _not_served(revision: Revision) -> SeptetError:
    """For calls of a revision that has, and will have, no instance now."""
    phase = revision.status.phase
    if phase in ("pending", "building"):
        return Unavailable(f"revision {revision.meta.name} is not ready yet, it is {phase}", retry_after=1.0)
    return NotFound(f"revision {revision.meta.name} serves no more, it is {phase}")
