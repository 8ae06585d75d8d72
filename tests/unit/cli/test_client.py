"""The client: addresses, errors, pages, streams."""

from __future__ import annotations

import os
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from septet.cli.client import Client, Target, parse_problem
from septet.cli.failures import Exit, Failure


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, 4), (403, 4), (404, 3), (409, 5), (410, 5), (412, 5), (408, 6), (504, 6), (400, 1), (500, 1)],
)
def test_statuses_become_exit_codes(platform: Any, septet: Any, problem: Any, status: int, code: int) -> None:
    platform.overrides["GET", "/septet/v1/namespaces/default/functions"] = problem(
        status, "x", "what happened", hint="what to do"
    )
    result = septet("list")
    assert (result.code, result.out, result.err) == (code, "", "error: what happened: what to do\n")


def test_nobody_there(septet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SEPTET_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        result = septet("list")
    assert result.code == 8
    assert "Connection refused" in result.err and "septet up" in result.err and result.err.count("\n") == 1


def test_a_silent_platform_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(Target(url=f"http://127.0.0.1:{silent.getsockname()[1]}"), timeout=0.2)
        with pytest.raises(Failure) as caught:
            client.get("/version")
    assert caught.value.code == Exit.TIMEOUT


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8080", "http://", "http://host:port"])
def test_bad_addresses(url: str) -> None:
    with pytest.raises(Failure) as caught:
        Client(Target(url=url)).get("/version")
    assert caught.value.code == Exit.USAGE


def test_something_else_answers(platform: Any, septet: Any, answer: Any) -> None:
    platform.overrides["GET", "/septet/v1/namespaces/default/functions"] = answer(
        raw=b"<html>", kind="application/json"
    )
    assert "is this really the platform?" in septet("list").err
    platform.overrides["GET", "/septet/v1/namespaces/default/functions"] = answer(
        status=502, raw=b"Bad Gateway\n", kind="text/html"
    )
    assert "answered 502 Bad Gateway: Bad Gateway" in septet("list").err


def test_pages_are_followed(platform: Any) -> None:
    platform.page = 2
    for name in "abcde":
        platform.objects.setdefault("default/secrets", {})[name] = {"meta": {"name": name}}
    client = Client(Target(url=platform.url, token=os.environ["SEPTET_TOKEN"]))
    assert [item["meta"]["name"] for item in client.items("/namespaces/default/secrets")] == list("abcde")
    assert len(platform.requests) == 3


def test_names_are_encoded(platform: Any, septet: Any) -> None:
    assert septet("describe", "a b/../c?d").code == 3
    assert platform.requests[0].path == "/septet/v1/namespaces/default/functions/a%20b%2F..%2Fc%3Fd/summary"


def test_problems_keep_their_parts() -> None:
    body = b'{"type": "urn:septet:error:node-full", "detail": "no memory", "stage": "start", "limit": "memory",'
    body += b'"log": "end"}'
    problem = parse_problem(503, "Service Unavailable", "application/problem+json", body)
    assert (problem.code, problem.stage, problem.limit, problem.extras) == (
        "node-full",
        "start",
        "memory",
        {"log": "end"},
    )


class _Answering(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(
            b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{"version":"7.7.7"}'
        )


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def unix_platform(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "s"
    with _UnixServer(str(path), _Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_unix_socket(unix_platform: Path) -> None:
    assert Client(Target(url=f"unix://{unix_platform}")).get("/version") == {"version": "7.7.7"}


def test_tls_is_checked_against_the_named_authority(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", tmp_path / "key", "-out", tmp_path / "cert", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=_serve_tls, args=(listener, trust, 2))
        thread.start()
        with pytest.raises(Failure, match="is not trusted") as caught:
            Client(Target(url=url)).get("/version")
        assert caught.value.code == Exit.UNREACHABLE
        assert Client(Target(url=url, ca=str(tmp_path / "cert"))).get("/version") == {"version": "1"}
        thread.join()


def _serve_tls(listener: socket.socket, trust: ssl.SSLContext, connections: int) -> None:
    for _ in range(connections):
        raw, _address = listener.accept()
        try:
            with trust.wrap_socket(raw, server_side=True) as link:
                link.recv(65536)
                link.sendall(
                    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"version":"1"}'
                )
        except OSError:
            raw.close()
