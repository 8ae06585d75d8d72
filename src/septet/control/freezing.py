"""Holding instances frozen: what the fleet asks of sandboxes that can do it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from septet.control import life
from septet.model.errors import SeptetError
from septet.ports.sandbox import Sandbox

log = logging.getLogger("septet.control.freezing")


class Freezing:
    """`handle` is told how it went, `spawn` runs what waits. `thaws` counts those that a call woke."""

    def __init__(
        self,
        sandboxes: Mapping[str, Sandbox],
        handle: Callable[[str, life.Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._sandboxes = sandboxes
        self._handle = handle
        self._spawn = spawn
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self.vacated: Callable[[str], Awaitable[None]] = _at_once
        """Returns when no call is in an instance that was taken out of the pool. Another process may have sent one
        there meanwhile; where there is none, whoever freezes has seen that it is empty."""
        self.thaws = 0

    def able(self, driver: str) -> bool:
        return self._sandboxes[driver].capabilities().freeze

    def freeze(self, instance: str, driver: str) -> None:
        task = self._under_way[instance] = self._spawn(self._freeze(instance, driver))
        task.add_done_callback(lambda _: self._under_way.pop(instance, None))

    def thaw(self, instance: str, driver: str) -> None:
        self._spawn(self._thaw(instance, driver))

    async def end(self, instance: str) -> None:
        """What is being frozen must not be frozen behind the back of who thaws or stops it."""
        task = self._under_way.get(instance)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])

    async def _freeze(self, instance: str, driver: str) -> None:
        await self.vacated(instance)
        try:
            await self._sandboxes[driver].freeze(instance)
        except SeptetError as error:
            log.info("instance %s is stopped, since it could not be frozen: %s", instance, error)
            self._handle(instance, life.Retire())

    async def _thaw(self, instance: str, driver: str) -> None:
        await self.end(instance)
        try:
            await self._sandboxes[driver].thaw(instance)
        except SeptetError as error:
            log.info("instance %s could not be thawed: %s", instance, error)
            self._handle(instance, life.Failed(error))
            return
        self.thaws += 1
        self._handle(instance, life.Thawed())


async def _at_once(instance: str) -> None:
    """Nobody else could have sent a call there."""
