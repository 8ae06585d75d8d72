"""Identities for calls: random bits from the kernel, taken in blocks because one system call each would show."""

from __future__ import annotations

import os

_BLOCK = 256
_ZEROS = b"0" * 16


class IdSource:
    """Invocation ids (128 bits, 32 hex digits) and span ids (64 bits, 16 hex digits); none is guessable."""

    __slots__ = ("_at", "_pair_at", "_pairs", "_pool")

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0
        self._pairs = b""
        self._pair_at = 0

    def invocation(self) -> str:
        return self._take(32)

    def span(self) -> str:
        return self._take(16)

    def pair(self) -> tuple[bytes, bytes]:
        """An invocation id and a span id, as bytes."""
        at = self._pair_at
        pairs = self._pairs
        if at >= len(pairs):
            pairs = _ZEROS
            while _ZEROS in pairs:
                pairs = os.urandom(24 * _BLOCK).hex().encode()
            self._pairs, at = pairs, 0
        self._pair_at = at + 48
        return pairs[at : at + 32], pairs[at + 32 : at + 48]

    def _take(self, digits: int) -> str:
        at = self._at
        if at + digits > len(self._pool):
            self._pool = os.urandom(16 * _BLOCK).hex()
            at = 0
        self._at = at + digits
        taken = self._pool[at : at + digits]
        # Trace context forbids all zeros.
        return taken if taken.strip("0") else self._take(digits)
