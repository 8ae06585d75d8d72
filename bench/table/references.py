"""The systems that Septet is measured against, run as their users run them. One that is missing says so."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from processes import tree

from harness import PYTHON

HERE = Path(__file__).parent
WATCHDOG = "github.com/openfaas/of-watchdog@latest"
HANDLER = HERE / "http_handler.py"

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream up {{ server unix:{folder}/up.sock; keepalive 64; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
"""


class Missing(Exception):
    """A reference that is not there, and why."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > end:
            raise Missing(f"nothing listens on port {port} after 10 s")
        time.sleep(0.02)


@contextlib.contextmanager
def running(*command: str | Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([str(word) for word in command], env=env, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def nginx(folder: Path, handler: Path) -> Iterator[tuple[int, list[int]]]:
    """nginx as a proxy before an HTTP server with the handler: its port, and its processes."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not program:
        raise Missing("nginx is not installed: apt install nginx-light")
    folder.mkdir(mode=0o755)
    for above in (folder.parent, folder.parent.parent):
        above.chmod(0o755)  # nginx's worker is another user
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=folder, port=port))
    with running(PYTHON, "-I", HANDLER, handler, folder / "up.sock"):
        while not (folder / "up.sock").exists():
            time.sleep(0.02)
        (folder / "up.sock").chmod(0o777)
        with running(program, "-p", folder, "-c", conf) as process:
            wait_for(port)
            yield port, tree(process.pid)


def install_watchdog(folder: Path) -> Path:
    """of-watchdog from the Go proxy, with a GOPATH of its own; Missing says what the client said."""
    given = os.environ.get("SEPTET_BENCH_WATCHDOG") or shutil.which("of-watchdog")
    if given:
        return Path(given)
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if not go:
        raise Missing("of-watchdog is not installed, and there is no go to install it with")
    env = {**os.environ, "GOPATH": str(folder / "gopath"), "GOFLAGS": "-modcacherw"}
    done = subprocess.run([go, "install", WATCHDOG], env=env, capture_output=True, text=True)
    built = folder / "gopath" / "bin" / "of-watchdog"
    if done.returncode or not built.exists():
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1].strip()
        raise Missing(f"of-watchdog cannot be installed, the Go client says: {said}")
    return built


@contextlib.contextmanager
def watchdog(program: Path, handler: Path) -> Iterator[tuple[int, list[int]]]:
    """of-watchdog in its http mode before the handler: its port, and the processes of both."""
    port, inner, health = free_port(), free_port(), free_port()
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "mode": "http",
        "fprocess": f"{PYTHON} -I {HANDLER} {handler} {inner}",
        "upstream_url": f"http://127.0.0.1:{inner}",
        "port": str(port),
        "metrics_port": str(health),
    }
    with running(program, env=env) as process:
        wait_for(inner)
        wait_for(port)
        time.sleep(0.5)
        yield port, tree(process.pid)


MOUNTS = ["/usr", "/bin", "/lib", "/lib64", "/etc/alternatives"]


def runc_bundle(folder: Path, handler: Path) -> Path:
    """An OCI bundle whose root is the host's own programs, read only, and which answers once with the handler."""
    if not shutil.which("runc"):
        raise Missing("runc is not installed: apt install runc")
    root = folder / "rootfs"
    for name in (*MOUNTS, "/proc", "/dev", "/sys", "/tmp", "/function"):
        (root / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    spec = json.loads((folder / "config.json").read_text())
    once = "import json, sys; sys.path.insert(0, '/function'); import main; print(json.dumps(main.handle(None, None)))"
    spec["process"] |= {"terminal": False, "args": [PYTHON, "-I", "-S", "-B", "-c", once], "cwd": "/function"}
    bind = {"type": "bind", "options": ["rbind", "ro"]}
    spec["mounts"] += [{**bind, "source": each, "destination": each} for each in MOUNTS if Path(each).exists()]
    spec["mounts"].append({**bind, "source": str(handler.parent), "destination": "/function"})
    spec["root"] = {"path": "rootfs", "readonly": True}
    (folder / "config.json").write_text(json.dumps(spec))
    return folder


def runc_once(bundle: Path) -> float:
    """Milliseconds from `runc run` to the handler's answer. Missing when this host does not let it run."""
    name = f"septet-bench-{time.monotonic_ns()}"
    begin = time.perf_counter()
    with subprocess.Popen(
        ["runc", "run", "--bundle", str(bundle), name], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        took = (time.perf_counter() - begin) * 1000
        error = process.stderr.read().decode().strip()
    if b"{" not in line:
        raise Missing(f"runc does not run here: {error[-300:]}")
    return took
