"""A small platform in this process: the routes of the native API that the client commands use."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from septet.cli.main import main

TOKEN = "sept_" + "a" * 43


@dataclass
class Answer:
    """What the platform answers: JSON, unless `raw` bytes are given."""

    status: int = 200
    value: Any = None
    raw: bytes | None = None
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    promise: int | None = None
    """Content-Length to claim instead of the true one."""


def problem(status: int, code: str, detail: str, **more: Any) -> Answer:
    value = {"type": f"urn:septet:error:{code}", "title": code, "status": status, "detail": detail, **more}
    return Answer(status, value, kind="application/problem+json")


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class FakePlatform:
    """Keeps functions as the API shows them, and every request that came."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.functions: dict[str, dict[str, Any]] = {}
        self.revisions: dict[str, list[dict[str, Any]]] = {}
        self.objects: dict[str, dict[str, Any]] = {}
        self.blobs: set[str] = set()
        self.build_log = ""
        self.phases = ["ready"]
        """Phases that the next revision goes through, one at each look."""
        self.fail_reason = "build-failed"
        self.call: Callable[[Request], Answer] = lambda request: Answer(
            raw=b"Hello, " + request.body, kind="text/plain"
        )
        self.overrides: dict[tuple[str, str], Answer] = {}
        self.page = 100
        handler = type("Handler", (_Handler,), {"platform": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def asked(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if r.method == method and r.path == path]

    # -- routes -----------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthenticated", "no token was sent", hint="set SEPTET_TOKEN")
        if (request.method, request.path) in self.overrides:
            return self.overrides[request.method, request.path]
        if request.path.startswith("/fn/"):
            return self.call(request)
        parts = [unquote(part) for part in request.path.removeprefix("/septet/v1/").split("/")]
        if parts[:1] == ["namespaces"] and len(parts) > 2:
            return self.namespaced(request, parts[1], parts[2], parts[3:])
        return self.cluster(request, parts)

    def cluster(self, request: Request, parts: list[str]) -> Answer:
        if parts == ["version"]:
            return Answer(value={"version": "9.9.9"})
        if parts == ["tokens"] and request.method == "POST":
            return Answer(201, {"token": "sept_new", "object": {"meta": {"name": request.json()["name"]}}})
        return self.plain(request, parts[0], parts[1:])

    def namespaced(self, request: Request, namespace: str, plural: str, rest: list[str]) -> Answer:
        if plural == "blobs":
            return self.blob(request, rest)
        if plural == "functions" and rest:
            return self.function(request, namespace, rest[0], rest[1:])
        if plural == "functions":
            return self.paged(request, [f for f in self.functions.values() if f["meta"]["namespace"] == namespace])
        if plural == "routes" and request.method == "PUT":
            return Answer(value={"action": "created", "changes": [], "route": request.json()})
        return self.plain(request, f"{namespace}/{plural}", rest)

    def plain(self, request: Request, collection: str, rest: list[str]) -> Answer:
        held = self.objects.setdefault(collection, {})
        if not rest:
            return self.paged(request, list(held.values()))
        name = rest[0]
        if request.method == "PUT":
            body = request.json()
            held[name] = {
                "meta": {"name": name, "created_at": time.time()},
                "spec": body.get("spec", {}),
                "keys": list(body.get("data", {})),
            }
            return Answer(value=held[name])
        if name not in held:
            return problem(404, "not-found", f"no {collection} {name!r}", stage="route")
        if request.method == "DELETE":
            del held[name]
            return Answer(204)
        return Answer(value=held[name])

    def paged(self, request: Request, items: list[Any]) -> Answer:
        start = int(request.query.get("cursor", 0))
        more = start + self.page < len(items)
        return Answer(
            value={"items": items[start : start + self.page], "cursor": str(start + self.page) if more else ""}
        )

    def blob(self, request: Request, rest: list[str]) -> Answer:
        if request.method == "GET":
            known = rest[0] in self.blobs
            return Answer(value={"digest": rest[0], "size": 1}) if known else problem(404, "not-found", "no such blob")
        digest = "sha256:" + hashlib.sha256(request.body).hexdigest()
        self.blobs.add(digest)
        return Answer(201, {"digest": digest, "size": len(request.body)})

    def function(self, request: Request, namespace: str, name: str, rest: list[str]) -> Answer:
        if request.method == "PUT" and not rest:
            return self.apply(request, namespace, name)
        if name not in self.functions:
            return problem(404, "not-found", f"no function {name!r} in {namespace}", stage="route", hint="septet list")
        function = self.functions[name]
        if not rest and request.method == "DELETE":
            del self.functions[name]
            return Answer(204)
        if not rest:
            return Answer(value=function)
        return self.part(request, function, rest)

    def part(self, request: Request, function: dict[str, Any], rest: list[str]) -> Answer:
        name = function["meta"]["name"]
        revisions = self.revisions[name]
        if rest == ["summary"]:
            return Answer(
                value={
                    "callable": True,
                    "answer": "yes, warm",
                    "urls": [f"{self.url}/fn/default/{name}/"],
                    "limits": "best effort",
                    "revisions": [{"name": r["meta"]["name"], "phase": "ready", "percent": 100} for r in revisions],
                    "instances": [
                        {"id": "i-1", "revision": f"{name}-00001", "state": "ready", "started_at": time.time()}
                    ],
                    "conditions": function["status"]["conditions"],
                }
            )
        if rest == ["revisions"]:
            return self.paged(request, revisions)
        if rest[0] == "revisions" and rest[2:] == ["build-log"]:
            return Answer(raw=self.build_log.encode(), kind="text/plain; charset=utf-8")
        if rest[0] == "revisions":
            return Answer(value=self.advance(function, next(r for r in revisions if r["meta"]["name"] == rest[1])))
        if rest == ["scale"]:
            function["spec"]["template"]["scale"].update(request.json())
        if rest == ["traffic"]:
            function["spec"]["traffic"] = request.json()["targets"]
        if rest == ["rollback"]:
            function["spec"]["traffic"] = [
                {"revision": request.json().get("revision", f"{name}-00001"), "percent": 100}
            ]
        if rest == ["logs"]:
            lines = [
                {"at": 1.0, "instance": "i-1", "stream": "stdout", "text": "one"},
                {"at": 2.0, "instance": "i-1", "stream": "stderr", "text": "two\x1b[31m"},
            ]
            return Answer(
                raw=b"".join(json.dumps(line).encode() + b"\n" for line in lines), kind="application/x-ndjson"
            )
        return Answer(value=function)

    def apply(self, request: Request, namespace: str, name: str) -> Answer:
        spec = request.json()["spec"]
        old = self.functions.get(name)
        changes = []
        if old and old["spec"] != spec:
            for key, value in spec["template"].items():
                before = old["spec"]["template"][key]
                if before != value:
                    changes.append({"field": f"template.{key}", "old": before, "new": value})
        action = "created" if old is None else "updated" if old["spec"] != spec else "unchanged"
        if request.query.get("dry_run") or action == "unchanged":
            return Answer(value={"action": action, "changes": changes, "function": old})
        if spec["template"]["source"] not in self.blobs:
            return problem(422, "invalid-input", f"no blob {spec['template']['source']}", stage="control")
        number = len(self.revisions.setdefault(name, [])) + 1
        revision = f"{name}-{number:05d}"
        meta = {"name": name, "namespace": namespace, "generation": number, "created_at": time.time()}
        status = {"observed_generation": number, "latest_created": revision, "latest_ready": "", "conditions": []}
        self.functions[name] = {"kind": "Function", "meta": meta, "spec": spec, "status": status}
        self.revisions[name].append(
            {
                "meta": {"name": revision, "created_at": time.time()},
                "spec": {"number": number, "template": spec["template"]},
                "status": {"phase": "pending", "conditions": []},
            }
        )
        self.pending = list(self.phases)
        return Answer(value={"action": action, "changes": changes, "function": self.functions[name]})

    def advance(self, function: dict[str, Any], revision: dict[str, Any]) -> dict[str, Any]:
        if self.pending:
            phase = self.pending.pop(0)
            revision["status"]["phase"] = phase
            if phase == "failed":
                revision["status"]["conditions"] = [
                    {"type": "Ready", "status": False, "reason": self.fail_reason, "message": "pip ended with 1"}
                ]
            if phase == "ready":
                function["status"]["latest_ready"] = revision["meta"]["name"]
                function["status"]["traffic"] = [{"revision": revision["meta"]["name"], "percent": 100}]
                function["status"]["conditions"] = [{"type": "Ready", "status": True, "reason": "Serving"}]
        return revision


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    platform: FakePlatform

    def handle_one(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        answer = self.platform.answer(Request(self.command, parts.path, query, headers, body))
        data = (
            answer.raw if answer.raw is not None else b"" if answer.value is None else json.dumps(answer.value).encode()
        )
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(data) if answer.promise is None else answer.promise))
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = handle_one

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakePlatform]:
    """A running fake platform that the environment names."""
    fake = FakePlatform()
    for name in ("SEPTET_CONTEXT", "SEPTET_NAMESPACE", "SEPTET_CA", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEPTET_CONFIG", str(tmp_path / "config" / "contexts.json"))
    monkeypatch.setenv("SEPTET_URL", fake.url)
    monkeypatch.setenv("SEPTET_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    yield fake
    fake.close()


@dataclass
class Result:
    code: int
    out: str
    err: str


Septet = Callable[..., Result]


@pytest.fixture
def septet(capfd: pytest.CaptureFixture[str]) -> Septet:
    """Runs a command line in this process."""

    def run(*args: str) -> Result:
        capfd.readouterr()
        code = main(args)
        out, err = capfd.readouterr()
        return Result(int(code), out, err)

    return run


PYTHON_PROJECT = """\
functions:
  hello:
    runtime: python
    source: ./src
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a septet.yaml of one function."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "handler.py").write_text("def handle(request, context):\n    return 'hi'\n")
    (tmp_path / "septet.yaml").write_text(PYTHON_PROJECT)
    return tmp_path


@pytest.fixture
def answer() -> type[Answer]:
    """To make what the platform answers."""
    return Answer


@pytest.fixture(name="problem")
def problem_fixture() -> Callable[..., Answer]:
    """To make an application/problem+json answer."""
    return problem
