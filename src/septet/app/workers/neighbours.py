"""The other processes, as one of them sees them: lines on which calls are lent, and channels for connections."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Coroutine
from typing import Any

from septet.app.workers.borrow import Borrower, Line
from septet.app.workers.channel import Channel
from septet.app.workers.handover import attach
from septet.app.workers.lend import Lender, Owner
from septet.app.workers.messages import Message, Moved
from septet.app.workers.moving import Mover
from septet.dataplane.desk import Desk


class Neighbours:
    """Lines and channels by the other process's number; a newer one takes the older one's place."""

    def __init__(self) -> None:
        self.desks: dict[str, Desk] = {}
        self.mover = Mover(self.desks, self.channel)
        self._lines: dict[int, Line] = {}
        self._channels: dict[int, Channel] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def line(self, peer: int) -> Line | None:
        return self._lines.get(peer)

    def channel(self, peer: int) -> Channel | None:
        return self._channels.get(peer)

    def ask(self, peer: int, sock: socket.socket, borrower: Borrower) -> None:
        """From now on our calls for the peer's revisions go out on this socket."""

        def lost() -> None:
            if self._lines.get(peer) is line:
                del self._lines[peer]

        line = Line(peer, borrower, lost)
        self._lines[peer] = line
        self._start(attach(sock, line))

    def answer(self, sock: socket.socket, owner: Owner) -> None:
        """The peer's calls for our revisions come in on this socket."""
        self._start(attach(sock, Lender(owner, _nothing)))

    def know(self, peer: int, channel: Channel) -> None:
        """Connections for the peer go out on this channel."""
        self._channels[peer] = channel

    def meet(self, peer: int, sock: socket.socket) -> None:
        """Connections go to the peer and come from it on this socket."""
        self.know(peer, Channel(sock, self.take, functools.partial(self.forget, peer)))

    def forget(self, peer: int) -> None:
        channel = self._channels.get(peer)
        if channel is not None and channel.closed:
            del self._channels[peer]

    def take(self, message: Message, fds: list[int]) -> None:
        """A connection that another process sent."""
        if isinstance(message, Moved):
            self.mover.take(message, fds[0])

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _nothing(lender: Lender) -> None:
    """What it lent is free again by itself."""
