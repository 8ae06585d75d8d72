"""The node's memory, for what is no instance: builds ask for theirs before they start."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Memory(Protocol):
    def reserve(self, memory: int, what: str, waits: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """`memory` MiB of the node's budget, for as long as the context is open; entering it waits for them.

        Idle instances are evicted for it, and no instance takes the room while it is held. `what` names who asks in
        the errors; `waits` is told once, in words, when it has to wait. Raises NodeFull when the whole budget is too
        small, and when nothing was free for too long. May be cancelled at any time.
        """
        ...
