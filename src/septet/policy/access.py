"""Who may do what. There is no second place that decides it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from septet.model.access import Caller

INVOKE = "functions:invoke"

Reason = Literal["public", "granted", "anonymous", "expired", "namespace", "verb"]


class Access(NamedTuple):
    """`message` is a sentence for the one who was refused; it names nothing that they do not know."""

    allowed: bool
    reason: Reason
    message: str = ""


def decide(caller: Caller, verb: str, namespace: str, *, public: bool = False, now: float = 0.0) -> Access:
    """May `caller` do `verb` ("<resource>:<action>") in `namespace`?

    An empty namespace is the whole platform and takes a caller of all namespaces. `public` is the function's
    own word and opens calls alone. `now` is in epoch seconds, as the caller's `expires_at` (0: never).
    """
    if public and verb == INVOKE:
        return Access(True, "public")
    if not caller.namespaces or not caller.verbs:
        return Access(False, "anonymous", f"{verb} needs a token")
    if caller.expires_at and now >= caller.expires_at:
        return Access(False, "expired", f"the token {caller.name!r} has expired")
    if not _namespace_granted(caller.namespaces, namespace):
        where = f"namespace {namespace!r}" if namespace else "the whole platform"
        return Access(False, "namespace", f"the token {caller.name!r} does not reach {where}")
    if not any(covers(granted, verb) for granted in caller.verbs):
        return Access(False, "verb", f"the token {caller.name!r} does not allow {verb}")
    return Access(True, "granted")


def _namespace_granted(granted: tuple[str, ...], namespace: str) -> bool:
    return "*" in granted or (namespace != "" and namespace in granted)


def covers(granted: str, verb: str) -> bool:
    """Does the granted verb, which may hold "*" for the resource or the action or stand alone, include `verb`?"""
    if granted == "*":
        return True
    granted_resource, separator, granted_action = granted.partition(":")
    resource, _, action = verb.partition(":")
    return bool(separator) and granted_resource in ("*", resource) and granted_action in ("*", action)


def within(asked: tuple[str, ...], caller: Caller) -> tuple[str, ...]:
    """Those of the asked verbs that the caller does not have: nobody hands on more than they hold."""
    return tuple(verb for verb in asked if not any(_includes(granted, verb) for granted in caller.verbs))


def _includes(granted: str, asked: str) -> bool:
    """As `covers`, where `asked` may hold "*" too."""
    if granted == "*":
        return True
    if asked == "*":
        return False
    return covers(granted, asked)
