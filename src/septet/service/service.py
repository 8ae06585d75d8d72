"""One way in for every face: access, validation, the handler, the audit log."""

from __future__ import annotations

import logging
from typing import Any, TypeVar, cast

from septet.model.access import ANONYMOUS, PLATFORM, Caller
from septet.model.errors import Forbidden, SeptetError, Unauthenticated
from septet.policy import access
from septet.service.authenticate import Credentials
from septet.service.claims import Claims
from septet.service.commands import Command, CreateToken, Named
from septet.service.context import Context, Ports, ServiceSettings
from septet.service.handlers import HANDLERS
from septet.service.namespaces import finish_deletions

log = logging.getLogger("septet.service")
HOUSE_PERIOD = 2.0
"""Seconds between two looks at namespaces that are being deleted."""
REFUSED_PERIOD = 10.0
REFUSED_MOST = 1000

Result = TypeVar("Result")


class Service:
    """Runs commands. It holds no state of its own but what `credentials` and `claims` keep in memory."""

    def __init__(self, ports: Ports, settings: ServiceSettings, credentials: Credentials) -> None:
        self._ports = ports
        self._settings = settings
        self.credentials = credentials
        self._claims = Claims(ports.store)
        self._refused: dict[str, float] = {}

    async def run(self, caller: Caller, command: Command[Result]) -> Result:
        """Does what `command` asks, if the caller may.

        Raises Unauthenticated, Forbidden, and what the handler raises. A command that answers with an iterator
        has been checked and has found its place when this returns; the iterator may raise too.
        """
        kind = type(command)
        try:
            for namespace in _namespaces(caller, command):
                self._check(caller, kind, namespace)
        except (Unauthenticated, Forbidden) as error:
            await self._audit(caller, kind, command.namespace, _name(command), error)
            raise
        context = Context(caller, self._ports, self._settings, self.credentials, self._claims)
        try:
            result = await HANDLERS[kind](context, command)
        except Exception as error:
            if kind.mutates or isinstance(error, Forbidden | Unauthenticated):
                await self._audit(caller, kind, command.namespace, _name(command), error)
            raise
        if kind.mutates and not getattr(command, "dry_run", False):
            await self._audit(caller, kind, command.namespace, _name(command), None)
        return cast("Result", result)

    async def keep_house(self) -> None:
        """Finishes the deletion of namespaces, for ever. A pass that fails is tried again."""
        context = Context(PLATFORM, self._ports, self._settings, self.credentials, self._claims)
        while True:
            try:
                await finish_deletions(context)
            except SeptetError as error:
                log.warning("namespaces that are being deleted have to wait: %s", error)
            await self._ports.clock.sleep(HOUSE_PERIOD)

    async def admit(self, caller: Caller, kind: type[Command[Any]], namespace: str, name: str = "") -> None:
        """Refuses early, before a body is read, what `run` would refuse for the same reason."""
        try:
            for where in _reached(caller, kind, namespace):
                self._check(caller, kind, where)
        except (Unauthenticated, Forbidden) as error:
            await self._audit(caller, kind, namespace, name, error)
            raise

    async def refused(self, remote: str, what: str, error: Unauthenticated) -> None:
        """Audits a request without a good credential: of one sender at most one in `REFUSED_PERIOD` seconds, so
        that nobody fills the log from outside."""
        now = self._ports.clock.wall()
        if now - self._refused.get(remote, 0.0) < REFUSED_PERIOD:
            return
        if len(self._refused) >= REFUSED_MOST:
            self._refused.clear()
        self._refused[remote] = now
        await self._record(ANONYMOUS.name, remote, what, "", "", "", error)

    def _check(self, caller: Caller, kind: type[Command[Any]], namespace: str) -> None:
        verdict = access.decide(caller, kind.verb, namespace, now=self._ports.clock.wall())
        if verdict.allowed:
            return
        if verdict.reason in ("anonymous", "expired"):
            raise Unauthenticated(verdict.message, hint="send `Authorization: Bearer sept_...`")
        raise Forbidden(verdict.message, hint="`septet token create` makes one that may", details={"verb": kind.verb})

    async def _audit(
        self, caller: Caller, kind: type[Command[Any]], namespace: str, name: str, error: Exception | None
    ) -> None:
        await self._record(caller.name, caller.remote, kind.__name__, kind.verb, namespace, name, error)

    async def _record(
        self, who: str, remote: str, what: str, verb: str, namespace: str, name: str, error: Exception | None
    ) -> None:
        outcome, message = "ok", ""
        if error is not None:
            # What an unforeseen exception says may hold anything, so only its class is written down.
            outcome, message = "internal", type(error).__name__
        if isinstance(error, SeptetError):
            outcome, message = error.code, error.message
        await self._ports.store.record_audit(
            {
                "at": self._ports.clock.wall(),
                "who": who,
                "what": what,
                "verb": verb,
                "namespace": namespace,
                "name": name,
                "remote": remote,
                "outcome": outcome,
                "message": message,
            }
        )


def _name(command: Command[Any]) -> str:
    return command.name if isinstance(command, Named) else ""


def _namespaces(caller: Caller, command: Command[Any]) -> tuple[str, ...]:
    """Where the command's verb must be held: in each of these."""
    if isinstance(command, CreateToken):
        return tuple("" if name == "*" else name for name in command.namespaces) or ("",)
    return _reached(caller, type(command), command.namespace)


def _reached(caller: Caller, kind: type[Command[Any]], namespace: str) -> tuple[str, ...]:
    if kind.reach == "platform":
        return ("",)
    if kind.reach in ("visible", "granted"):
        # Held anywhere is enough to ask; any of the caller's own namespaces stands for it.
        own = next((name for name in caller.namespaces if name != "*"), "")
        return ("" if "*" in caller.namespaces else own,)
    return (namespace,)
