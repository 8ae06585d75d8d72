#!/usr/bin/env python3
"""Warm overhead: processor time per call of the platform, against nginx as a proxy before an HTTP server.

The platform checks the head, the token and the rates, picks the revision, and records each call; nginx passes it on.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness import HELLO, Options, Platform, Row, children, cpu, main, need, wait_until, wrk

NGINX = """
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  {body}
}}
"""
UPSTREAM = 'server {{ listen unix:{folder}/up.sock; location / {{ return 200 "{{\\"hello\\": \\"world\\"}}"; }} }}'
PROXY = """upstream up {{ server unix:{folder}/up.sock; keepalive 64; }}
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}"""


def bench(options: Options) -> list[Row]:
    need("wrk", "nginx")
    folder = options.scratch
    folder.chmod(0o755)  # nginx's worker is another user
    port = _free_port()
    upstream = _nginx(folder, "upstream", UPSTREAM.format(folder=folder))
    proxy = _nginx(folder, "proxy", PROXY.format(folder=folder, port=port))
    try:
        wait_until("nginx", lambda: (folder / "up.sock").exists() and bool(children(proxy.pid)), 10)
        worker = children(proxy.pid)[0]
        with Platform(folder / "data") as platform:
            platform.deploy("hello", HELLO, scale={"min": 1, "max": 1}, limits={"concurrency": 64})
            ours, theirs = f"{platform.url}/fn/default/hello/", f"http://127.0.0.1:{port}/"
            rows = [
                Row("processor time per call, 32 connections", "us", [], "nginx as a proxy", []),
                Row("latency p50, one connection", "ms", [], "nginx as a proxy", []),
                Row("latency p99, one connection", "ms", [], "nginx as a proxy", []),
            ]
            for number in range(options.rounds + 1):
                for index, (url, pid, token) in enumerate(((ours, platform.pid, platform.token), (theirs, worker, ""))):
                    measured = _measure(url, pid, token)
                    if number:  # the first round warms up
                        for row, value in zip(rows, measured, strict=True):
                            (row.theirs if index else row.ours).append(value)
        return rows
    finally:
        for process in (proxy, upstream):
            process.terminate()
            process.wait()


def _measure(url: str, pid: int, token: str) -> tuple[float, float, float]:
    before = cpu(pid)
    load = wrk(url, connections=32, seconds=2, token=token)
    used = cpu(pid) - before
    if load.failed:
        raise SystemExit(f"{url}: {load.failed} of {load.requests} failed")
    single = wrk(url, connections=1, seconds=1, token=token)
    return used / load.requests * 1e6, single.p50_ms, single.p99_ms


def _nginx(folder: Path, name: str, body: str) -> subprocess.Popen[bytes]:
    file = folder / f"{name}.conf"
    file.write_text(NGINX.format(folder=folder, name=name, body=body))
    return subprocess.Popen(["nginx", "-p", str(folder), "-c", str(file)])


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main(bench, rounds=6)
