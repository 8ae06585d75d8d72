"""Runs one command to its end in a sandbox, and hands over its output line by line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from septet.model.instance import InstanceEvent, InstanceExit, InstanceInfo
from septet.ports.sandbox import LaunchRequest, Sandbox

OnLine = Callable[[str], None]


class TaskRunner:
    """Tasks of one sandbox driver. The driver's events and output pass through `on_event` and `line`, which say
    whether they were a task's."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._open: dict[str, tuple[asyncio.Future[InstanceExit], OnLine]] = {}

    def on_event(self, event: InstanceEvent) -> bool:
        entry = self._open.get(event.instance.id)
        if entry is None:
            return False
        if event.instance.state == "stopped" and not entry[0].done():
            entry[0].set_result(event.instance.exit or InstanceExit(message="it ended without saying why"))
        return True

    def line(self, instance: InstanceInfo, data: bytes) -> bool:
        entry = self._open.get(instance.id)
        if entry is None:
            return False
        entry[1](data.decode("utf-8", "replace"))
        return True

    async def run(self, request: LaunchRequest, on_line: OnLine, seconds: float) -> InstanceExit:
        """Starts the task and returns how it ended; past `seconds`, or when cancelled, it is killed.

        Raises what `Sandbox.start` raises.
        """
        ended: asyncio.Future[InstanceExit] = asyncio.get_running_loop().create_future()
        self._open[request.id] = (ended, on_line)
        try:
            await self._sandbox.start(request)
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.shield(ended)
            except TimeoutError:
                await self._sandbox.stop(request.id, 0)
                return InstanceExit(limit="time", message=f"it ran longer than {seconds:g} s")
        finally:
            if not ended.done():
                await self._sandbox.stop(request.id, 0)
            ended.cancel()
            del self._open[request.id]
