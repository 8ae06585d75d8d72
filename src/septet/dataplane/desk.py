"""What the connections of one listener share."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from septet.dataplane.answer import DateLine, Flusher
from septet.dataplane.correlation import PLATFORM_NAMES, PLATFORM_PREFIXES
from septet.dataplane.deadlines import Deadlines
from septet.dataplane.dispatch import Dispatcher, ListenerFacts, Loop
from septet.dataplane.forwarding import ClientLines
from septet.dataplane.ids import IdSource
from septet.wire.fields import Fields, FieldsCache, parse_request_fields

HOSTS = 256
"""Of so many addresses the lanes are remembered."""

if TYPE_CHECKING:
    from septet.dataplane.express import Lanes
    from septet.dataplane.front import Front


class Desk:
    """One per listener; `draining` once no further request is wanted, `on_empty` when the last one has left."""

    def __init__(self, loop: Loop, dispatcher: Dispatcher, facts: ListenerFacts) -> None:
        self.loop = loop
        self.dispatcher = dispatcher
        self.facts = facts
        self.settings = facts.settings
        self.deadlines = Deadlines(loop)
        self.ids = IdSource()
        self.date = DateLine()
        self.flusher = Flusher(loop)
        self.client_lines = ClientLines()
        self.parse = FieldsCache(_parse_fields)
        self.connections: set[Front] = set()
        self.wall_offset = 0.0
        self._offset_until = 0.0
        self._lanes: dict[str, Lanes] = {}
        self.draining = False
        self.on_empty = asyncio.Event()

    def wall(self, now: float) -> float:
        """The time of day at a loop time, in seconds since the epoch; the clock is looked at once a second."""
        if now >= self._offset_until:
            self._offset_until = now + 1.0
            self.wall_offset = time.time() - time.monotonic()
        return now + self.wall_offset

    def lanes(self, host: str) -> Lanes:
        """The express lanes of callers from one address: where a call comes from is among what a lane fixes."""
        if len(self._lanes) >= HOSTS and host not in self._lanes:
            self._lanes.clear()
        return self._lanes.setdefault(host, {})


def _parse_fields(block: bytes) -> Fields:
    """The platform's own lines are cut here, so that a caller's never pass for them."""
    return parse_request_fields(block, PLATFORM_NAMES, PLATFORM_PREFIXES)
