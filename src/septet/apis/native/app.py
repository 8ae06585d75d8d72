"""The native API as an ASGI application: read, admit, run, render."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from starlette.routing import Route, Router

from septet.apis.native import answers
from septet.apis.native.answers import Message, Receive, Send
from septet.apis.native.openapi import document
from septet.apis.native.row import Parts, Row
from septet.apis.native.strict import read_body, read_query
from septet.apis.native.table import ROWS
from septet.model.access import PLATFORM, Caller
from septet.model.errors import (
    ClientGone,
    Conflict,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    PlatformError,
    SeptetError,
    Unauthenticated,
)
from septet.model.instance import InstanceInfo
from septet.service.commands import ReadMetrics
from septet.service.results import Health, Version
from septet.service.service import Service

log = logging.getLogger("septet.apis.native")
Scope = MutableMapping[str, Any]
BODY_MOST = 4 * 1024 * 1024
_TAG = re.compile(r'"([0-9]{1,18})"')


@dataclass(frozen=True)
class NativeSettings:
    """`ready` says whether calls are taken, and if not why. `public_metrics` serves /metrics without a token."""

    version: str
    ready: Callable[[], tuple[bool, str]]
    public_metrics: bool = False
    upload_limit: int = 512 * 1024 * 1024
    keep_alive: float = answers.KEEP_ALIVE


class NativeApi:
    """ASGI. Of the scope it reads method, path, query, headers, `client`, and the front's `state`."""

    def __init__(self, service: Service, settings: NativeSettings) -> None:
        self._service = service
        self._settings = settings
        self._document = answers.encode(document(settings.version))
        paths: dict[str, dict[str, Row]] = {}
        for row in ROWS:
            paths.setdefault(row.path, {})[row.method] = row
        # Fixed paths come before those with parameters: the first that matches is taken.
        ordered = sorted(paths.items(), key=lambda item: ("{" in item[0], item[0]))
        routes = [Route(path, endpoint=_Endpoint(self, methods)) for path, methods in ordered]
        self._router = Router(routes=routes, default=_unknown, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; whatever is raised before the answer began becomes a problem."""
        if scope["type"] != "http":
            raise RuntimeError(f"this application serves http, not {scope['type']}")
        outgoing = _Outgoing(send, scope["method"] == "HEAD")
        try:
            await self._router(scope, receive, outgoing)
        except ClientGone:
            return
        except SeptetError as error:
            await self._fail(scope, outgoing, error)
        except OSError as error:
            if outgoing.started:
                raise
            await self._fail(scope, outgoing, _broken(error))
        except Exception as error:
            if outgoing.started:
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            await self._fail(scope, outgoing, _broken(error))

    async def _fail(self, scope: Scope, outgoing: _Outgoing, error: SeptetError) -> None:
        if outgoing.started:
            raise error
        # The store's own conflicts are about versions; those about what an object is in carry "state".
        moved = isinstance(error, Conflict) and error.details.get("reason") != "state"
        await answers.send_problem(outgoing, error, 412 if moved and header(scope, b"if-match") else 0)

    async def run(self, row: Row, scope: Scope, receive: Receive, send: Send) -> None:
        """One operation, whose path and method have been found."""
        path = dict(scope.get("path_params", {}))
        try:
            caller = self.caller(row, scope)
        except Unauthenticated as error:
            await self._service.refused(_remote(scope), f"{row.method} {row.path}", error)
            raise
        if row.command is None:
            read_query(scope.get("query_string", b""), row.query)
            await self._own(row, send)
            return
        query = read_query(scope.get("query_string", b""), row.query)
        namespace = path.get("ns", "") or getattr(query, "namespace", "")
        await self._service.admit(caller, row.command, namespace, path.get("name", ""))
        if header(scope, b"content-encoding") not in (b"", b"identity"):
            raise InvalidInput("the body has a Content-Encoding", hint="send it as it is")
        limit = self._settings.upload_limit if row.upload else BODY_MOST
        chunks = answers.read_chunks(receive, limit)
        body = read_body(b"".join([chunk async for chunk in chunks]), row.body) if row.body else None
        version = wanted_version(header(scope, b"if-match"), getattr(body, "resource_version", 0))
        assert row.build is not None
        command = row.build(Parts(path, query, body, version, chunks))
        result = await self._service.run(caller, command)
        await self._answer(row, result, scope, receive, send)

    def caller(self, row: Row, scope: Scope) -> Caller:
        """Who calls; Unauthenticated. Behind an inner gateway nobody reaches beyond the instance's namespace."""
        remote = _remote(scope)
        if row.rule == "open" or (row.command is ReadMetrics and self._settings.public_metrics):
            return msgspec.structs.replace(PLATFORM, remote=remote)
        try:
            text = header(scope, b"authorization").decode("ascii")
        except UnicodeDecodeError:
            text = "?"
        caller = self._service.credentials.bearer(text, remote)
        instance = (scope.get("state") or {}).get("instance")
        return confined(caller, instance) if isinstance(instance, InstanceInfo) else caller

    async def _own(self, row: Row, send: Send) -> None:
        """What the API itself knows."""
        if row.path.endswith("/openapi.json"):
            await answers.send_body(send, 200, self._document, b"application/json")
        elif row.path.endswith("/version"):
            await answers.send_json(send, 200, Version(version=self._settings.version))
        elif row.path == "/readyz":
            ok, reason = self._settings.ready()
            await answers.send_json(send, 200 if ok else 503, Health(ok=ok, reason=reason))
        else:
            await answers.send_json(send, 200, Health(ok=True))

    async def _answer(self, row: Row, result: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if row.form == "json":
            await answers.send_json(send, row.status, result)
        elif row.form == "text" and hasattr(result, "__aiter__") and scope["method"] != "HEAD":
            await answers.send_bytes(send, result, b"text/plain; charset=utf-8")
        elif row.form == "text" and not hasattr(result, "__aiter__"):
            data = result if isinstance(result, bytes) else str(result).encode()
            await answers.send_body(send, row.status, data, b"text/plain; charset=utf-8")
        elif scope["method"] == "HEAD":
            await answers.close(result)
            await answers.send_body(send, row.status, b"", b"application/x-ndjson")
        elif row.form == "bytes":
            await answers.send_bytes(send, cast("AsyncIterator[bytes]", result), b"application/x-tar")
        else:
            items = _each(result) if isinstance(result, list) else result
            # A token that is deleted or expires ends what it opened.
            await answers.send_lines(send, receive, items, lambda: self.caller(row, scope), self._settings.keep_alive)


class _Endpoint:
    """All methods of one path. GET answers HEAD too; nothing answers OPTIONS, since no browser's page may call."""

    def __init__(self, api: NativeApi, methods: dict[str, Row]) -> None:
        self._api = api
        self._methods = dict(methods)
        if "GET" in methods:
            self._methods.setdefault("HEAD", methods["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        row = self._methods.get(scope["method"])
        if row is None:
            allow = sorted(self._methods)
            raise MethodNotAllowed(f"this path takes {', '.join(allow)}", details={"allow": allow})
        await self._api.run(row, scope, receive, send)


class _Outgoing:
    """Remembers whether the answer began, and keeps the body of an answer to HEAD back."""

    def __init__(self, send: Send, head: bool) -> None:
        self._send = send
        self._head = head
        self.started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        if self._head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def _remote(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def confined(caller: Caller, instance: InstanceInfo) -> Caller:
    """The caller, held to the namespace of the instance that it calls from."""
    reaches = "*" in caller.namespaces or instance.namespace in caller.namespaces
    remote = f"instance:{instance.id}"
    return msgspec.structs.replace(caller, namespaces=(instance.namespace,) if reaches else (), remote=remote)


def header(scope: Scope, name: bytes) -> bytes:
    """The first header line of that lower-case name; empty when there is none."""
    return next((value for key, value in scope["headers"] if key.lower() == name), b"")


def wanted_version(if_match: bytes, in_body: int) -> int:
    """The version that the change is meant for; 0 when none was named. Raises InvalidInput."""
    if not 0 <= in_body < 2**63:
        raise InvalidInput("resource_version: is no version of an object", details={"field": "resource_version"})
    if not if_match:
        return in_body
    match = _TAG.fullmatch(if_match.decode("latin-1").strip())
    if match is None:
        raise InvalidInput(
            "If-Match: names no version of an object",
            hint='send the ETag as it came, for example "42"',
            details={"field": "If-Match"},
        )
    version = int(match[1])
    if in_body and in_body != version:
        raise InvalidInput("If-Match and resource_version name two versions", details={"field": "resource_version"})
    return version


def _broken(error: Exception) -> PlatformError:
    return PlatformError(
        f"the request failed inside the platform: {type(error).__name__}", hint="the platform's log says more"
    )


async def _unknown(scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NotFound(
        f"there is nothing at {scope['path'][:200]!r}",
        hint="GET /septet/v1/openapi.json lists every path",
        details={"kind": "path", "name": scope["path"][:200]},
    )


async def _each(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item
