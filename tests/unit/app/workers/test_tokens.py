"""Tokens where several processes admit calls."""

from __future__ import annotations

from typing import Any, cast

from septet.app.workers.messages import Changed, Message, Tokens
from septet.app.workers.tokens import SharedCredentials
from septet.drivers.clock.system import SystemClock
from septet.model.meta import Meta
from septet.model.objects import Token, TokenSpec, kind_of
from septet.ports.store import Change
from septet.service.authenticate import Credentials, digest, new_token


def token(name: str, text: str, version: int = 1) -> Token:
    spec = TokenSpec(sha256=digest(text), namespaces=("*",), verbs=("*",))
    return Token(meta=Meta(name=name, resource_version=version), spec=spec)


class Elsewhere:
    """A worker's credentials, told what was sent to it."""

    def __init__(self) -> None:
        self.known = Credentials(cast("Any", None), SystemClock())

    def told(self, message: Message) -> None:
        if isinstance(message, Tokens):
            self.known.replace(message.tokens)
        elif isinstance(message, Changed):
            obj = message.object
            self.known.apply(Change(message.version, "delete" if message.deleted else "put", kind_of(obj), obj))

    def knows(self, text: str) -> bool:
        try:
            self.known.authenticate(text)
        except Exception:
            return False
        return True


async def test_what_is_learnt_and_forgotten_here_is_so_there() -> None:
    there, settled = Elsewhere(), cast("list[int]", [])

    async def settle() -> None:
        settled.append(1)

    here = SharedCredentials(cast("Any", None), SystemClock(), lambda: None, there.told, settle)
    one, two = new_token(), new_token()
    here.replace([token("one", one)])
    here.learn(token("two", two, 2))
    assert there.knows(one) and there.knows(two)
    here.forget(token("one", one))
    assert not there.knows(one) and there.knows(two)
    # A late report of the token's own write does not bring it back.
    here.learn(token("one", one))
    assert not there.knows(one)
    await here.settled()
    assert settled == [1]


async def test_a_worker_that_begins_and_a_list_read_again_know_no_more_than_there_is() -> None:
    there = Elsewhere()

    async def settle() -> None: ...

    here = SharedCredentials(cast("Any", None), SystemClock(), lambda: None, lambda _: None, settle)
    one, two = new_token(), new_token()
    here.learn(token("one", one))
    here.learn(token("two", two))
    there.told(here.all())
    assert there.knows(one) and there.knows(two)
    here.replace([token("two", two)])
    there.told(here.all())
    assert not there.knows(one) and there.knows(two)
