"""A little internet for test_builds.py, which starts this file as root in a network namespace of its own.

    here: 203.0.113.1, and the platform     far: 203.0.113.2, a package index that wants a name and a password

Prints one JSON object: what was seen.   private_index_world.py FOLDER
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from septet_platform import Platform

USER, CANARY = "reader", "canary-5f0c2b7e91"
BASIC = base64.b64encode(f"{USER}:{CANARY}".encode()).decode()
PACKAGE = "private-index-package"
INDEX = """
import http.server, pathlib, sys
wheel, basic, record = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
class Index(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Authorization") != f"Basic {basic}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with record.open("a") as file:
            file.write(self.path + "\\n")
        page = f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()
        data = wheel.read_bytes() if self.path.endswith(".whl") else page
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(("203.0.113.2", 80), Index)
print("up", flush=True)
server.serve_forever()
"""
LOOK = """
import os, private_index_package
def handle(request, context):
    if request.path == "/env":
        return repr(sorted(os.environ.items()))
    return private_index_package.WORD
"""


def wheel(folder: Path) -> Path:
    path = folder / "private_index_package-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        info = "private_index_package-1.dist-info"
        file.writestr("private_index_package.py", "WORD = 'from the private index'\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def started(*command: str) -> subprocess.Popen[bytes]:
    """A process that has said that it is there."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def connect(pid: int) -> None:
    here = "link set lo up\nlink add up0 type veth peer name up1 netns {pid}\naddress add 203.0.113.1/24 dev up0\n"
    here += "link set up0 up\nroute add default via 203.0.113.2\n"
    there = "link set lo up\naddress add 203.0.113.2/24 dev up1\nlink set up1 up\n"
    subprocess.run(["ip", "-batch", "-"], input=here.format(pid=pid).encode(), check=True)
    inside = ["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"]
    subprocess.run(inside, input=there.encode(), check=True)


def places(text: bytes, *folders: Path) -> Iterator[str]:
    """Files that hold the text."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and text in path.read_bytes():
                yield str(path)


def processes(text: bytes) -> Iterator[str]:
    """Command lines of this host that hold the text, but for the index's own."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if text in words and INDEX.encode() not in words:
            yield f"process {words[:200]!r}"


def deploy(platform: Platform, name: str, **spec: Any) -> tuple[str, set[str]]:
    """How the revision ended, and which command lines held the password meanwhile."""
    seen: set[str] = set()
    platform.apply(name, {"main.py": LOOK, "requirements.txt": f"{PACKAGE}\n"}, **spec)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        seen |= set(processes(CANARY.encode())) | set(processes(BASIC.encode()))
        function = platform.api("GET", f"/namespaces/default/functions/{name}")
        ready = [c for c in function["status"]["conditions"] if c["type"] == "RevisionReady"]
        if ready and ready[0]["status"] is not None:
            return str(ready[0]["message"]), seen
        time.sleep(0.02)
    raise AssertionError(f"{name} did not end: {function['status']}")


def look(platform: Platform, folder: Path, record: Path) -> dict[str, object]:
    index = f"http://{USER}:{CANARY}@203.0.113.2/simple"
    data = {"PIP_INDEX_URL": base64.b64encode(index.encode()).decode()}
    data["PIP_TRUSTED_HOST"] = base64.b64encode(b"203.0.113.2").decode()
    platform.api("PUT", "/namespaces/default/secrets/index", {"data": data})
    _, shown = deploy(platform, "private", build={"secret": "index"})
    wrong, _ = deploy(platform, "open", build={"env": {"PIP_INDEX_URL": "http://203.0.113.2/simple"}})
    log = platform.request("GET", "/septet/v1/namespaces/default/functions/private/revisions/private-00001/build-log")
    answer = platform.call("private").text
    told = platform.request("GET", "/septet/v1/namespaces/default/functions/private/logs").body
    told += platform.call("private", "/env").body + log.body + platform.log.read_bytes()
    told += platform.request("GET", "/septet/v1/namespaces/default/functions/private").body
    found = sorted(shown)
    for text in (CANARY.encode(), BASIC.encode()):
        found += places(text, platform.data, folder / "tmp")
        if text in told:
            found.append(f"an answer, the log or the environment: {told!r}")
    (folder / "planted").mkdir()
    (folder / "planted" / "file").write_text(f"x{CANARY}")
    planted = list(places(CANARY.encode(), folder / "planted"))
    asked = len(record.read_text().splitlines())
    return {"answer": answer, "asked": asked, "log": log.text, "found": found, "wrong": wrong, "planted": planted}


def main(folder: Path) -> None:
    record = folder / "asked.txt"
    far = started("unshare", "--net", "--", "sh", "-c", "echo; exec sleep 300")
    connect(far.pid)
    inside = ["nsenter", "-t", str(far.pid), "-n", sys.executable, "-c", INDEX]
    index = started(*inside, str(wheel(folder)), BASIC, str(record))
    (folder / "tmp").mkdir()
    try:
        with Platform(folder / "data", env={"TMPDIR": str(folder / "tmp"), "PIP_NO_INDEX": ""}) as platform:
            print(json.dumps(look(platform, folder, record)))
    finally:
        for child in (index, far):
            child.kill()
            child.wait()


if __name__ == "__main__":
    assert os.geteuid() == 0
    main(Path(sys.argv[1]))
