"""Client connections that go to the process which can answer them best."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Callable, Mapping

from septet.app.workers.channel import Channel, pair
from septet.app.workers.handover import Copy, attach, descriptor, join
from septet.app.workers.messages import CONTROL, Moved
from septet.dataplane.desk import Desk
from septet.dataplane.dispatch import Peer
from septet.dataplane.front import Front

SETTLED = 1.0
"""A connection that moved less than so many seconds ago stays, and its calls are lent instead."""


class MovedFront(Front):
    """A connection that another process accepted."""

    __slots__ = ("_client", "copied", "moved_at")

    def __init__(self, desk: Desk, moved: Moved) -> None:
        super().__init__(desk)
        self.moved_at = moved.moved_at
        self.copied = moved.copied
        self._client = (moved.host, moved.port)

    @property
    def welcome(self) -> bool:
        """It has a request with it, which was accepted by the process that sent it."""
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.copied:
            host, port = self._client
            self.peer = Peer(self.desk.facts, host, port, self.desk.facts.trusts(host))
            self._lanes = self.desk.lanes(self.peer.trusted)
            self.host = host.encode()


class Mover:
    """Sends connections away and takes them in. `desks` are the listeners' by name."""

    def __init__(self, desks: Mapping[str, Desk], channel: Callable[[int], Channel | None]) -> None:
        self._desks = desks
        self._channel = channel
        self.held = False
        """Whether no connection may leave any more, since all processes are about to stop."""
        self._tasks: set[asyncio.Task[None]] = set()

    def move(self, front: Front, data: bytes, to: int) -> bool:
        """True when the connection is on its way, with `data`, which was read and not used yet."""
        now = front.desk.loop.time()
        settled = now - getattr(front, "moved_at", -math.inf) >= SETTLED or to == CONTROL
        if not settled or getattr(front, "copied", False) or not front.idle or front.secure:
            return False
        channel = self._channel(to) if not self.held else None
        number = descriptor(front.transport) if channel is not None else None
        if channel is None or number is None:
            return False
        transport, name = front.transport, front.desk.facts.name
        transport.pause_reading()
        front.leave()
        transport.abort()
        moved, spare = Moved(name, data, now), os.dup(number)
        if channel.send(moved, [number]):
            os.close(spare)
        else:
            # The other process has just died: the connection comes back, as if it had been sent here.
            self.take(moved, spare)
        return True

    def copy(self, front: Front, data: bytes, to: int) -> bool:
        """Gives the other process one end of a pair, and copies between the other end and the client."""
        channel = self._channel(to) if not self.held else None
        if channel is None:
            return False
        mine, theirs = pair()
        peer, transport = front.peer, front.transport
        channel.send(
            Moved(front.desk.facts.name, data, front.desk.loop.time(), peer.host, peer.port, copied=True),
            [theirs.detach()],
        )
        front.leave()
        client = Copy()
        client.transport = transport
        transport.set_protocol(client)
        self._start(self._join(client, mine))
        return True

    def take(self, moved: Moved, number: int) -> None:
        """A connection arrives."""
        desk = self._desks.get(moved.listener)
        if desk is None:
            os.close(number)
            return
        self._start(self._serve(MovedFront(desk, moved), socket.socket(fileno=number), moved.data))

    # -- inside

    async def _serve(self, front: Front, sock: socket.socket, data: bytes) -> None:
        await attach(sock, front, data)

    async def _join(self, client: Copy, mine: socket.socket) -> None:
        there = Copy()
        await attach(mine, there)
        join(client, there)
        if client.transport is None or client.transport.is_closing():
            there.connection_lost(None)

    def _start(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
