"""Who is calling."""

from __future__ import annotations

import msgspec

from septet.model.objects import Quota


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The authenticated caller of a command or a call.

    `name` is the token's name ("admin", "instance:<id>", "anonymous"); `namespaces` and `verbs` may hold "*".
    `remote` is where the request came from, for the audit log. `account` is that token and those that it came from:
    what they apply counts towards the quota of each. `rates` are the names and quotas of those of them that may
    make only so many calls a second.
    """

    name: str
    namespaces: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    expires_at: float = 0.0
    quota: Quota = Quota()
    remote: str = ""
    account: tuple[str, ...] = ()
    rates: tuple[tuple[str, Quota], ...] = ()


ANONYMOUS = Caller(name="anonymous")
PLATFORM = Caller(name="platform", namespaces=("*",), verbs=("*",))
