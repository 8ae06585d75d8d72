"""Why instances ended, for those who saw their link break and want to say more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from septet.model.instance import InstanceExit

KEPT = 256
PATIENCE = 1.0

Then = Callable[[InstanceExit | None], None]


class Exits:
    """The last exits, and who waits for one."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, InstanceExit] = OrderedDict()
        self._asked: dict[str, list[Then]] = {}

    def note(self, instance: str, exit: InstanceExit) -> None:
        """The first exit of an instance is the one that counts."""
        if instance in self._known:
            return
        self._known[instance] = exit
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        for then in self._asked.pop(instance, []):
            then(exit)

    def ask(self, instance: str, then: Then) -> None:
        """Calls `then` once: with the exit when it is known, with None after a second without it."""
        if instance in self._known:
            then(self._known[instance])
            return
        waiting = self._asked.setdefault(instance, [])
        waiting.append(then)
        asyncio.get_running_loop().call_later(PATIENCE, self._expire, instance, then)

    def _expire(self, instance: str, then: Then) -> None:
        waiting = self._asked.get(instance, [])
        if then in waiting:
            waiting.remove(then)
            if not waiting:
                del self._asked[instance]
            then(None)
