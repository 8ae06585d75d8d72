"""How long a connection's other side may take: slow senders, half-closed clients, silent tunnels. In loop time."""

from __future__ import annotations

import math

from septet.dataplane.dispatch import FrontSettings


class Patience:
    """One per connection. `due` is when to look again, infinity for never."""

    __slots__ = ("_body", "_half", "_seen", "_sent", "_settings")

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._body = math.inf
        self._half = math.inf
        self._seen = 0
        self._sent = 0

    @property
    def due(self) -> float:
        return min(self._body, self._half)

    def clear(self) -> None:
        """Nothing is awaited from the client."""
        self._body = self._half = math.inf

    def await_body(self, now: float, taken: int) -> None:
        """A body is read now, `taken` bytes of it so far; the next span begins."""
        self._seen = taken
        self._body = now + self._settings.body_window

    def body_complete(self) -> None:
        self._body = math.inf

    def is_slow(self, now: float, taken: int, held_back: bool) -> bool:
        """Whether a span ended that brought too little; when it brought enough the next one begins. A body that
        the platform itself holds back is never slow."""
        if self._body > now:
            return False
        brought = taken - self._seen
        self.await_body(now, taken)
        return not held_back and brought < self._settings.body_rate * self._settings.body_window

    def await_tunnel(self, now: float, moved: int) -> None:
        """The connection is a tunnel; `moved` counts its bytes, both ways together."""
        self._seen = moved
        self._body = now + self._settings.tunnel_idle

    def is_silent(self, now: float, moved: int) -> bool:
        """Whether the tunnel moved nothing for as long as it may."""
        if self._body > now:
            return False
        if moved == self._seen:
            return True
        self.await_tunnel(now, moved)
        return False

    def await_news(self, now: float, sent: int) -> None:
        """The client closed its sending side: it is gone, or it reads on. `sent` bytes were sent so far."""
        self._sent = sent
        self._half = now + self._settings.half_close_grace

    def is_gone(self, now: float, sent: int) -> bool:
        """Whether nothing was sent since, so that nothing shows that the client is still there."""
        if self._half > now:
            return False
        if sent == self._sent:
            return True
        self.await_news(now, sent)
        return False
