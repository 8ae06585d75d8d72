"""The front's dispatcher: from a checked head to an instance's queue, and from a finished call to its record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from septet.dataplane.admission import AUTHORIZATION, Admission, Sender
from septet.dataplane.dispatch import NO_HEADERS, CallTarget, ControlTarget, Elsewhere, Peer, Refusal
from septet.dataplane.exchange import Exchange
from septet.dataplane.express import Lane, is_plain
from septet.dataplane.metrics import Metrics
from septet.dataplane.pool import InstancePool
from septet.dataplane.router import Goal, Router
from septet.dataplane.surfaces import Surfaces
from septet.dataplane.table import RevisionEntry
from septet.model.access import Caller
from septet.model.errors import (
    Forbidden,
    FunctionCrashed,
    FunctionOutOfMemory,
    FunctionTimeout,
    MethodNotAllowed,
    SeptetError,
    ShuttingDown,
)
from septet.model.instance import ColdReason, InstanceExit, LimitMet
from septet.model.invocation import InvocationRecord
from septet.policy.access import INVOKE
from septet.ports.logs import Logs
from septet.ports.signals import Demand
from septet.wire.callroute import CallRoute
from septet.wire.http1 import RequestHeadFacts


class CallData:
    """What goes with a call: its revision, and why it had to wait. `steady`: another call like it would go the same
    way, until the table changes."""

    __slots__ = ("cold", "revision", "steady")

    def __init__(self, revision: RevisionEntry, steady: bool) -> None:
        self.revision = revision
        self.steady = steady
        self.cold: ColdReason = ""


class Calls:
    """Implements `dispatch.Dispatcher` for every listener: the context of a listener is its `Surfaces`."""

    def __init__(
        self,
        *,
        router: Router,
        admission: Admission,
        pool: InstancePool,
        demand: Demand,
        logs: Logs,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._router = router
        self._admission = admission
        self._pool = pool
        self._demand = demand
        self._logs = logs
        self._metrics = metrics
        self._loop = loop
        self._closing = False
        self.open = 0

    def close(self) -> None:
        """No new calls from now on; those that run go on."""
        self._closing = True
        self._router.table.touch()

    # -- Dispatcher

    def route(self, head: RequestHeadFacts, peer: Peer) -> CallTarget | ControlTarget | Elsewhere | Refusal:
        surfaces = peer.listener.context
        assert isinstance(surfaces, Surfaces)
        route = surfaces.call_route(head.path)
        if route is not None:
            try:
                return self._call(head, peer, surfaces, route, self._router.named(route, head.target))
            except SeptetError as error:
                return Refusal(error, route.render_error)
        app = surfaces.control(head.path)
        if app is None:
            goal = self._router.matched(head.host, head.target, head.method)
            if isinstance(goal, Goal):
                return self._call(head, peer, surfaces, surfaces.first.call_routes[0], goal)
            if goal:
                raise MethodNotAllowed(
                    f"this path takes {', '.join(goal)}, not {head.method.decode()}", details={"allow": list(goal)}
                )
            app = surfaces.first.app
        return ControlTarget(app, state={"instance": surfaces.instance} if surfaces.instance else {})

    def lane(self, head: RequestHeadFacts, target: CallTarget, lines: bytes) -> Lane | None:
        data = target.data
        assert isinstance(data, CallData)
        pool = self._pool.of(target.key)
        if self._closing or not data.steady or not any(slot.short for slot in pool.slots.values()):
            return None
        series = self._metrics.of(target.namespace, target.function, target.key[1], "http")
        table = self._router.table
        lane = Lane(
            self,
            head,
            target,
            bounds=data.revision.limits,
            table=table,
            lines=lines,
            pool=pool,
            series=series,
            logs=self._logs,
        )
        return lane if is_plain(lane) else None

    def unshared(self, target: CallTarget) -> CallTarget:
        """A lane's target for one call of its own."""
        data = target.data
        assert isinstance(data, CallData)
        return target._replace(data=CallData(data.revision, data.steady))

    def submit(self, exchange: Exchange, again: bool) -> None:
        data = exchange.target.data
        assert isinstance(data, CallData)
        if not again:
            self.open += 1
        if self._closing:
            exchange.fail(ShuttingDown("the platform is stopping", hint="try again shortly", retry_after=2.0))
            return
        self._pool.of(exchange.key).submit(exchange, data.revision.limits, again)
        if not exchange.instance and not exchange.over and not data.cold:
            data.cold = self._demand.cold_reason(exchange.key)

    def withdraw(self, exchange: Exchange) -> None:
        self._pool.of(exchange.key).withdraw(exchange)

    def crashed(self, exchange: Exchange, error: SeptetError) -> None:
        """The instance died under the call: says why, as soon as that is known, and then fails the call."""

        def told(ended: InstanceExit | None) -> None:
            if not exchange.over:
                exchange.failed(_explained(error, ended, exchange))

        self._demand.explain(exchange.instance, told)

    def limits(self, exchange: Exchange, then: Callable[[tuple[LimitMet, ...]], None]) -> None:
        age = self._loop.time() - exchange.started_at

        def told(met: tuple[LimitMet, ...]) -> None:
            self._loop.call_soon(then, met)

        self._demand.limits(exchange.instance, age, told)

    def finished(self, exchange: Exchange) -> None:
        self.open -= 1
        target = exchange.target
        data = target.data
        assert isinstance(data, CallData)
        error = exchange.error
        series = self._metrics.of(target.namespace, target.function, target.key[1], "http")
        series.add(exchange.status, exchange.ended_at - exchange.queued_at)
        series.bytes_in += exchange.bytes_in
        series.bytes_out += exchange.bytes_out
        if error is not None:
            series.errors += 1
            if isinstance(error, FunctionTimeout):
                series.timeouts += 1
        if data.cold:
            series.cold[data.cold] = series.cold.get(data.cold, 0) + 1
        self._logs.record(_record(exchange, target, data, error))

    # -- inside

    def _call(
        self, head: RequestHeadFacts, peer: Peer, surfaces: Surfaces, route: CallRoute, goal: Goal
    ) -> CallTarget | Elsewhere:
        sender = self._sender(head, peer, surfaces, goal.function.namespace)
        rated = self._admission.admit(sender, goal.function)
        limits = goal.revision.limits
        return CallTarget(
            namespace=goal.function.namespace,
            function=goal.function.name,
            key=goal.revision.key,
            path=goal.target,
            route=route,
            timeout=limits.timeout,
            request_body=limits.request_body,
            caller=sender.caller,
            cut=AUTHORIZATION if sender.credential else NO_HEADERS,
            data=CallData(goal.revision, goal.steady and not rated),
        )

    def _sender(self, head: RequestHeadFacts, peer: Peer, surfaces: Surfaces, namespace: str) -> Sender:
        sender = self._admission.sender(head, peer.host)
        instance = surfaces.instance
        # From inside an instance: its own namespace without a token, and no other namespace at all.
        if instance is not None and namespace != instance.namespace:
            raise Forbidden(f"an instance reaches functions of its own namespace, {instance.namespace!r}, alone")
        if sender.credential:
            return sender
        if instance is not None:
            return Sender(_without_token(f"instance:{instance.id}", namespace), False)
        if namespace in surfaces.anonymous:
            return Sender(_without_token(f"anonymous:{peer.listener.name}", namespace), False)
        return sender


def _without_token(name: str, namespace: str) -> Caller:
    return Caller(name=name, namespaces=(namespace,), verbs=(INVOKE,))


def _explained(error: SeptetError, ended: InstanceExit | None, exchange: Exchange) -> SeptetError:
    if ended is None:
        return error
    if ended.limit == "memory":
        limit = f"memory {_data(exchange).revision.limits.memory} MiB"
        return FunctionOutOfMemory(
            f"the function used more memory than its limit ({limit}) and was killed",
            hint="raise limits.memory, or make the function use less",
            limit=limit,
        )
    return FunctionCrashed(
        f"the function's process ended while it ran this call: {ended.message or 'no reason was given'}",
        hint="`septet logs` shows what it printed last",
        limit=next((str(met) for met in ended.met if met.name == ended.limit), ended.limit),
    )


def _data(exchange: Exchange) -> CallData:
    data = exchange.target.data
    assert isinstance(data, CallData)
    return data


def _record(exchange: Exchange, target: CallTarget, data: CallData, error: SeptetError | None) -> InvocationRecord:
    offset = exchange.queued_wall - exchange.queued_at
    started, first, ended = exchange.started_at, exchange.first_byte_at, exchange.ended_at
    phases = {"queue": (started or ended) - exchange.queued_at}
    if started:
        phases["run"] = (first or ended) - started
    if first:
        phases["reply"] = ended - first
    return InvocationRecord(
        id=exchange.invocation,
        namespace=target.namespace,
        function=target.function,
        revision=target.key[1],
        instance=exchange.instance,
        api=target.route.api,
        caller=target.caller.name,
        correlation=exchange.request_id.decode("latin-1"),
        method=exchange.request.method.decode("latin-1"),
        path=target.path.partition(b"?")[0].decode("latin-1"),
        status=exchange.status,
        queued_at=exchange.queued_wall,
        started_at=started + offset if started else 0.0,
        first_byte_at=first + offset if first else 0.0,
        ended_at=ended + offset,
        cold=data.cold,
        phases=phases,
        error=error.code if error else "",
        message=error.message if error else f"limit {exchange.limit} reached" if exchange.limit else "",
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
    )
