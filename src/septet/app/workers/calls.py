"""Calls where several processes serve: each goes to the process that owns its revision, or is lent a place there."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from septet.app.workers.borrow import Line
from septet.app.workers.messages import CONTROL
from septet.app.workers.moving import Mover
from septet.app.workers.owners import NOBODY, Owners
from septet.dataplane.calls import CallData, Calls
from septet.dataplane.dispatch import CallTarget, ControlTarget, Elsewhere, Peer, Refusal
from septet.dataplane.exchange import Exchange
from septet.dataplane.express import Lane
from septet.dataplane.front import Front
from septet.dataplane.router import Goal
from septet.dataplane.surfaces import Surfaces
from septet.model.errors import NotFound, QueueTimeout, SeptetError, ShuttingDown, Unavailable
from septet.model.instance import ColdReason
from septet.wire.callroute import CallRoute
from septet.wire.http1 import RequestHeadFacts

PAUSE = 0.02
"""Seconds until a call whose owner is not known, or has just gone, asks again."""


class SharedCalls(Calls):
    """`place` is this process's number; `lines` gives the line to another one, None when it cannot be reached."""

    def __init__(
        self,
        *,
        place: int,
        owners: Owners,
        mover: Mover,
        lines: Callable[[int], Line | None],
        loop: asyncio.AbstractEventLoop,
        **rest: Any,
    ) -> None:
        super().__init__(loop=loop, **rest)
        self._place = place
        self._owners = owners
        self._mover = mover
        self._lines = lines
        self._asked: dict[Exchange, Line] = {}

    # -- Dispatcher

    def route(self, head: RequestHeadFacts, peer: Peer) -> CallTarget | ControlTarget | Elsewhere | Refusal:
        if self._place == CONTROL:
            return super().route(head, peer)
        target: CallTarget | ControlTarget | Elsewhere | Refusal
        try:
            target = super().route(head, peer)
        except SeptetError as error:
            target = Refusal(error)
        if isinstance(target, ControlTarget):
            return Elsewhere(self._to_control)
        if isinstance(target, Refusal) and isinstance(target.error, NotFound | Unavailable):
            # What is new here may be known to control already, which told its client so.
            return Elsewhere(functools.partial(self._doubted, target))
        return target

    def lane(self, head: RequestHeadFacts, target: CallTarget, lines: bytes) -> Lane | None:
        return super().lane(head, target, lines) if self._owners.of(target.key) == self._place else None

    def submit(self, exchange: Exchange, again: bool) -> None:
        if self._owners.of(exchange.key) == self._place:
            super().submit(exchange, again)
            return
        if not again:
            self.open += 1
        if self._closing:
            exchange.fail(ShuttingDown("the platform is stopping", hint="try again shortly", retry_after=2.0))
            return
        self.resume(exchange, again)

    def withdraw(self, exchange: Exchange) -> None:
        line = self._asked.pop(exchange, None)
        if line is not None:
            line.withdraw(exchange)
        elif self._owners.of(exchange.key) == self._place:
            super().withdraw(exchange)

    # -- borrowing

    def cold(self, exchange: Exchange, reason: ColdReason) -> None:
        """The owner granted a place, after a wait if there is a reason."""
        self._asked.pop(exchange, None)
        data = exchange.target.data
        if isinstance(data, CallData):
            data.cold = reason

    def refused(self, exchange: Exchange, error: SeptetError) -> None:
        self._asked.pop(exchange, None)
        exchange.fail(error)

    def elsewhere(self, exchange: Exchange) -> None:
        """Its owner is another now, or not known yet: it asks again, as long as it may wait at all."""
        self._asked.pop(exchange, None)
        if exchange.over:
            return
        data = exchange.target.data
        assert isinstance(data, CallData)
        allowed = data.revision.limits.queue_timeout
        if self._loop.time() - exchange.queued_at > allowed:
            exchange.fail(
                QueueTimeout(
                    f"no instance of {exchange.key[1]} was free within {allowed:g} s",
                    hint="the worker that owns it was restarted; try again",
                    limit=f"queue_timeout {allowed:g} s",
                    retry_after=1.0,
                )
            )
            return
        self._loop.call_later(PAUSE, self.resume, exchange, True)

    def resume(self, exchange: Exchange, again: bool) -> None:
        """Looks for the owner of a call that waits nowhere."""
        if exchange.over:
            return
        owner = self._owners.of(exchange.key)
        if owner == self._place:
            super().submit(exchange, True)
            return
        line = self._lines(owner) if owner != NOBODY else None
        if line is None:
            self.elsewhere(exchange)
            return
        data = exchange.target.data
        assert isinstance(data, CallData)
        self._asked[exchange] = line
        line.lease(exchange, data.revision.limits, again)

    # -- inside

    def _call(
        self, head: RequestHeadFacts, peer: Peer, surfaces: Surfaces, route: CallRoute, goal: Goal
    ) -> CallTarget | Elsewhere:
        owner = self._owners.of(goal.revision.key)
        # A revision that was drawn by chance would be drawn again over there, which changes the odds.
        if owner in (self._place, NOBODY) or not goal.steady or surfaces.instance is not None:
            return super()._call(head, peer, surfaces, route, goal)
        here = functools.partial(super()._call, head, peer, surfaces, route, goal)
        return Elsewhere(functools.partial(self._to_owner, owner, route, here))

    def _to_owner(
        self, owner: int, route: CallRoute, here: Callable[[], CallTarget | Elsewhere], front: Front, data: bytes
    ) -> CallTarget | Refusal | None:
        if self._mover.move(front, data, owner):
            return None
        try:
            target = here()
        except SeptetError as error:
            return Refusal(error, route.render_error)
        assert isinstance(target, CallTarget)
        return target

    def _doubted(self, refusal: Refusal, front: Front, data: bytes) -> Refusal | None:
        return None if self._mover.move(front, data, CONTROL) else refusal

    def _to_control(self, front: Front, data: bytes) -> Refusal | None:
        if self._mover.move(front, data, CONTROL) or self._mover.copy(front, data, CONTROL):
            return None
        return Refusal(ShuttingDown("the platform is stopping", hint="try again shortly", retry_after=2.0))
