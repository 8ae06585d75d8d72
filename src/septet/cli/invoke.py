"""`septet invoke`: one call, its body on standard output, its id on standard error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import click

from septet.cli.client import CHUNK, Problem, parse_problem
from septet.cli.exchange import Answer, BrokenAnswer
from septet.cli.failures import Exit, Failure
from septet.cli.options import Session, function_argument, parse_duration, with_session
from septet.cli.output import clean, note

BROKEN = "see `septet logs`"


@click.command(
    epilog='\b\nExamples:\n  septet invoke hello\n  septet invoke hello -d \'{"name": "Ada"}\'\n'
    "  septet invoke resize -d @photo.jpg --path /small > small.jpg\n  echo hi | septet invoke hello -d -\n"
    "  septet invoke hello@canary"
)
@function_argument
@click.option("-d", "--data", metavar="TEXT", help="The body: text, @FILE, or - for standard input.")
@click.option("-X", "--method", metavar="METHOD", help="[default: GET, POST with a body]")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="A header; repeatable.")
@click.option("--path", default="", help="Path below the function, with or without a query.")
@click.option("-i", "--include", is_flag=True, help="Show status and headers too.")
@click.option("--timeout", default="15m", show_default=True, metavar="TIME", help="The longest silence.")
@with_session
def command(
    session: Session,
    name: str,
    data: str | None,
    method: str | None,
    headers: tuple[str, ...],
    path: str,
    include: bool,
    timeout: str,
) -> None:
    """Call a function. NAME may carry a tag or a revision: hello@canary, hello@hello-00002.

    A call that fails says in one line where, why and what to do, and ends with code 7. When the function itself
    answers with a status of 400 or more, its body is still printed.
    """
    head = parse_headers(headers)
    body = open_body(data)
    if isinstance(body, bytes):
        head.setdefault("Content-Type", guess_type(body))
    with_port = f"/fn/{quote(session.namespace, safe='')}/{quote(name, safe='@')}/" + path.lstrip("/")
    response = session.client.send(
        (method or ("GET" if body is None else "POST")).upper(),
        with_port,
        data=body,
        headers=head,
        timeout=parse_duration(timeout),
    )
    with response:
        answer(response, include)


def answer(response: Answer, include: bool) -> None:
    """Prints the answer as it comes. Failure(FUNCTION) when the call failed."""
    invocation = clean(response.getheader("Septet-Invocation-Id") or "")
    kind = response.getheader("Content-Type") or ""
    if response.status >= 400 and kind.startswith("application/problem+json"):
        text = response.read(1024 * 1024)
        problem = parse_problem(response.status, response.reason, kind, text)
        if problem.stage:
            raise failed_call(problem, invocation)
        sys.stdout.buffer.write(text)
    if include:
        click.echo(f"HTTP/1.1 {response.status} {clean(response.reason)}")
        for key, value in response.getheaders():
            click.echo(f"{clean(key)}: {clean(value)}")
        click.echo()
    copy_body(response, invocation)
    if invocation:
        note(f"invocation {invocation}")
    if response.status >= 400:
        raise Failure(
            f"the function answered {response.status} {clean(response.reason)}" + suffix(invocation), code=Exit.FUNCTION
        )


def copy_body(response: Answer, invocation: str) -> None:
    """The body on standard output, piece by piece, each shown at once."""
    out = sys.stdout.buffer
    last = b"\n"
    try:
        while chunk := response.read1(CHUNK):
            out.write(chunk)
            out.flush()
            last = chunk
    except TimeoutError as error:
        raise Failure("the answer stopped coming" + suffix(invocation), code=Exit.TIMEOUT) from error
    except (OSError, BrokenAnswer) as error:
        raise Failure(
            "the answer broke off before its end" + suffix(invocation), hint=BROKEN, code=Exit.FUNCTION
        ) from error
    if response.length:
        raise Failure("the answer broke off before its end" + suffix(invocation), hint=BROKEN, code=Exit.FUNCTION)
    if sys.stdout.isatty() and not last.endswith(b"\n"):
        click.echo()


def failed_call(problem: Problem, invocation: str) -> Failure:
    """The one line: failed in <stage>: <why>: <what to do> (invocation <id>)."""
    parts = [f"failed in {clean(problem.stage)}", clean(problem.detail)]
    if problem.limit and problem.limit not in problem.detail:
        parts[1] += f" (limit: {clean(problem.limit)})"
    if problem.hint:
        parts.append(clean(problem.hint))
    exits = {401: Exit.DENIED, 403: Exit.DENIED, 404: Exit.NOT_FOUND}
    code = exits.get(problem.status, Exit.FUNCTION) if problem.stage == "route" else Exit.FUNCTION
    trace = problem.extras.get("trace") or problem.extras.get("log") or ""
    return Failure(": ".join(parts) + suffix(problem.invocation or invocation), code=code, more=str(trace))


def suffix(invocation: str) -> str:
    return f" (invocation {clean(invocation)})" if invocation else ""


def parse_headers(headers: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in headers:
        key, separator, value = line.partition(":")
        if not key.strip() or not separator:
            raise Failure(f"--header wants NAME: VALUE, not {line!r}", code=Exit.USAGE)
        found[key.strip().title()] = value.strip()
    return found


def open_body(data: str | None) -> bytes | BinaryIO | None:
    """The body to send: text, a file or standard input (both streamed), or none."""
    if data is None:
        return None
    if data == "-":
        return sys.stdin.buffer
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).open("rb")
    except OSError as error:
        raise Failure(f"{data[1:]} cannot be read: {error.strerror}", code=Exit.USAGE) from None


def guess_type(body: bytes) -> str:
    """JSON when it is a JSON object or list, else plain text."""
    import json

    if body[:1] in (b"{", b"["):
        try:
            json.loads(body)
        except ValueError:
            return "text/plain; charset=utf-8"
        return "application/json"
    return "text/plain; charset=utf-8"
