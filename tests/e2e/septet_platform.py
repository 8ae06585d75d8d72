"""The real program over its socket: starts it, speaks HTTP to it, stops it by its own pid."""

from __future__ import annotations

import http.client
import io
import json
import os
import select
import signal
import subprocess
import sys
import tarfile
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def pack(files: Mapping[str, str | bytes]) -> bytes:
    """A tar of a source folder; names ending in .sh are executable."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            data = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Platform:
    """A running `septet up` with its own data directory on a free port."""

    def __init__(self, data: Path, *flags: str, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()):
        self.data = data
        self.flags = flags
        self.env = dict(env or {})
        self.prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.token = ""
        self.log = data.parent / f"{data.name}.log"

    def start(self, timeout: float = 30) -> Platform:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SEPTET_")}
        environ |= {"XDG_CONFIG_HOME": str(self.data.parent / "config"), **self.env}
        command = [*self.prefix, sys.executable, "-m", "septet", "up", "--listen", "127.0.0.1:0", "--ready-json"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.data), *self.flags], stdout=subprocess.PIPE, stderr=log, env=environ
            )
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.process.kill()
            raise AssertionError(f"septet up did not get ready:\n{self.log.read_text()[-4000:]}")
        facts = json.loads(line)
        self.url, self.token, self.pid = facts["url"], facts["token"], facts["pid"]
        self.listeners: dict[str, str] = facts["listeners"]
        return self

    def stop(self, timeout: float = 40) -> int:
        assert self.process
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        code = self.process.wait(timeout)
        if self.process.stdout:
            self.process.stdout.close()
        return code

    def kill(self) -> None:
        """SIGKILL, as the kernel or an operator might."""
        assert self.process
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(10)
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> Platform:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        if self.process and self.process.poll() is None:
            self.stop()

    def connection(self, timeout: float = 60) -> http.client.HTTPConnection:
        address = urllib.parse.urlsplit(self.url)
        return http.client.HTTPConnection(str(address.hostname), address.port, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = "",
        timeout: float = 60,
    ) -> Answer:
        """One request; `token` "" is the admin's, None sends none."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token or self.token}")
        link = self.connection(timeout)
        try:
            link.request(method, path, body=body, headers=sent)
            got = link.getresponse()
            return Answer(got.status, {str(k).lower(): str(v) for k, v in got.getheaders()}, got.read())
        finally:
            link.close()

    def api(self, method: str, path: str, body: object = None, expect: int | None = None) -> Any:
        data = None if body is None else json.dumps(body)
        got = self.request(method, f"/septet/v1{path}", data, {"Content-Type": "application/json"})
        if expect is not None:
            assert got.status == expect, f"{method} {path}: {got.status} {got.text}"
        else:
            assert got.status < 300, f"{method} {path}: {got.status} {got.text}"
        return got.json if got.body else None

    def apply(self, name: str, files: Mapping[str, str | bytes], namespace: str = "default", **spec: Any) -> Any:
        """Uploads the source and applies the function; returns the answer without waiting."""
        spec.setdefault("runtime", "python")
        top: dict[str, Any] = {k: spec.pop(k) for k in ("access", "rollout", "traffic", "retain") if k in spec}
        template: dict[str, Any] = {"source": self.source(files, namespace), **spec}
        desired: dict[str, Any] = {"template": template, **top}
        return self.api("PUT", f"/namespaces/{namespace}/functions/{name}", {"spec": desired})

    def source(self, files: Mapping[str, str | bytes], namespace: str = "default") -> str:
        """Uploads the files; returns the digest."""
        got = self.request("POST", f"/septet/v1/namespaces/{namespace}/blobs", pack(files))
        assert got.status < 300, got.text
        return str(got.json["digest"])

    def deploy(
        self, name: str, files: Mapping[str, str | bytes], namespace: str = "default", timeout: float = 60, **spec: Any
    ) -> Any:
        """Applies and waits until the newest revision is ready; returns the function."""
        self.apply(name, files, namespace, **spec)
        return self.wait_ready(name, namespace, timeout)

    def wait_ready(self, name: str, namespace: str = "default", timeout: float = 60) -> Any:
        end = time.monotonic() + timeout
        while True:
            function = self.api("GET", f"/namespaces/{namespace}/functions/{name}")
            status = function["status"]
            ready = [c for c in status["conditions"] if c["type"] == "Ready"]
            current = status["observed_generation"] == function["meta"]["generation"]
            if current and ready and ready[0]["status"] is True:
                return function
            failed = current and ready and ready[0]["status"] is False
            assert not failed, f"{name} failed: {ready} {self.log.read_text()[-3000:]}"
            assert time.monotonic() < end, f"{name} not ready: {status}\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    def call(self, name: str, path: str = "/", body: bytes | str | None = None, **kw: Any) -> Answer:
        namespace = kw.pop("namespace", "default")
        method = kw.pop("method", "POST" if body is not None else "GET")
        return self.request(method, f"/fn/{namespace}/{name}{path}", body, **kw)

    def instances(self, name: str, namespace: str = "default") -> list[Any]:
        got = self.api("GET", f"/namespaces/{namespace}/functions/{name}/instances")
        return list(got["items"])
