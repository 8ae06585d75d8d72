"""How long a function's last instance is kept after its last call: the facts for `policy.keepalive`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from septet.control.mirror import Mirror
from septet.control.settings import ControlSettings
from septet.model.function import Function, Revision
from septet.policy import keepalive
from septet.policy.keepalive import IdleTimes, Windows
from septet.ports.store import Change

Key = tuple[str, str]
"""(namespace, function)"""

PAUSE = 2
"""Looks at a revision without a call, after which it counts as idle: shorter pauses are none."""
WORTHWHILE = 10.0
"""Seconds without an instance, below which it is not stopped only to be started again."""


class Plan(NamedTuple):
    """Until when (clock time) an instance is kept; with `prewarm_at` it is stopped now and started again then."""

    until: float
    prewarm_at: float = 0.0


class Track:
    """What is known of one function: when a call was last seen in it or waiting, None for not since the platform
    started, and its idle times."""

    __slots__ = ("idle", "last")

    def __init__(self, last: float | None, idle: IdleTimes | None = None) -> None:
        self.last = last
        self.idle = idle or IdleTimes()


class Keeping:
    """Remembers idle times by function, so that a deploy forgets none; `recollecting` carries them over a start."""

    def __init__(self, mirror: Mirror, settings: ControlSettings) -> None:
        self._settings = settings
        self._tracks: dict[Key, Track] = {}
        self._dirty: set[Key] = set()
        mirror.listen(self._changed)

    def saw(self, revision: Revision, now: float) -> None:
        """A call ran or waited when the revision was looked at."""
        key = (revision.meta.namespace, revision.spec.function)
        track = self._tracks.get(key)
        if track is None:
            self._tracks[key] = Track(now)
            return
        # While the platform was not there nobody could call: that is no idle time.
        idle = now - track.last if track.last is not None else 0.0
        if idle > PAUSE * self._settings.tick and self._fixed(revision) is None:
            track.idle = keepalive.observe(track.idle, (idle,))
            self._dirty.add(key)
        track.last = now

    def plan(self, revision: Revision, now: float) -> Plan | None:
        """None when nothing is to be kept: keep-alive is 0 or over, or the function was never called."""
        track = self._tracks.get((revision.meta.namespace, revision.spec.function))
        if track is None or track.last is None:
            return None
        wanted = self._windows(revision, track)
        until = track.last + wanted.end
        if until <= now + self._settings.tick:
            return None
        prewarm_at = track.last + wanted.prewarm
        return Plan(until, prewarm_at) if prewarm_at > now + WORTHWHILE else Plan(until)

    def _windows(self, revision: Revision, track: Track) -> Windows:
        fixed = self._fixed(revision)
        return keepalive.windows(track.idle, keepalive.STANDARD) if fixed is None else Windows(0.0, fixed)

    def _fixed(self, revision: Revision) -> float | None:
        """Seconds; None: as its idle times say."""
        own = revision.spec.template.scale.keep_alive
        if own == "auto":
            return None
        return self._settings.keep_alive if own is None else own

    def _changed(self, change: Change) -> None:
        if change.type == "delete" and isinstance(change.obj, Function):
            key = (change.obj.meta.namespace, change.obj.meta.name)
            track = self._tracks.pop(key, None)
            if track is not None and track.idle.total:
                self._dirty.add(key)

    # -- over a start of the platform

    def changed(self) -> dict[Key, IdleTimes | None]:
        """Idle times that changed since the last time, None for those of a function that is gone."""
        found: dict[Key, IdleTimes | None] = {}
        for key in self._dirty:
            track = self._tracks.get(key)
            found[key] = track.idle if track is not None else None
        self._dirty.clear()
        return found

    def keep(self, keys: Iterable[Key]) -> None:
        """These are still to be told by `changed`."""
        self._dirty.update(keys)

    def forget(self, key: Key) -> None:
        self._tracks.pop(key, None)
        self._dirty.discard(key)

    def recall(self, key: Key, idle: IdleTimes) -> None:
        """What was known before; of a function that was called meanwhile, what is known since then counts."""
        self._tracks.setdefault(key, Track(None, idle))
