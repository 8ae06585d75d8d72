"""Calls that arrive here for revisions that another process owns: the asking side of a line."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Protocol

import msgspec

from septet.app.workers.lease import GRANT, LEASE, RELEASE, Grant, LeaseRequest, LentHead, encode
from septet.app.workers.messages import Failure, uncarry
from septet.dataplane.exchange import Exchange
from septet.dataplane.pool import QueueBounds
from septet.drivers.contract.frames import FramesLink
from septet.model.errors import InstanceLost, SeptetError
from septet.model.instance import ColdReason, InstanceInfo
from septet.ports.contract import Reply, RequestHead, Upload
from septet.wire import frames

_grants = msgspec.msgpack.Decoder(Grant)
_failures = msgspec.msgpack.Decoder(Failure)


def _no_log(invocation: str, stream: str, line: bytes) -> None:
    """Output takes another way."""


class Borrower(Protocol):
    """Whose calls they are."""

    def cold(self, exchange: Exchange, reason: ColdReason) -> None: ...

    def refused(self, exchange: Exchange, error: SeptetError) -> None: ...

    def elsewhere(self, exchange: Exchange) -> None:
        """The other process does not own the revision, or is gone: ask again."""
        ...


class Line(FramesLink):
    """To one other process. What is sent before it is connected waits."""

    def __init__(self, peer: int, borrower: Borrower, on_lost: Callable[[], None]) -> None:
        nobody = InstanceInfo(
            id="", namespace="", function="", revision="", driver="", state="ready", protocol="frames", started_at=0
        )
        super().__init__(nobody, on_lost, _no_log)
        self.peer = peer
        self._borrower = borrower
        self._asked: dict[int, Exchange] = {}
        self._numbers: dict[Exchange, int] = {}
        self._count = 0
        self._early: list[bytes] = []

    def lease(self, exchange: Exchange, bounds: QueueBounds, again: bool) -> None:
        self._count += 1
        self._asked[self._count] = exchange
        self._numbers[exchange] = self._count
        request = LeaseRequest(exchange.key, bounds.queue, bounds.queue_timeout, again)
        self.send(frames.encode(LEASE, self._count, b"", encode(request)))

    def withdraw(self, exchange: Exchange) -> bool:
        """The caller of a call that waits is gone; False when it does not wait here."""
        number = self._numbers.pop(exchange, None)
        if number is None:
            return False
        del self._asked[number]
        self.release(number)
        return True

    def release(self, lease: int) -> None:
        self.send(frames.encode(RELEASE, lease))

    # -- FramesLink

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        early, self._early = self._early, []
        for data in early:
            self.send(data)

    def send(self, data: bytes) -> None:
        if self._transport is None and not self._lost:
            self._early.append(data)
        else:
            super().send(data)

    def _receive(self, frame: frames.Frame) -> None:
        if frame.type == GRANT:
            self._granted(frame.stream, _grants.decode(frame.body))
        elif frame.type == frames.ERROR:
            stream = self._streams.get(frame.stream)
            if stream is not None:
                stream.fail(uncarry(_failures.decode(frame.body)))
        else:
            super()._receive(frame)

    def _lose(self, why: str) -> None:
        super()._lose(why)
        asked, self._asked = self._asked, {}
        self._numbers.clear()
        for exchange in asked.values():
            self._borrower.elsewhere(exchange)

    def _granted(self, number: int, grant: Grant) -> None:
        exchange = self._asked.pop(number, None)
        if exchange is None:
            # It was withdrawn meanwhile, and the release is on its way.
            return
        del self._numbers[exchange]
        if grant.failure is None:
            self._borrower.cold(exchange, grant.cold)
            place = Place(self, number, exchange.key, grant.instance)
            exchange.assign(place, place.done)
            return
        error = uncarry(grant.failure)
        if isinstance(error, InstanceLost):
            self._borrower.elsewhere(exchange)
        else:
            self._borrower.refused(exchange, error)


class Place:
    """One place in an instance that another process owns, for one call (`ports.contract.Link`)."""

    def __init__(self, line: Line, lease: int, key: tuple[str, str], instance: str) -> None:
        self._line = line
        self._lease = lease
        self._begun = False
        self.instance = InstanceInfo(
            id=instance,
            namespace=key[0],
            function="",
            revision=key[1],
            driver="",
            state="ready",
            protocol="frames",
            started_at=0,
        )

    def begin(self, head: RequestHead, reply: Reply) -> Upload:
        lent = LentHead(self._lease, head.invocation, head.deadline, head.length, head.upgrade)
        first = b"lent: %b\r\n" % base64.b64encode(encode(lent))
        upload = self._line.begin(
            RequestHead(
                head.method,
                head.target,
                first + head.lines,
                head.length,
                head.invocation,
                head.deadline,
                head.upgrade,
            ),
            reply,
        )
        self._begun = True
        return upload

    def done(self) -> None:
        """The owner knows by itself when a call has left its instance, but not that none will come."""
        if not self._begun:
            self._line.release(self._lease)

    async def close(self, grace: float) -> None:
        """Nothing of the line is this call's own."""
