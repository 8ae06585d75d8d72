"""Idle times of functions over a restart: kept in the store now and then, and read once at the start.

What is lost, or cannot be read, is learnt again: that is no error of anybody's.
"""

from __future__ import annotations

import logging
from typing import Annotated

import msgspec

from septet.control.keeping import Keeping
from septet.control.mirror import Mirror
from septet.model.errors import SeptetError
from septet.model.function import Function
from septet.policy import keepalive
from septet.policy.keepalive import IdleTimes
from septet.ports.clock import Clock
from septet.ports.store import Store

log = logging.getLogger("septet.control.recollecting")

PREFIX = "idle/"
EVERY = 180.0
"""Seconds between two times that what changed is kept."""
BATCH = 500
SLICE = 20
PAUSE = 0.02

Bin = Annotated[int, msgspec.Meta(ge=0, lt=keepalive.BINS)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2 * keepalive.FADE)]


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """One function's idle times: counts by bin, and the count beyond the last."""

    bins: dict[Bin, Count]
    beyond: Count


class Recollecting:
    """Carries `Keeping`'s memory to the store and back."""

    def __init__(self, store: Store, keeping: Keeping, mirror: Mirror, clock: Clock) -> None:
        self._store = store
        self._keeping = keeping
        self._mirror = mirror
        self._clock = clock
        self._loaded = False
        self._unsure: list[str] = []

    async def load(self) -> None:
        """Once, before the first call."""
        if self._loaded:
            return
        self._loaded = True
        try:
            found = await self._store.recollect(PREFIX)
        except SeptetError as error:
            log.warning("idle times of before are not to be had, they are learnt again: %s", error)
            return
        self._unsure = list(found)
        for name, data in found.items():
            if (idle := _decoded(data)) is not None:
                self._keeping.recall(_key(name), idle)

    async def run(self) -> None:
        await self._sweep()
        while True:
            await self._clock.sleep(EVERY)
            await self.save()

    async def save(self) -> None:
        """All that changed since the last time; what could not be written is tried again the next time."""
        changed = self._keeping.changed()
        keys = list(changed)
        for start in range(0, len(keys), BATCH):
            part = {key: changed[key] for key in keys[start : start + BATCH]}
            memories = {f"{PREFIX}{'/'.join(key)}": _encoded(idle) for key, idle in part.items()}
            if not await self._remember(memories):
                self._keeping.keep(keys[start:])
                return

    async def _sweep(self) -> None:
        """Forgets those of functions that went just before the platform died. Most functions rest in the store, and
        asking for one takes a moment, so calls get their turn in between."""
        while self._unsure:
            part, self._unsure = self._unsure[:SLICE], self._unsure[SLICE:]
            gone = [_key(name) for name in part if self._mirror.get(Function, *_key(name)) is None]
            for key in gone:
                self._keeping.forget(key)
            if gone:
                await self._remember(dict.fromkeys(f"{PREFIX}{'/'.join(key)}" for key in gone))
            await self._clock.sleep(PAUSE)

    async def _remember(self, memories: dict[str, bytes | None]) -> bool:
        try:
            await self._store.remember(memories)
        except SeptetError as error:
            log.warning("idle times are not kept: %s", error)
            return False
        return True


def _key(name: str) -> tuple[str, str]:
    namespace, _, function = name.removeprefix(PREFIX).partition("/")
    return namespace, function


def _encoded(idle: IdleTimes | None) -> bytes | None:
    return None if idle is None else msgspec.msgpack.encode(Kept(dict(idle.bins), idle.beyond))


def _decoded(data: bytes) -> IdleTimes | None:
    """None for what nobody can have written."""
    try:
        kept = msgspec.msgpack.decode(data, type=Kept)
    except msgspec.MsgspecError:
        return None
    return keepalive.recalled(kept.bins, kept.beyond)
