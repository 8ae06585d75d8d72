"""How long a function's last instance is kept after its last call: the facts for `policy.keepalive`."""

from __future__ import annotations

from typing import NamedTuple

from septet.control.mirror import Mirror
from septet.control.settings import ControlSettings
from septet.model.function import Function, Revision
from septet.policy import keepalive
from septet.policy.keepalive import IdleTimes, Windows
from septet.ports.store import Change

PAUSE = 2
"""Looks at a revision without a call, after which it counts as idle: shorter pauses are none."""
WORTHWHILE = 10.0
"""Seconds without an instance, below which it is not stopped only to be started again."""


class Plan(NamedTuple):
    """Until when (clock time) an instance is kept; with `prewarm_at` it is stopped now and started again then."""

    until: float
    prewarm_at: float = 0.0


class Track:
    """What is known of one function: when a call was last seen in it or waiting, and its idle times."""

    __slots__ = ("idle", "last")

    def __init__(self, now: float) -> None:
        self.last = now
        self.idle = IdleTimes()


class Keeping:
    """Remembers idle times by function, so that a deploy forgets none; a start of the platform does."""

    def __init__(self, mirror: Mirror, settings: ControlSettings) -> None:
        self._settings = settings
        self._tracks: dict[tuple[str, str], Track] = {}
        mirror.listen(self._changed)

    def saw(self, revision: Revision, now: float) -> None:
        """A call ran or waited when the revision was looked at."""
        key = (revision.meta.namespace, revision.spec.function)
        track = self._tracks.get(key)
        if track is None:
            self._tracks[key] = Track(now)
            return
        idle = now - track.last
        if self._settings.keep_alive is None and idle > PAUSE * self._settings.tick:
            track.idle = keepalive.observe(track.idle, (idle,))
        track.last = now

    def plan(self, revision: Revision, now: float) -> Plan | None:
        """None when nothing is to be kept: keep-alive is 0 or over, or the function was never called."""
        track = self._tracks.get((revision.meta.namespace, revision.spec.function))
        if track is None:
            return None
        wanted = self._windows(revision, track)
        until = track.last + wanted.end
        if until <= now + self._settings.tick:
            return None
        prewarm_at = track.last + wanted.prewarm
        return Plan(until, prewarm_at) if prewarm_at > now + WORTHWHILE else Plan(until)

    def _windows(self, revision: Revision, track: Track) -> Windows:
        own = revision.spec.template.scale.keep_alive
        if own is not None:
            return Windows(0.0, own)
        if self._settings.keep_alive is not None:
            return Windows(0.0, self._settings.keep_alive)
        return keepalive.windows(track.idle, keepalive.STANDARD)

    def _changed(self, change: Change) -> None:
        if change.type == "delete" and isinstance(change.obj, Function):
            self._tracks.pop((change.obj.meta.namespace, change.obj.meta.name), None)
