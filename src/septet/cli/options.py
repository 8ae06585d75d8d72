"""Options that several verbs share, and the session they make: one client in one namespace."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from septet.cli.client import Client, Target, in_namespace
from septet.cli.contexts import choose_context
from septet.cli.failures import Exit, Failure
from septet.cli.output import FORMATS

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Session:
    """What a client command works with."""

    client: Client
    namespace: str

    def path(self, plural: str, name: str = "", *rest: str) -> str:
        """The path of a collection or an object in the session's namespace."""
        return in_namespace(self.namespace, plural, name, *rest)


def open_session(context: str = "", namespace: str = "", *, timeout: float = 60.0) -> Session:
    """A session from the environment and the context file; a given namespace wins."""
    chosen = choose_context(context)
    client = Client(Target(url=chosen.url, token=chosen.token, ca=chosen.ca), timeout=timeout)
    return Session(client=client, namespace=namespace or chosen.namespace)


def with_session(command: F) -> F:
    """Adds --context and --namespace; the command gets a `session`."""

    @click.option("--context", metavar="NAME", default="", help="The platform to talk to.  [env: SEPTET_CONTEXT]")
    @click.option("-n", "--namespace", metavar="NS", default="", help="The namespace.  [env: SEPTET_NAMESPACE]")
    @functools.wraps(command)
    def wrapped(*args: Any, context: str, namespace: str, **kwargs: Any) -> Any:
        return command(*args, session=open_session(context, namespace), **kwargs)

    return wrapped  # type: ignore[return-value]


def with_output(command: F) -> F:
    """Adds -o/--output; the command gets `form`."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to show it."
    )(command)


def with_yes(command: F) -> F:
    """Adds --yes; the command gets `yes`."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


def confirm(question: str, yes: bool) -> None:
    """Asks on a terminal; elsewhere nobody can answer, so --yes must have been given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(
            f"not done: {question.rstrip('?')}", hint="pass --yes, there is no terminal to ask", code=Exit.USAGE
        )
    if not click.confirm(question, err=True):
        raise Failure("not done", code=Exit.FAILED)


def complete_functions(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Function names for the shell's completion; nothing when the platform does not answer at once."""
    given = ctx.params
    try:
        session = open_session(given.get("context") or "", given.get("namespace") or "", timeout=0.2)
        return [
            item["meta"]["name"]
            for item in session.client.items(session.path("functions"))
            if item["meta"]["name"].startswith(incomplete)
        ]
    except (Failure, KeyError):
        return []


def function_argument(command: F) -> F:
    """The argument NAME: one function, completed by the shell; the command gets `name`."""
    return click.argument("name", shell_complete=complete_functions)(command)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Seconds of "30s", "5m", "1h30m", "2d" or a plain number. Failure for anything else."""
    import re

    try:
        return float(text)
    except ValueError:
        pass
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise Failure(f"{text!r} is not a duration", hint="use 30s, 5m, 1h30m or 2d", code=Exit.USAGE)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
