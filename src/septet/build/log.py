"""What a build prints: bounded, and with its credentials blotted out before anybody sees or keeps a line."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from urllib.parse import quote, unquote

from septet.ports.blobs import Progress

BLOT = "***"
_SHORTEST = 4
"""Values below are no credentials, and blotting them out would make a log unreadable."""
_IN_URL = re.compile(r"(?<=://)([^/\s@:]*):([^/\s@]+)(?=@)")
_TAIL_BYTES = 16 * 1024


class BuildLog:
    """Keeps the last `most` bytes; each line goes to `progress` as it comes.

    `hidden` are values that may show nowhere; of `settings`, only the credentials inside URLs.
    """

    def __init__(self, hidden: Iterable[str], settings: Iterable[str], progress: Progress, most: int) -> None:
        self._hidden = _credentials(list(hidden), list(settings))
        self._progress = progress
        self._most = most
        self._lines: deque[str] = deque()
        self._bytes = 0
        self._dropped = 0

    def line(self, text: str) -> None:
        text = self.blot(text)
        self._lines.append(text)
        self._bytes += len(text) + 1
        while self._bytes > self._most and len(self._lines) > 1:
            self._bytes -= len(self._lines.popleft()) + 1
            self._dropped += 1
        self._progress(text)

    def blot(self, text: str) -> str:
        """The text without credentials."""
        for value in self._hidden:
            text = text.replace(value, BLOT)
        return _IN_URL.sub(BLOT, text) if "://" in text else text

    def tail(self, lines: int) -> str:
        """The last lines, at most 16 KiB of them."""
        return "\n".join(list(self._lines)[-lines:])[-_TAIL_BYTES:]

    def whole(self) -> bytes:
        first = [f"({self._dropped} earlier lines are left out)"] if self._dropped else []
        return "".join(f"{line}\n" for line in [*first, *self._lines]).encode("utf-8", "replace")


def _credentials(hidden: list[str], settings: list[str]) -> list[str]:
    """Every form in which a credential may be printed, the longest first."""
    found = {line.strip() for value in hidden for line in value.splitlines()}
    found |= {match[2] for value in [*hidden, *settings] for match in _IN_URL.finditer(value)}
    found |= {form(value) for value in found for form in (unquote, _quoted)}
    return sorted((value for value in found if len(value) >= _SHORTEST), key=len, reverse=True)


def _quoted(value: str) -> str:
    return quote(value, safe="")
