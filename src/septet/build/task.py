"""Runs one command to its end in a sandbox, and hands over its output line by line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from septet.model.instance import InstanceEvent, InstanceExit, InstanceInfo
from septet.ports.sandbox import LaunchRequest, Sandbox

OnLine = Callable[[str], None]
MIB = 1024 * 1024


@dataclass
class _Task:
    """One that runs. `left` is how many bytes it may still print."""

    ended: asyncio.Future[InstanceExit]
    on_line: OnLine
    left: int
    most: int

    def end(self, how: InstanceExit) -> None:
        if not self.ended.done():
            self.ended.set_result(how)


class TaskRunner:
    """Tasks of one sandbox driver. The driver's events and output pass through `on_event` and `line`, which say
    whether they were a task's."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._open: dict[str, _Task] = {}

    def on_event(self, event: InstanceEvent) -> bool:
        task = self._open.get(event.instance.id)
        if task is None:
            return False
        if event.instance.state == "stopped":
            task.end(event.instance.exit or InstanceExit(message="it ended without saying why"))
        return True

    def line(self, instance: InstanceInfo, data: bytes) -> bool:
        task = self._open.get(instance.id)
        if task is None:
            return False
        task.left -= len(data) + 1
        if task.left < 0:
            task.end(InstanceExit(limit="output", message=f"it printed more than {task.most / MIB:g} MiB"))
        else:
            task.on_line(data.decode("utf-8", "replace"))
        return True

    async def run(self, request: LaunchRequest, on_line: OnLine, seconds: float, output: int) -> InstanceExit:
        """Starts the task and returns how it ended. It is killed when it runs longer than `seconds`, prints more
        than `output` bytes, or this is cancelled.

        Raises what `Sandbox.start` raises.
        """
        task = _Task(asyncio.get_running_loop().create_future(), on_line, output, output)
        self._open[request.id] = task
        try:
            await self._sandbox.start(request)
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.shield(task.ended)
            except TimeoutError:
                return InstanceExit(limit="time", message=f"it ran longer than {seconds:g} s")
            finally:
                await self._sandbox.stop(request.id, 0)
        finally:
            task.ended.cancel()
            del self._open[request.id]
