"""The front's dispatcher: from a checked head to an instance's queue, and from a finished call to its record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from septet.dataplane.admission import AUTHORIZATION, Admission, Sender
from septet.dataplane.dispatch import NO_HEADERS, ASGIApp, CallTarget, ControlTarget, Peer, Refusal
from septet.dataplane.exchange import Exchange
from septet.dataplane.metrics import Metrics
from septet.dataplane.pool import InstancePool
from septet.dataplane.router import Goal, Router
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
from septet.model.instance import ColdReason, InstanceExit, InstanceInfo
from septet.model.invocation import InvocationRecord
from septet.ports.logs import Logs
from septet.ports.signals import Demand
from septet.wire.callroute import CallRoute
from septet.wire.http1 import RequestHeadFacts


class Inner(NamedTuple):
    """The listener's context of an inner gateway: which instance is on the other side."""

    instance: InstanceInfo


class CallData:
    """What goes with a call: its revision, and why it had to wait."""

    __slots__ = ("cold", "revision")

    def __init__(self, revision: RevisionEntry) -> None:
        self.revision = revision
        self.cold: ColdReason = ""


class Calls:
    """Implements `dispatch.Dispatcher`. `own_prefixes` are paths of the platform that no route object takes."""

    def __init__(
        self,
        *,
        router: Router,
        admission: Admission,
        pool: InstancePool,
        demand: Demand,
        call_routes: Sequence[CallRoute],
        control: ASGIApp,
        own_prefixes: tuple[bytes, ...],
        logs: Logs,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._router = router
        self._admission = admission
        self._pool = pool
        self._demand = demand
        self._routes = sorted(call_routes, key=lambda route: -len(route.prefix))
        self._control = control
        self._own = own_prefixes
        self._logs = logs
        self._metrics = metrics
        self._loop = loop
        self._closing = False
        self.open = 0

    def close(self) -> None:
        """No new calls from now on; those that run go on."""
        self._closing = True

    # -- Dispatcher

    def route(self, head: RequestHeadFacts, peer: Peer) -> CallTarget | ControlTarget | Refusal:
        for route in self._routes:
            if head.path.startswith(route.prefix):
                try:
                    return self._call(head, peer, route, self._router.named(route, head.target))
                except SeptetError as error:
                    return Refusal(error, route.render_error)
        if not head.path.startswith(self._own):
            goal = self._router.matched(head.host, head.target, head.method)
            native = self._routes[0]
            if isinstance(goal, Goal):
                return self._call(head, peer, native, goal)
            if goal:
                raise MethodNotAllowed(
                    f"this path takes {', '.join(goal)}, not {head.method.decode()}", details={"allow": list(goal)}
                )
        context = peer.listener.context
        state = {"instance": context.instance} if isinstance(context, Inner) else {}
        return ControlTarget(self._control, state=state)

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

    def _call(self, head: RequestHeadFacts, peer: Peer, route: CallRoute, goal: Goal) -> CallTarget:
        sender = self._sender(head, peer, goal.function.namespace)
        self._admission.admit(sender, goal.function)
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
            data=CallData(goal.revision),
        )

    def _sender(self, head: RequestHeadFacts, peer: Peer, namespace: str) -> Sender:
        sender = self._admission.sender(head, peer.host)
        context = peer.listener.context
        if not isinstance(context, Inner):
            return sender
        # From inside an instance: its own namespace without a token, and no other namespace at all.
        if namespace != context.instance.namespace:
            raise Forbidden(
                f"an instance reaches functions of its own namespace, {context.instance.namespace!r}, alone"
            )
        if sender.credential:
            return sender
        name = f"instance:{context.instance.id}"
        return Sender(Caller(name=name, namespaces=(namespace,), verbs=("functions:invoke",)), False)


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
        limit=ended.limit,
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
        message=error.message if error else "",
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
    )
