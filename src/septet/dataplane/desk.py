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

REMEMBERED = 32 * 1024 * 1024
"""Bytes of all express lanes of a listener, whoever its callers are."""

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
        self._lanes: tuple[Lanes, Lanes] = ({}, {})
        self._remembered = 0
        self.draining = False
        self.on_empty = asyncio.Event()

    def wall(self, now: float) -> float:
        """The time of day at a loop time, in seconds since the epoch; the clock is looked at once a second."""
        if now >= self._offset_until:
            self._offset_until = now + 1.0
            self.wall_offset = time.time() - time.monotonic()
        return now + self.wall_offset

    def lanes(self, trusted: bool) -> Lanes:
        """The express lanes of callers that are believed, or not, when they say where a request came from."""
        return self._lanes[trusted]

    def remember(self, size: int) -> None:
        """So many bytes more are kept on express lanes; past the bound all of it is forgotten."""
        self._remembered += size
        if self._remembered > REMEMBERED:
            self._remembered = size
            for lanes in self._lanes:
                lanes.clear()


def _parse_fields(block: bytes) -> Fields:
    """The platform's own lines are cut here, so that a caller's never pass for them."""
    return parse_request_fields(block, PLATFORM_NAMES, PLATFORM_PREFIXES)
