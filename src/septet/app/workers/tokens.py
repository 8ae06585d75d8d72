"""Tokens that all workers know: a change is in effect everywhere before anybody is told that it was made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from septet.app.workers.messages import Changed, Message, Tokens
from septet.model.objects import Token
from septet.ports.clock import Clock
from septet.ports.store import Store
from septet.service.authenticate import Credentials


class SharedCredentials(Credentials):
    """`tell` sends to every worker, `settle` returns when all have taken in what was sent."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        changed: Callable[[], None],
        tell: Callable[[Message], None],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(store, clock, changed)
        self._tell = tell
        self._settle = settle

    def replace(self, tokens: Sequence[Token]) -> None:
        super().replace(tokens)
        self._tell(self.all())

    def learn(self, token: Token) -> None:
        super().learn(token)
        self._tell(Changed(token.meta.resource_version, False, token))

    def forget(self, token: Token, version: int = 0) -> None:
        super().forget(token, version)
        self._tell(Changed(version, True, token))

    async def settled(self) -> None:
        await self._settle()

    def all(self) -> Tokens:
        """For a worker that begins."""
        return Tokens(tuple(self._tokens.values()))
