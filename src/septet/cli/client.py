"""The client of the native API: HTTP over TCP, TLS or a unix socket, and errors as one line each.

Only standard library, and nothing that needs an event loop: a client command has to start within 100 ms.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlencode, urlsplit

from septet.cli import exchange
from septet.cli.exchange import Answer, Body, BrokenAnswer
from septet.cli.failures import Exit, Failure, exit_for_status

API = "/septet/v1"
CONNECT_TIMEOUT = 5.0
CHUNK = 64 * 1024
PROBLEM_MAX = 1024 * 1024


@dataclass(frozen=True)
class Target:
    """Where the platform is and how to be let in. `url` is http://, https:// or unix:///path/of/socket.

    `ca` is a file of certificates to trust instead of the system's.
    """

    url: str
    token: str = ""
    ca: str = ""


@dataclass(frozen=True)
class Problem:
    """An application/problem+json answer; `code` is the last part of its type."""

    status: int
    code: str
    detail: str
    stage: str = ""
    limit: str = ""
    hint: str = ""
    invocation: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)

    def failure(self) -> Failure:
        return Failure(
            self.detail, hint=self.hint, code=exit_for_status(self.status), more=str(self.extras.get("log", ""))
        )


class Client:
    """One connection per request; requests are few, and a command may stream two answers side by side."""

    def __init__(self, target: Target, *, timeout: float = 60.0) -> None:
        self.target = target
        self.timeout = timeout
        parts = urlsplit(target.url)
        if parts.scheme not in ("http", "https", "unix") or not (parts.netloc or parts.scheme == "unix"):
            raise Failure(
                f"{target.url!r} is not an address of the platform",
                hint="use http://HOST:PORT, https://HOST:PORT or unix:///PATH",
                code=Exit.USAGE,
            )
        self._parts = parts
        self._prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")

    # -- requests ---------------------------------------------------------------------------------------------

    def get(self, path: str, **query: object) -> Any:
        """GET below /septet/v1, decoded."""
        return self.call("GET", path, query=query)

    def put(self, path: str, body: object, **query: object) -> Any:
        """PUT a JSON value below /septet/v1; the decoded answer."""
        return self.call("PUT", path, body=body, query=query)

    def post(self, path: str, body: object = None, **query: object) -> Any:
        """POST a JSON value below /septet/v1; the decoded answer."""
        return self.call("POST", path, body=body, query=query)

    def delete(self, path: str, **query: object) -> Any:
        """DELETE below /septet/v1; the decoded answer, or None when it has no body."""
        return self.call("DELETE", path, query=query)

    def call(self, method: str, path: str, *, body: object = None, query: Mapping[str, object] | None = None) -> Any:
        """One JSON exchange. Failure when the platform refuses, or is not there."""
        headers = {"Accept": "application/json"}
        data: bytes | None = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = "application/json"
        response = self.send(method, API + path, data=data, headers=headers, query=query)
        with response:
            self.check(response)
            text = self._read(response)
        if not text:
            return None
        if "json" not in (response.getheader("Content-Type") or "json"):
            return text.decode("utf-8", "replace")
        try:
            return json.loads(text)
        except ValueError:
            raise Failure(
                f"{self.target.url} answered {method} {API + path} with something else than JSON",
                hint="is this really the platform?",
            ) from None

    def items(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """All objects of a paged list, page by page."""
        cursor = ""
        while True:
            page = self.get(path, **{**query, "cursor": cursor})
            yield from page["items"]
            cursor = page.get("cursor") or ""
            if not cursor:
                return

    def lines(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """A streamed answer of one JSON value a line; empty lines say that the platform is still there.

        Failure when its last line is an error, or when nothing comes for the client's timeout.
        """
        headers = {"Accept": "application/x-ndjson"}
        response = self.send("GET", API + path, headers=headers, query=query)
        with response:
            self.check(response)
            while line := self._readline(response):
                if line.strip():
                    value = json.loads(line)
                    if value.keys() == {"error"}:
                        raise problem_of(value["error"]).failure()
                    yield value

    def upload(self, path: str, source: BinaryIO, size: int) -> Any:
        """POST of raw bytes from an open file."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        response = self.send("POST", API + path, data=source, headers=headers)
        with response:
            self.check(response)
            return json.loads(self._read(response))

    def exists(self, path: str) -> bool:
        """Whether there is something at the path. Failure when that cannot be told."""
        try:
            self.get(path)
        except Failure as failure:
            if failure.code == Exit.NOT_FOUND:
                return False
            raise
        return True

    # -- the exchange -----------------------------------------------------------------------------------------

    def send(
        self,
        method: str,
        path: str,
        *,
        data: Body | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        timeout: float | None = -1,
    ) -> Answer:
        """Sends one request and returns the answer with its head read; the caller reads and closes it."""
        given = {key: str(value) for key, value in (query or {}).items() if value not in (None, "", False)}
        if given:
            path += ("&" if "?" in path else "?") + urlencode(given)
        head = {"User-Agent": "septet-cli", "Connection": "close", **(headers or {})}
        if self.target.token:
            head.setdefault("Authorization", f"Bearer {self.target.token}")
        link: socket.socket | None = None
        try:
            link, host = self._connect()
            link.settimeout(self.timeout if timeout == -1 else timeout)
            # The platform may refuse an upload before it has read it all: its answer is still there to read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                exchange.send_request(link, method, self._prefix + path, exchange.header_list(head, host), data)
            return Answer(link, method)
        except BaseException as error:
            if link is not None:
                link.close()
            if isinstance(error, TimeoutError):
                raise self._timeout(link is not None) from error
            if isinstance(error, OSError | BrokenAnswer):
                raise self._unreachable(error) from error
            if isinstance(error, ValueError):
                raise Failure(str(error), code=Exit.USAGE) from error
            raise

    def check(self, response: Answer) -> None:
        """Raises the Failure that an answer of 400 or more means."""
        if response.status >= 400:
            raise self.problem(response).failure()

    def problem(self, response: Answer) -> Problem:
        """The problem that an answer describes; of another answer, its status and the first line of its text."""
        return parse_problem(
            response.status, response.reason, response.getheader("Content-Type") or "", response.read(PROBLEM_MAX)
        )

    def _connect(self) -> tuple[socket.socket, str]:
        """A connection, and what to call the other side in Host."""
        parts = self._parts
        if parts.scheme == "unix":
            return exchange.connect_unix(unquote(parts.netloc + parts.path), CONNECT_TIMEOUT), "localhost"
        host = parts.hostname or ""
        try:
            port = parts.port
        except ValueError as error:
            raise Failure(f"{self.target.url!r} has no usable port: {error}", code=Exit.USAGE) from None
        shown = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        if not shown.isascii():
            shown = shown.encode("idna").decode()
        link = exchange.connect(host, port or (443 if parts.scheme == "https" else 80), CONNECT_TIMEOUT)
        if parts.scheme == "http":
            return link, shown
        try:
            return exchange.secure(link, host, self.target.ca), shown
        except BaseException:
            link.close()
            raise

    def _read(self, response: Answer) -> bytes:
        try:
            return response.read()
        except TimeoutError as error:
            raise self._timeout(True) from error
        except (OSError, BrokenAnswer) as error:
            raise self._unreachable(error) from error

    def _readline(self, response: Answer) -> bytes:
        try:
            return response.readline()
        except TimeoutError as error:
            raise self._timeout(True) from error
        except (OSError, BrokenAnswer) as error:
            raise self._unreachable(error) from error

    def _timeout(self, connected: bool) -> Failure:
        if connected:
            return Failure(f"{self.target.url} did not answer in time", code=Exit.TIMEOUT)
        return Failure(
            f"{self.target.url} does not take connections", hint="is `septet up` running?", code=Exit.UNREACHABLE
        )

    def _unreachable(self, error: Exception) -> Failure:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if type(error).__name__ == "SSLCertVerificationError":
            return Failure(
                f"the certificate of {self.target.url} is not trusted: {why}",
                hint="name its authority with `septet context set NAME --ca FILE` or SEPTET_CA",
                code=Exit.UNREACHABLE,
            )
        return Failure(
            f"cannot reach the platform at {self.target.url} ({why})",
            hint="start it with `septet up`, or set SEPTET_URL",
            code=Exit.UNREACHABLE,
        )


def parse_problem(status: int, reason: str, content_type: str, body: bytes) -> Problem:
    """Reads problem+json; anything else becomes its status and the first line of its text."""
    if "json" in content_type:
        try:
            data = json.loads(body)
        except ValueError:
            data = None
        if isinstance(data, dict) and "type" in data:
            return problem_of({"title": reason, **data, "status": status})
    text = body.decode("utf-8", "replace").strip().splitlines()
    return Problem(
        status=status,
        code="",
        detail=f"the platform answered {status} {reason}" + (f": {text[0][:200]}" if text else ""),
    )


def problem_of(data: Mapping[str, Any]) -> Problem:
    """The problem in a decoded problem+json object."""
    known = ("type", "title", "status", "detail", "stage", "limit", "hint", "invocation")
    return Problem(
        status=int(data.get("status") or 0),
        code=str(data.get("type") or "").rsplit(":", 1)[-1],
        detail=str(data.get("detail") or data.get("title") or "it gave no reason"),
        stage=str(data.get("stage") or ""),
        limit=str(data.get("limit") or ""),
        hint=str(data.get("hint") or ""),
        invocation=str(data.get("invocation") or ""),
        extras={key: value for key, value in data.items() if key not in known},
    )


def name_in_path(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def in_namespace(namespace: str, plural: str, name: str = "", *rest: str) -> str:
    """`/namespaces/<ns>/<plural>[/<name>[/<rest>...]]`, each part encoded."""
    parts = ["namespaces", namespace, plural, *([name] if name else []), *rest]
    return "/" + "/".join(name_in_path(part) for part in parts)
