"""Which worker owns a revision: it alone has the links to its instances, its queue and its counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from septet.ports.signals import RevisionKey

NOBODY = -2
_KNOWN = 50_000


class Owners:
    """Rendezvous hashing over the live workers, so that a death moves only the dead one's revisions. A pin keeps a
    revision where it is while it has instances there, though a worker that came back would now win it."""

    def __init__(self) -> None:
        self.live: tuple[int, ...] = ()
        self.pins: dict[RevisionKey, int] = {}
        self._known: dict[RevisionKey, int] = {}

    def of(self, key: RevisionKey) -> int:
        owner = self._known.get(key)
        if owner is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            owner = self._known[key] = self._choose(key)
        return owner

    def set(self, live: Iterable[int], pins: Iterable[tuple[RevisionKey, int]] = ()) -> None:
        self.live = tuple(live)
        self.pins = {key: slot for key, slot in pins if slot in self.live}
        self._known.clear()

    def _choose(self, key: RevisionKey) -> int:
        pinned = self.pins.get(key)
        if pinned is not None:
            return pinned
        return self.natural(key)

    def natural(self, key: RevisionKey) -> int:
        """The owner by the hash alone."""
        name = f"{key[0]}/{key[1]}".encode()
        return max(self.live, key=lambda slot: _weight(name, slot), default=NOBODY)


def _weight(name: bytes, slot: int) -> bytes:
    return hashlib.blake2b(name, digest_size=8, salt=slot.to_bytes(8, "big")).digest()
