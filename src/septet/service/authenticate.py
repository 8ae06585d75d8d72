"""From a credential's text to a caller."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence

from septet.model.access import Caller
from septet.model.errors import Expired, Unauthenticated
from septet.model.objects import Quota, Token
from septet.ports.clock import Clock
from septet.ports.store import Change, Store

PREFIX = "sept_"
_SHAPE = re.compile(r"sept_[A-Za-z0-9_-]{43}")
RECENT = 1024
"""So many credentials that passed are remembered, until any token changes."""
_HINT = "send `Authorization: Bearer sept_...`; `septet token create` makes a token"


def new_token() -> str:
    """256 random bits as text."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(text: str) -> str:
    """How a token is stored: SHA-256 in hex. A random token of 256 bits needs no slower function."""
    return hashlib.sha256(text.encode()).hexdigest()


class Credentials:
    """Every token by its hash, in memory, kept current by the store's watch.

    A look-up goes by the hash of what was sent, so that its time tells nothing of any token's text.
    """

    def __init__(self, store: Store, clock: Clock, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called whenever a token may mean something else than before."""
        self._store = store
        self._clock = clock
        self._changed = changed
        self._tokens: dict[str, Token] = {}
        self._hashes: dict[str, str] = {}
        self._seen: dict[str, int] = {}
        self._recent: dict[str, Caller] = {}
        self.synced = asyncio.Event()

    async def load(self) -> int:
        """Reads all tokens; returns the store's version that they are of."""
        page = await self._store.page("Token")
        self.replace([obj for obj in page.items if isinstance(obj, Token)])
        self.synced.set()
        return page.version

    def replace(self, tokens: Sequence[Token]) -> None:
        """These are all tokens that there are."""
        self._tokens.clear()
        self._hashes.clear()
        self._recent.clear()
        self._changed()
        self._seen.clear()
        for token in tokens:
            self._take(token)

    async def run(self) -> None:
        """Follows the store until its watch ends; after `Expired` reads all again."""
        while True:
            version = await self.load()
            try:
                async for change in self._store.watch(version, frozenset({"Token"})):
                    self.apply(change)
            except Expired:
                continue
            return

    def apply(self, change: Change) -> None:
        if not isinstance(change.obj, Token):
            return
        if change.type == "delete":
            self.forget(change.obj, change.version)
        else:
            self.learn(change.obj)

    def learn(self, token: Token) -> None:
        """Takes a token in; a service that has just written one need not wait for the watch."""
        self._take(token)

    async def settled(self) -> None:
        """Returns when what was learnt and forgotten until now is in effect wherever calls are admitted."""

    def _take(self, token: Token) -> None:
        if token.meta.resource_version < self._seen.get(token.meta.name, 0):
            return
        self._recent.clear()
        self._changed()
        self._seen[token.meta.name] = token.meta.resource_version
        old = self._hashes.get(token.meta.name)
        if old is not None:
            self._tokens.pop(old, None)
        self._tokens[token.spec.sha256] = token
        self._hashes[token.meta.name] = token.spec.sha256

    def forget(self, token: Token, version: int = 0) -> None:
        """The token is worth nothing from now on. `version` is the deletion's, when it is known."""
        known = self._hashes.get(token.meta.name)
        if known != token.spec.sha256:
            return
        self._recent.clear()
        self._changed()
        del self._hashes[token.meta.name]
        self._tokens.pop(known, None)
        # A late report of the token's own writes must not bring it back; a new one of that name has a higher version.
        self._seen[token.meta.name] = max(version, token.meta.resource_version + 1)

    def authenticate(self, text: str, remote: str = "") -> Caller:
        """The caller whose token `text` is. Raises Unauthenticated, saying whether it is unknown or expired."""
        if not remote:
            recent = self._recent.get(text)
            if recent is not None and not (recent.expires_at and self._clock.wall() >= recent.expires_at):
                return recent
        if not _SHAPE.fullmatch(text):
            raise Unauthenticated("that is no token of this platform: one begins with sept_", hint=_HINT)
        hashed = digest(text)
        token = self._tokens.get(hashed)
        if token is None or not hmac.compare_digest(token.spec.sha256, hashed):
            raise Unauthenticated("the token is unknown here: it was deleted, or is another platform's", hint=_HINT)
        if token.spec.expires_at and self._clock.wall() >= token.spec.expires_at:
            raise Unauthenticated(
                f"the token {token.meta.name!r} has expired",
                hint="ask for a new one: `septet token create`",
                details={"reason": "expired"},
            )
        spec = token.spec
        account = (token.meta.name, *token.meta.applied_by)
        caller = Caller(
            name=token.meta.name,
            namespaces=spec.namespaces,
            verbs=spec.verbs,
            expires_at=spec.expires_at,
            quota=spec.quota,
            remote=remote,
            account=account,
            rates=tuple((name, quota) for name in account if (quota := self.quota(name)).requests),
        )
        if not remote:
            if len(self._recent) >= RECENT:
                self._recent.clear()
            self._recent[text] = caller
        return caller

    def quota(self, name: str) -> Quota:
        """What the token of that name is held to; nothing when it is gone."""
        token = self._tokens.get(self._hashes.get(name, ""))
        return token.spec.quota if token is not None else Quota()

    def bearer(self, header: str, remote: str = "") -> Caller:
        """The caller of an Authorization header's value; an empty one raises Unauthenticated too."""
        if not header:
            raise Unauthenticated("this needs a token, and none was sent", hint=_HINT)
        scheme, _, text = header.strip().partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise Unauthenticated(f"the Authorization scheme {scheme[:20]!r} is not known here", hint=_HINT)
        return self.authenticate(text.strip(), remote)
