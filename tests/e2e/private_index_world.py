"""A little internet for test_builds.py, which starts this file as root in a network namespace of its own.

    here: 203.0.113.1, and the platform     far: 203.0.113.2, package indexes that want a name and a password

Prints one JSON object: what was seen.   private_index_world.py FOLDER python|ruby
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from septet_platform import Platform

USER, CANARY = "reader", "canary-5f0c2b7e91"
BASIC = base64.b64encode(f"{USER}:{CANARY}".encode()).decode()
PACKAGE = "private-index-package"
INDEX = """
import http.server, pathlib, sys
served, basic, record = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
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
        wanted = served / self.path.strip("/")
        there = wanted.is_file()
        self.send_response(200 if there or wanted.is_dir() else 404)
        names = sorted(path.name for path in wanted.iterdir()) if wanted.is_dir() else []
        data = wanted.read_bytes() if there else "".join(f'<a href="{name}">{name}</a>' for name in names).encode()
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


LOOK_RUBY = """
require "private_index_package"
def handle(request, context)
  return ENV.to_a.sort.inspect if request.path == "/env"
  PRIVATE_WORD
end
"""
GEM = """
Gem::Specification.new do |spec|
  spec.name, spec.version, spec.summary, spec.authors = "private-index-package", "1", "private", ["nobody"]
  spec.files = ["lib/private_index_package.rb"]
end
"""


def wheel(served: Path) -> None:
    """Python's index: a folder of links for each project."""
    folder = served / "simple" / PACKAGE
    folder.mkdir(parents=True)
    path = folder / "private_index_package-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        info = "private_index_package-1.dist-info"
        file.writestr("private_index_package.py", "WORD = 'from the private index'\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def gem(served: Path) -> None:
    """Ruby's compact index: all versions, what each needs, and the gems."""
    source, index = served.parent / "gem", served / "rubygems"
    (source / "lib").mkdir(parents=True)
    for name in ("info", "gems"):
        (index / name).mkdir(parents=True)
    (source / "lib" / "private_index_package.rb").write_text("PRIVATE_WORD = 'from the private index'\n")
    (source / "it.gemspec").write_text(GEM)
    made = index / "gems" / f"{PACKAGE}-1.gem"
    subprocess.run(["gem", "build", "-q", "it.gemspec", "-o", str(made)], cwd=source, check=True, capture_output=True)
    info = f"---\n1 |checksum:{hashlib.sha256(made.read_bytes()).hexdigest()}\n"
    (index / "info" / PACKAGE).write_text(info)
    seen = hashlib.md5(info.encode(), usedforsecurity=False).hexdigest()
    (index / "versions").write_text(f"created_at: 2024-01-01T00:00:00Z\n---\n{PACKAGE} 1 {seen}\n")


class Language(NamedTuple):
    """How a private package is asked for: the source, the secret that opens the index, and what does not."""

    files: dict[str, str]
    secret: dict[str, str]
    closed: dict[str, str]


LANGUAGES = {
    "python": Language(
        {"main.py": LOOK, "requirements.txt": f"{PACKAGE}\n"},
        {"PIP_INDEX_URL": f"http://{USER}:{CANARY}@203.0.113.2/simple", "PIP_TRUSTED_HOST": "203.0.113.2"},
        {"PIP_INDEX_URL": "http://203.0.113.2/simple"},
    ),
    "ruby": Language(
        {"main.rb": LOOK_RUBY, "Gemfile": f'source "http://203.0.113.2/rubygems"\ngem "{PACKAGE}"\n'},
        {"BUNDLE_203__0__113__2": f"{USER}:{CANARY}"},
        {"BUNDLE_RETRY": "0"},
    ),
}


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


def deploy(platform: Platform, name: str, files: dict[str, str], **spec: Any) -> tuple[str, set[str]]:
    """How the revision ended, and which command lines held the password meanwhile."""
    seen: set[str] = set()
    platform.apply(name, files, **spec)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        seen |= set(processes(CANARY.encode())) | set(processes(BASIC.encode()))
        function = platform.api("GET", f"/namespaces/default/functions/{name}")
        ready = [c for c in function["status"]["conditions"] if c["type"] == "RevisionReady"]
        if ready and ready[0]["status"] is not None:
            return str(ready[0]["message"]), seen
        time.sleep(0.02)
    raise AssertionError(f"{name} did not end: {function['status']}")


def look(platform: Platform, folder: Path, record: Path, runtime: str) -> dict[str, object]:
    files, secret, closed = LANGUAGES[runtime]
    data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
    platform.api("PUT", "/namespaces/default/secrets/index", {"data": data})
    _, shown = deploy(platform, "private", files, runtime=runtime, build={"secret": "index"})
    wrong, _ = deploy(platform, "open", files, runtime=runtime, build={"env": closed})
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


def main(folder: Path, runtime: str) -> None:
    record, served = folder / "asked.txt", folder / "served"
    {"python": wheel, "ruby": gem}[runtime](served)
    far = started("unshare", "--net", "--", "sh", "-c", "echo; exec sleep 300")
    connect(far.pid)
    inside = ["nsenter", "-t", str(far.pid), "-n", sys.executable, "-c", INDEX]
    index = started(*inside, str(served), BASIC, str(record))
    (folder / "tmp").mkdir()
    try:
        with Platform(folder / "data", env={"TMPDIR": str(folder / "tmp"), "PIP_NO_INDEX": ""}) as platform:
            print(json.dumps(look(platform, folder, record, runtime)))
    finally:
        for child in (index, far):
            child.kill()
            child.wait()


if __name__ == "__main__":
    assert os.geteuid() == 0
    main(Path(sys.argv[1]), sys.argv[2])
