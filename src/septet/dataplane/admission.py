"""May this call come in: who sends it, may they, and is it within the rates of the namespace and of the token."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from septet.dataplane.table import FunctionEntry, Table
from septet.model.access import ANONYMOUS, Caller
from septet.model.errors import Forbidden, QuotaExceeded, Unauthenticated
from septet.model.objects import Quota
from septet.policy import access, admission
from septet.wire.http1 import RequestHeadFacts

AUTHORIZATION = frozenset((b"authorization",))
_SERIES_MAX = 100_000


class Sender(NamedTuple):
    """`credential` says that the head carried a token of the platform, which the function must not see."""

    caller: Caller
    credential: bool


class Admission:
    """Rates are kept in memory; they begin anew with the process."""

    def __init__(
        self,
        table: Table,
        authenticate: Callable[[str], Caller],
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._table = table
        self._authenticate = authenticate
        self._now = now
        self._wall = wall
        self._arrivals: dict[str, float] = {}

    def sender(self, head: RequestHeadFacts, remote: str) -> Sender:
        """Who sends it. Raises Unauthenticated for a platform token that is unknown or has expired; any other
        Authorization line is the function's business."""
        value = head.fields.get(b"authorization")
        if value is None:
            return Sender(ANONYMOUS, False)
        scheme, _, text = value.partition(b" ")
        if scheme.lower() != b"bearer" or not text.strip().startswith(b"sept_"):
            return Sender(ANONYMOUS, False)
        return Sender(self._authenticate(text.strip().decode("latin-1")), True)

    def admit(self, sender: Sender, function: FunctionEntry) -> bool:
        """Whether a rate was counted, so that the next call may fare otherwise. Raises Unauthenticated, Forbidden,
        QuotaExceeded."""
        verdict = access.decide(
            sender.caller, access.INVOKE, function.namespace, public=function.public, now=self._wall()
        )
        if not verdict.allowed:
            if verdict.reason in ("anonymous", "expired"):
                raise Unauthenticated(
                    f"calling {function.name!r} needs a token",
                    hint="send `Authorization: Bearer <token>`, or deploy it with `access: public`",
                )
            raise Forbidden(verdict.message, hint="ask for a token with the verb functions:invoke")
        quota = self._table.quota(function.namespace)
        rates = sender.caller.rates
        if not (quota.requests or rates):
            return False
        held = [(f"namespace {function.namespace}", quota)] if quota.requests else []
        self._count(held + [(f"token {name}", quota) for name, quota in rates])
        return True

    def _count(self, held: list[tuple[str, Quota]]) -> None:
        """Counts the call for each owner of a rate, or, when one of them has no more, for none; QuotaExceeded."""
        if len(self._arrivals) > _SERIES_MAX:
            self._arrivals.clear()
        now = self._now()
        arrivals: dict[str, float] = {}
        for owner, quota in held:
            rate = admission.Rate(quota.requests, quota.burst)
            verdict, arrivals[owner] = admission.admit(rate, self._arrivals.get(owner, 0.0), now)
            if not verdict.allowed:
                raise QuotaExceeded(
                    f"{owner} may make {quota.requests:g} calls a second",
                    hint="slow down, or raise the quota",
                    limit=f"requests {quota.requests:g}/s",
                    retry_after=verdict.retry_after,
                )
        self._arrivals.update(arrivals)
