"""One worker as control has it: its process, its channel, and what was asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from septet.app.workers.channel import Channel, pair
from septet.app.workers.messages import Drained, Message, Ping, Pong

log = logging.getLogger("septet.workers")

PERIOD = 5.0
PATIENCE = 10.0
"""Seconds after which a worker that answers nothing is killed: what it was told must be in effect everywhere."""
ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""What a worker finds of the environment: nothing that a build or an operator keeps secret in it."""


class WorkerHandle:
    """`gone` is called once, when the process ends or cannot be reached. `open` is its number of open calls."""

    def __init__(
        self,
        slot: int,
        receive: Callable[[WorkerHandle, Message, list[int]], None],
        gone: Callable[[WorkerHandle], None],
    ) -> None:
        self.slot = slot
        self.listening = False
        self.open = 0
        self.ended = asyncio.Event()
        self.drained: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._receive_other = receive
        self._gone = gone
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._count = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self.channel: Channel

    async def start(self) -> None:
        mine, theirs = pair()
        self.channel = Channel(mine, self._receive, self._lost)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "septet.app.workers.worker",
                str(theirs.fileno()),
                f"worker-{self.slot}",
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            )
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        self.channel.send(message, fds)

    async def ping(self) -> None:
        """Returns when all that was sent before is in effect, or the worker is gone."""
        if self.channel.closed:
            return
        number = next(self._count)
        asked = self._pings[number] = asyncio.get_running_loop().create_future()
        self.send(Ping(number))
        try:
            await asyncio.wait_for(asked, PATIENCE)
        except TimeoutError:
            log.warning("worker %d answers nothing for %g s and is killed", self.slot, PATIENCE)
            self.kill()
        finally:
            self._pings.pop(number, None)

    async def watch(self) -> None:
        """Asks it again and again once it serves, until it is gone: one that is stuck must make way."""
        while not self.ended.is_set():
            await asyncio.sleep(PERIOD)
            if self.listening:
                await self.ping()

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def wait(self) -> str:
        """Until the process has ended; how it did, in words."""
        await self.ended.wait()
        self.kill()
        code = await self._process.wait() if self._process is not None else 0
        return f"by signal {-code}" if code < 0 else f"with code {code}"

    async def stop(self, patience: float) -> None:
        """Lets go of it: without its channel it ends by itself."""
        self.channel.close()
        self._end()
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), patience)
        self.kill()

    # -- inside

    def _receive(self, message: Message, fds: list[int]) -> None:
        if isinstance(message, Pong):
            asked = self._pings.get(message.number)
            if asked is not None and not asked.done():
                asked.set_result(None)
        elif isinstance(message, Drained):
            if not self.drained.done():
                self.drained.set_result(message.clean)
        else:
            self._receive_other(self, message, fds)

    def _lost(self) -> None:
        self._end()
        self._gone(self)

    def _end(self) -> None:
        self.ended.set()
        waiting: list[asyncio.Future[Any]] = list(self._pings.values())
        for asked in waiting:
            if not asked.done():
                asked.set_result(None)
        if not self.drained.done():
            self.drained.set_result(False)
