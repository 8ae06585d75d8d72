"""Published holes of platforms like this one, tried on the real thing. Each test first shows, by a control, that what
it looks for would be seen; tests/promises/advisories.toml lists them all."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import time
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from septet_platform import Answer, Platform

from septet.drivers.clock.system import SystemClock
from septet.drivers.store.sqlite.store import SqliteStore
from septet.model.function import Build, Function, FunctionSpec, FunctionTemplate, SecretUse
from septet.model.meta import Meta

ECHO = {"main.py": "def handle(request, context):\n    return request.body\n"}
API = "/septet/v1"
PLANTED = "planted-in-the-platforms-environment-6b1f"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with a canary in its environment, two tenants, and the victim's secret."""
    with Platform(tmp_path_factory.mktemp("planted") / "data", env={"PLANTED": PLANTED}) as running:
        for name in ("victim", "mallory"):
            running.api("PUT", f"/namespaces/{name}", {"spec": {}})
        secret(running, "victim", "db", "victims-secret-19c4")
        running.deploy("f", ECHO, namespace="victim")
        yield running


@pytest.fixture(scope="module")
def mallory(planted: Platform) -> str:
    body = {"name": "mallory", "namespaces": ["mallory"], "verbs": ["*"]}
    return str(planted.api("POST", "/tokens", body)["token"])


def secret(platform: Platform, namespace: str, name: str, value: str) -> None:
    data = {"PASSWORD": base64.b64encode(value.encode()).decode()}
    platform.api("PUT", f"/namespaces/{namespace}/secrets/{name}", {"data": data})


def raw(platform: Platform, request: bytes) -> bytes:
    address = urllib.parse.urlsplit(platform.url)
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=10) as link:
        link.sendall(request)
        got = b""
        while piece := link.recv(65536):
            got += piece
            if b"\r\n\r\n" in got and b"connection: close" not in got.lower():
                break
    return got


# -- routes and tenants -----------------------------------------------------------------------------------------------


def test_adv_cve_2026_46614(planted: Platform) -> None:
    """Internal routes were served on the public listener, so any function ran without its trigger."""
    assert planted.call("f", body=b"x", namespace="victim").body == b"x"
    inner = ["/fission-function/victim/f", "/fission-function/f", "/v2/specialize", "/specialize", "/init", "/run"]
    inner += ["/_/call", "/internal/fn/victim/f", "/function/f", "/async-function/f", "/t/victim/f", "/invoke/f"]
    inner += ["/septet/internal", "/debug/pprof", "/proxy/1", "/instances", "//fn/victim/f/", "/FN/victim/f/"]
    for path in inner:
        for method in ("GET", "POST"):
            assert planted.request(method, path, b"x" if method == "POST" else None).status == 404, path
    for path in ("/fn/victim/f/", "/fn/victim/f@latest/", "/fn/victim/f@f-00001/"):
        assert planted.request("POST", path, b"x", token=None).status == 401


def test_adv_cve_2026_46612(planted: Platform, mallory: str) -> None:
    """Archives could be read, replaced and removed without a credential."""
    path = f"{API}/namespaces/victim/blobs"
    assert planted.request("POST", path, b"an archive").status < 300
    digest = "sha256:" + hashlib.sha256(b"an archive").hexdigest()

    def stored() -> dict[str, str]:
        files = [p for p in (planted.data / "blobs").rglob("*") if p.is_file()]
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before = stored()
    assert before
    for method in ("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"):
        for where in (path, f"{path}/{digest}"):
            for token in (None, "sept_" + "A" * 43, mallory):
                got = planted.request(method, where, b"other" if method != "HEAD" else None, token=token)
                assert got.status in (401, 403, 404, 405), (method, where, got)
    assert stored() == before


def test_adv_cve_2026_49822(planted: Platform, mallory: str) -> None:
    """A watch could name another tenant, and an empty name meant all."""

    def watched(query: str, token: str) -> tuple[int, bytes]:
        link = planted.connection(2)
        link.request("GET", f"{API}/watch?{query}", headers={"Authorization": f"Bearer {token}"})
        got = link.getresponse()
        seen = b""
        try:
            while piece := got.read1(65536):
                seen += piece
        except TimeoutError:
            pass
        link.close()
        return got.status, seen

    secret(planted, "victim", "seen", "x")
    assert b'"victim"' in watched("after=0", planted.token)[1], "the control: all of it is there to be seen"
    for namespace in ("victim", "", "*", "%00", "victim%00", "mallory%00victim", "..%2Fvictim", "mallory,victim"):
        status, seen = watched(f"after=0&namespace={namespace}", mallory)
        assert status < 500
        assert b"victim" not in seen or status >= 400, (namespace, seen[:500])
    assert b'"victim"' not in watched("after=0", mallory)[1]


FIELDS = {
    "secrets": FunctionTemplate(runtime="python", secrets=(SecretUse(name="db", env=True),)),
    "build-secret": FunctionTemplate(runtime="python", build=Build(secret="db")),
    "environment": FunctionTemplate(runtime="python", environment="env"),
}


def test_adv_cve_2026_49823(own_platform: Platform) -> None:
    """A reference into another namespace: refused at create, at update, and when it was written into the store."""
    platform = own_platform.start()
    for name in ("victim", "mallory"):
        platform.api("PUT", f"/namespaces/{name}", {"spec": {}})
    secret(platform, "victim", "db", "x")
    platform.api("PUT", "/namespaces/victim/environments/env", {"spec": {"runtime": "python"}})
    use = {"name": "db", "env": True}
    platform.deploy("owner", ECHO, namespace="victim", secrets=[use])
    platform.deploy("known", ECHO, namespace="mallory")
    uploaded = platform.request("POST", f"{API}/namespaces/mallory/blobs", archive()).json["digest"]
    for name in ("fresh", "known"):
        for foreign in ({"secrets": [use]}, {"build": {"secret": "db"}}, {"environment": "env"}):
            body = json.dumps({"spec": {"template": {"runtime": "python", "source": uploaded, **foreign}}})
            headers = {"Content-Type": "application/json"}
            got = platform.request("PUT", f"{API}/namespaces/mallory/functions/{name}", body, headers)
            assert got.status in (400, 422), (foreign, got)
    assert platform.stop() == 0

    async def write() -> None:
        store = SqliteStore(platform.data / "store.db", SystemClock())
        for name, template in FIELDS.items():
            template = FunctionTemplate(
                **{f: getattr(template, f) for f in template.__struct_fields__} | {"source": uploaded}
            )
            await store.create(
                Function(meta=Meta(name=name, namespace="mallory"), spec=FunctionSpec(template=template))
            )
        await store.close()

    asyncio.run(write())
    platform.start()
    for name in FIELDS:
        ready = settled(platform, "mallory", name)
        assert ready["status"] is False, name
        assert "there is no" in ready["message"], ready
        assert platform.call(name, body=b"x", namespace="mallory").status == 503


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("main.py")
        info.size = len(ECHO["main.py"])
        tar.addfile(info, io.BytesIO(ECHO["main.py"].encode()))
    return out.getvalue()


def settled(platform: Platform, namespace: str, name: str, timeout: float = 40) -> Any:
    """The Ready condition once it says yes or no of the newest generation."""
    end = time.monotonic() + timeout
    while True:
        function = platform.api("GET", f"/namespaces/{namespace}/functions/{name}")
        ready = [c for c in function["status"]["conditions"] if c["type"] == "Ready"]
        if ready and ready[0]["status"] in (True, False):
            return ready[0]
        assert time.monotonic() < end, function["status"]
        time.sleep(0.05)


def test_adv_cve_2026_50569(planted: Platform) -> None:
    """A route's path was checked by the client program alone."""

    def put(path: str) -> Answer:
        body = {"spec": {"match": {"path": path}, "targets": [{"function": "f"}]}}
        headers = {"Content-Type": "application/json"}
        return planted.request("PUT", f"{API}/namespaces/victim/routes/r", json.dumps(body), headers)

    assert put("/fine/*").status < 300
    taken = ["/healthz", "/readyz", "/metrics", "/septet/v1/x", "/septet/*", "/fn/*", "/_/x", "/api/v1", "/v2/x"]
    taken += ["/system/functions", "/%73eptet/v1", "/%66n/*", "/{a}/../healthz", "/a/../healthz", "..", "", "a", "//"]
    taken += ["/a\x00b", "/a\r\nb", "/a?b", "/./healthz"]
    wrong = {path: got.status for path in taken if (got := put(path)).status not in (400, 409, 422) and path != "//"}
    assert not wrong
    for path in ("/*", "/{x}", "/{x}/{y}"):
        put(path)
        assert planted.request("GET", "/healthz", token=None).text != "hello"
        assert planted.request("GET", f"{API}/tokens", token=None).status == 401
        assert planted.request("GET", "/metrics", token=None).status == 401
    planted.api("DELETE", "/namespaces/victim/routes/r")


# -- secrets ----------------------------------------------------------------------------------------------------------

WALK = """
import glob, os, socket, stat

def handle(request, context):
    wanted = [word.encode() for word in request.json()]
    found = set()
    def look(where, data):
        for word in wanted:
            if word in data:
                found.add(f"{word.decode()} in {where}")
    for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline") + ["/proc/self/mountinfo"]:
        try:
            look(path, open(path, "rb").read())
        except OSError:
            pass
    for top in ("/run", "/etc", "/tmp", "/var", "/function", "/opt", "/dev", "/home", "/root", "/srv", "/mnt"):
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    if stat.S_ISREG(os.stat(path).st_mode) and os.path.getsize(path) < 1 << 20:
                        look(path, open(path, "rb").read())
                except OSError:
                    pass
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            if target.startswith(("/", "memfd:")) and not target.startswith(("/dev", "/proc")):
                look(target, os.pread(int(number), 1 << 20, 0))
        except OSError:
            pass
    return sorted(found)
"""


def test_adv_cve_2026_46617(planted: Platform) -> None:
    """A credential of the platform stood beside the user's code."""
    secret(planted, "mallory", "own", "mallorys-own-77aa")
    key = base64.b64encode((planted.data / "vault.key").read_bytes()).decode()
    words = [PLANTED, planted.token, "victims-secret-19c4", key, str(planted.data), "mallorys-own-77aa"]
    use = {"name": "own", "env": True, "files": True}
    planted.deploy("walk", {"main.py": WALK}, namespace="mallory", secrets=[use], limits={"timeout": 60})
    found = planted.call("walk", body=json.dumps(words), namespace="mallory").json
    assert {line.partition(" in ")[0] for line in found} == {"mallorys-own-77aa"}, found
    assert len(found) >= 2, "the control: its own secret is found in its environment and in a file"


def test_adv_ghsa_7m8x(planted: Platform) -> None:
    """Secret values were copied into plain objects; here: store, logs, API, command lines, other tenants' files."""
    word = b"victims-secret-4242"
    secret(planted, "victim", "seven", word.decode())
    use = {"name": "seven", "env": True}
    planted.deploy("uses", ECHO, namespace="victim", secrets=[use], env={"PLAIN": "plain-value-5151"})
    assert planted.call("uses", body=b"x", namespace="victim").status == 200

    def holding(text: bytes) -> list[str]:
        places = [p for p in planted.data.rglob("*") if p.is_file()] + [planted.log]
        found = [str(p) for p in places if text in p.read_bytes()]
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found += [str(line)] if text in line.read_bytes() else []
            except OSError:
                continue
        for path in ("functions", "secrets", "functions/uses/revisions", "functions/uses/summary", "secrets/seven"):
            found += [path] if text in planted.request("GET", f"{API}/namespaces/victim/{path}").body else []
        return found

    assert holding(b"plain-value-5151"), "the control: a plain variable is found"
    assert holding(word) == []
    assert holding(base64.b64encode(word)) == []


# -- builds and archives ----------------------------------------------------------------------------------------------


def test_adv_cve_2026_46618(planted: Platform, tmp_path: Path) -> None:
    """Text of an object reached a shell of the builder."""
    mark = tmp_path / "made"
    for form in (f"x; touch {mark}", f"$(touch {mark})", f"`touch {mark}`", f"x\ntouch {mark}", f"x & touch {mark}"):
        subprocess.run(["/bin/sh", "-c", f"echo {form}"], capture_output=True, check=False)
        assert mark.exists(), "the control: a shell would have made it"
        mark.unlink()
        spec = {"handler": form, "working_directory": "", "command": [], "runtime": "python"}
        for change in ({"handler": form}, {"runtime": "exec", "command": [form]}, {"working_directory": form}):
            headers = {"Content-Type": "application/json"}
            source = planted.request("POST", f"{API}/namespaces/mallory/blobs", archive()).json["digest"]
            body = json.dumps({"spec": {"template": {**spec, "source": source, **change}}})
            got = planted.request("PUT", f"{API}/namespaces/mallory/functions/shell", body, headers)
            if got.status < 300:
                settled(planted, "mallory", "shell")
                planted.call("shell", body=b"x", namespace="mallory")
        assert not mark.exists(), form
    planted.api("DELETE", "/namespaces/mallory/functions/shell")


def test_adv_cve_2026_50567(planted: Platform) -> None:
    """Member names climbed out of their folder, or passed for it by a common prefix."""

    def tar(name: str, **fields: Any) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as file:
            for one in ("main.py", name):
                info = tarfile.TarInfo(one)
                info.size = len(ECHO["main.py"])
                if one == name:
                    for field, value in fields.items():
                        setattr(info, field, value)
                file.addfile(info, io.BytesIO(ECHO["main.py"].encode()))
        return out.getvalue()

    def zipped(name: str) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("main.py", ECHO["main.py"])
            file.writestr(name, "x")
        return out.getvalue()

    def verdict(data: bytes) -> Any:
        digest = planted.request("POST", f"{API}/namespaces/mallory/blobs", data).json["digest"]
        body = {"spec": {"template": {"runtime": "python", "source": digest}}}
        planted.request("DELETE", f"{API}/namespaces/mallory/functions/slip")
        planted.api("PUT", "/namespaces/mallory/functions/slip", body)
        return settled(planted, "mallory", "slip")

    assert verdict(tar("inner/b.py"))["status"] is True, "the control: a good one is built"
    before = sorted(str(p) for p in planted.data.parent.glob("*"))
    link = {"type": tarfile.SYMTYPE, "size": 0}
    bad = [tar("../escaped"), tar("/tmp/escaped-septet"), tar("a/../../escaped"), zipped("../escaped")]
    bad += [tar("out", linkname="/etc", **link), tar("out", linkname="../code-evil", **link)]
    bad += [tar("node", type=tarfile.CHRTYPE, size=0)]
    for data in bad:
        assert verdict(data)["status"] is False
    assert sorted(str(p) for p in planted.data.parent.glob("*")) == before
    assert not Path("/tmp/escaped-septet").exists()
    assert not list(planted.data.rglob("*escaped*")) + list(planted.data.rglob("*evil*"))


# -- inside the sandbox -----------------------------------------------------------------------------------------------

REPLACE = """
import http.client, os, socket, threading

def handle(request, context):
    if request.path == "/which":
        return "the deployed code"
    own = socket.create_server(("127.0.0.1", 0))  # the control: an open port is found
    opened = []
    for port in range(1, 65536):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                opened.append(port)
    answers = {}
    for port in opened:
        if port == own.getsockname()[1]:
            continue
        for path in ("/init", "/run", "/specialize", "/v2/specialize"):
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            try:
                link.request("POST", path, b'{"value":{"code":"def main(x): return 1"}}')
                answers[f"{port}{path}"] = link.getresponse().status
            except (OSError, http.client.HTTPException) as error:
                answers[f"{port}{path}"] = -1
    return {"own": own.getsockname()[1] in opened, "answers": answers}
"""


def test_adv_cve_2018_11756(planted: Platform) -> None:
    """A function could post to its own /init and so replace the code for later callers."""
    planted.deploy("again", {"main.py": REPLACE}, namespace="mallory", limits={"timeout": 60})
    found = planted.call("again", "/try", namespace="mallory").json
    assert found["own"], "the control: a listener is found"
    assert all(status < 0 or status >= 400 for status in found["answers"].values()), found
    assert planted.call("again", "/which", namespace="mallory").text == "the deployed code"


SELF = """
import glob, os
def handle(request, context):
    open("/tmp/own", "w").close()
    opened = ["/tmp/own"] if os.close(os.open("/tmp/own", os.O_WRONLY)) is None else []
    files = ["/opt/septet/runtime/start.py", "/function/code/main.py", "/proc/self/exe"]
    for path in [*files, *glob.glob("/proc/[0-9]*/exe")]:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            try:
                os.close(os.open(path, flags))
                opened.append(path)
            except OSError:
                pass
    kinds = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            kinds[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass
    return {"opened": opened, "fds": kinds}
"""


def test_adv_cve_2019_5736(planted: Platform) -> None:
    """The program that starts instances could be overwritten through /proc/self/exe."""
    planted.deploy("overwrite", {"main.py": SELF}, namespace="mallory")
    before = hashlib.sha256(Path("/usr/bin/python3").read_bytes()).hexdigest()
    found = planted.call("overwrite", namespace="mallory").json
    assert found["opened"] == ["/tmp/own"], found
    assert hashlib.sha256(Path("/usr/bin/python3").read_bytes()).hexdigest() == before


def test_adv_cve_2024_21626(planted: Platform) -> None:
    """A descriptor of a host folder leaked, and the working directory could name it."""
    planted.deploy("fds", {"main.py": SELF}, namespace="mallory")
    found = planted.call("fds", namespace="mallory").json["fds"]
    assert "3" in found, "the control: the link is seen"
    strange = {n: t for n, t in found.items() if not t.startswith(("pipe:", "socket:", "anon_inode:", "/dev/null"))}
    assert not {n: t for n, t in strange.items() if not t.startswith("/proc/")}, found
    headers = {"Content-Type": "application/json"}
    digest = planted.request("POST", f"{API}/namespaces/mallory/blobs", archive()).json["digest"]

    def put(folder: str) -> int:
        body = {"spec": {"template": {"runtime": "python", "source": digest, "working_directory": folder}}}
        path = f"{API}/namespaces/mallory/functions/cwd?dry_run=true"
        return planted.request("PUT", path, json.dumps(body), headers).status

    assert put("app") < 300
    for number in (3, 5, 7, 8, 1023):
        assert put(f"/proc/self/fd/{number}") in (400, 422)
        assert put(f"../../proc/self/fd/{number}") in (400, 422)


ENDLESS_READY = """
import os, socket, threading
def serve(link):
    try:
        link.recv(65536)
        link.sendall(b"HTTP/1.1 200 OK\\r\\n" + (b"x-a: " if os.environ["HOW"] == "line" else b"\\r\\n"))
        while True:
            link.sendall(b"y" * 65536)
    except OSError:
        pass
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


def test_adv_cve_2023_48713(planted: Platform) -> None:
    """An answer without an end to a question of the platform's own took all its memory."""

    def resident() -> int:
        return int(Path(f"/proc/{planted.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    for how in ("line", "body"):
        spec = {"runtime": "http", "command": ["/usr/bin/python3", "main.py"], "env": {"HOW": how}}
        limits = {"start_timeout": 3}
        files = {"main.py": ENDLESS_READY}
        planted.apply(f"endless-{how}", files, "mallory", readiness={"path": "/ready"}, limits=limits, **spec)
        settled(planted, "mallory", f"endless-{how}", 30)
        assert planted.call("f", body=b"x", namespace="victim").status == 200
        planted.api("DELETE", f"/namespaces/mallory/functions/endless-{how}")
    assert resident() - before < 16 << 20


# -- the front --------------------------------------------------------------------------------------------------------


def test_adv_cve_2026_48710(planted: Platform) -> None:
    """Text in the Host line moved a request onto another path."""
    line = b"GET /healthz HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"
    assert raw(planted, line % b"good.example:80").startswith(b"HTTP/1.1 200")
    for host in (b"x/septet/v1", b"a?b", b"a#b", b"a@b", b"a\\b", b"a b", b"a\tb", b"a\x00b", b"[::1"):
        got = raw(planted, line % host)
        assert got.startswith(b"HTTP/1.1 400"), (host, got)
        assert b"connection: close" in got.lower()


def test_adv_cve_2025_43859(planted: Platform) -> None:
    """Ends of chunks, folded lines and doubled lengths that parsers read differently."""
    head = b"POST /fn/victim/f/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + planted.token.encode() + b"\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert b" 200 " in raw(planted, chunked + b"3\r\nabc\r\n0\r\n\r\n").split(b"\r\n")[0]
    bad = [chunked + b"3\r\nabcXX0\r\n\r\n", chunked + b"3\nabc\n0\n\n", chunked + b"+3\r\nabc\r\n0\r\n\r\n"]
    bad += [head + b"Content-Length:\r\n 3\r\n\r\nabc", head + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"]
    bad += [head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
    bad += [head + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", head + b"x : y\r\n\r\n", head + b"a: b\n\r\n"]
    for request in bad:
        got = raw(planted, request)
        assert got.startswith(b"HTTP/1.1 400"), (request[-60:], got[:200])
        assert got.count(b"HTTP/1.1") == 1


def test_adv_cve_2020_7694(planted: Platform) -> None:
    """Control bytes of a request reached the terminal through the log."""
    forged = "%1b[2J%0d%0a%7b%22level%22:%22error%22,%22message%22:%22forged%22%7d"
    planted.request("GET", f"/fn/victim/{forged}")
    planted.request("GET", f"/{forged}", headers={"User-Agent": "x"})
    raw(planted, b"GET /\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n")
    source = {"main.py": "def handle(request, context):\n    print('\\x1b[2J{}\\r\\nsecond')\n    return 'ok'\n"}
    planted.deploy("forger", source, namespace="mallory")
    assert planted.call("forger", namespace="mallory").status == 200
    lines = planted.request("GET", f"{API}/namespaces/mallory/functions/forger/logs").body
    assert b"[2J" in lines, lines
    assert b"1b[2J" in lines, "the control: the line is there, with its bytes escaped"
    assert b"\x1b" not in lines + planted.log.read_bytes()
    for line in planted.log.read_text().splitlines():
        assert json.loads(line)["message"] != "forged"
