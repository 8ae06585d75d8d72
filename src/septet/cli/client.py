"""The client of the native API: http.client over TCP, TLS or a unix socket, and errors as one line each.

Only standard library, and nothing that needs an event loop: a client command has to start within 100 ms.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlencode, urlsplit

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


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


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
        data: bytes | BinaryIO | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        timeout: float | None = -1,
    ) -> http.client.HTTPResponse:
        """Sends one request and returns the answer with its head read; the caller reads and closes it."""
        given = {key: str(value) for key, value in (query or {}).items() if value not in (None, "", False)}
        if given:
            path += ("&" if "?" in path else "?") + urlencode(given)
        head = {"User-Agent": "septet-cli", "Connection": "close", **(headers or {})}
        if self.target.token:
            head.setdefault("Authorization", f"Bearer {self.target.token}")
        connection = self._connection(CONNECT_TIMEOUT)
        try:
            connection.connect()
            connection.sock.settimeout(self.timeout if timeout == -1 else timeout)
            try:
                connection.request(method, self._prefix + path, body=data, headers=head)
            except (BrokenPipeError, ConnectionResetError):
                # The platform may refuse an upload before it has read it all: its answer is still there to read.
                if connection.sock is None:
                    raise
            return connection.getresponse()
        except TimeoutError as error:
            connected = connection.sock is not None
            connection.close()
            raise self._timeout(connected) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error

    def check(self, response: http.client.HTTPResponse) -> None:
        """Raises the Failure that an answer of 400 or more means."""
        if response.status >= 400:
            raise self.problem(response).failure()

    def problem(self, response: http.client.HTTPResponse) -> Problem:
        """The problem that an answer describes; of another answer, its status and the first line of its text."""
        return parse_problem(
            response.status, response.reason, response.getheader("Content-Type") or "", response.read(PROBLEM_MAX)
        )

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = self._parts
        if parts.scheme == "unix":
            return UnixConnection(unquote(parts.netloc + parts.path), timeout)
        host = parts.hostname or ""
        try:
            port = parts.port
        except ValueError as error:
            raise Failure(f"{self.target.url!r} has no usable port: {error}", code=Exit.USAGE) from None
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port or 80, timeout=timeout)
        import ssl

        trust = ssl.create_default_context(cafile=self.target.ca or None)
        return http.client.HTTPSConnection(host, port or 443, timeout=timeout, context=trust)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except TimeoutError as error:
            raise self._timeout(True) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error

    def _readline(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.readline()
        except TimeoutError as error:
            raise self._timeout(True) from error
        except (OSError, http.client.HTTPException) as error:
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
