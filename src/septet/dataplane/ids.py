"""Identities for calls: random bits from the kernel, taken in blocks because one system call each would show."""

from __future__ import annotations

import os

_BLOCK = 256


class IdSource:
    """Invocation ids (128 bits, 32 hex digits) and span ids (64 bits, 16 hex digits); none is guessable."""

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0

    def invocation(self) -> str:
        return self._take(32)

    def span(self) -> str:
        return self._take(16)

    def _take(self, digits: int) -> str:
        at = self._at
        if at + digits > len(self._pool):
            self._pool = os.urandom(16 * _BLOCK).hex()
            at = 0
        self._at = at + digits
        taken = self._pool[at : at + digits]
        # Trace context forbids all zeros.
        return taken if taken.strip("0") else self._take(digits)
