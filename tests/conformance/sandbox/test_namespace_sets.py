"""Isolation class shared-namespace: what instances of one tenant share, and what keeps them apart all the same."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sandbox_beds import TREE, SharedBed, groups
from sandbox_clauses import connected, echoes, ending, started, states, stopped, until

from septet.drivers.sandbox.process.settings import ProcessSettings
from septet.drivers.sandbox.process.supervise import descendants
from septet.model.errors import InvalidInput
from septet.model.function import Limits, Network
from septet.model.instance import InstanceInfo
from septet.ports.sandbox import Container, LaunchRequest, Volume
from septet.wire import frames

pytestmark = pytest.mark.root

CLASS = "shared-namespace"
LOOK = """
import ctypes, errno, json, os, socket, sys, time
def read(path):
    try:
        with open(path, "rb") as file: return file.read().decode("utf-8", "replace")
    except OSError as error: return type(error).__name__
def signals(pid):
    try: os.kill(pid, 0)
    except OSError as error: return errno.errorcode[error.errno]
    return "allowed"
def connects(family, address):
    with socket.socket(family) as probe:
        return probe.connect_ex(address)
open("/tmp/mine", "w").close()
status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
others = [pid for pid in range(1, 200) if pid != os.getpid() and signals(pid) != "ESRCH"]
print("LOOK " + json.dumps({
    "uid": os.getuid(), "pid": os.getpid(), "status": {k: v.strip() for k, v in status.items()},
    "proc": sorted(int(n) for n in os.listdir("/proc") if n.isdigit()), "tmp": os.listdir("/tmp"),
    "others": {pid: [signals(pid), read(f"/proc/{pid}/environ"), read(f"/proc/{pid}/cmdline")] for pid in others},
    "secret": read("/run/secrets/db/password"), "shelf": os.listdir("/var/tmp"), "host": socket.gethostname(),
    "port": connects(socket.AF_INET, ("127.0.0.1", 7707)), "abstract": connects(socket.AF_UNIX, "\\0sibling"),
    "cgroup": read("/proc/self/cgroup"), "mounts": read("/proc/self/mountinfo"),
    "fds": sorted(os.listdir("/proc/self/fd")),
    "net": os.readlink("/proc/self/ns/net"), "ipc": os.readlink("/proc/self/ns/ipc"),
}), flush=True)
if "listen" in sys.argv:
    first, second = socket.create_server(("127.0.0.1", 7707)), socket.socket(socket.AF_UNIX)
    second.bind("\\0sibling"); second.listen()
    print("LISTENS", flush=True)
time.sleep(60)
"""
BOMB = """
import os, time
print("READY", flush=True)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        time.sleep(0.01)
"""
EAT = "data = bytearray(400 << 20)\n"
FILL = "open('/tmp/x', 'wb').write(bytes(20 << 20))\n"
ASK = """
import socket
print(socket.create_connection(("127.0.0.1", 8099)).recv(100).decode(), flush=True)
"""


class SetBed(SharedBed):
    def settings(self) -> ProcessSettings:
        return dataclasses.replace(super().settings(), shared_namespaces=("default", "other"), set_idle=0.05)

    def script(self, id: str, file: str, *words: str, **fields: Any) -> LaunchRequest:
        files, namespace = fields.pop("files", {}), fields.pop("namespace", "default")
        request = self.request(id, **fields)
        command = ("{interpreter}", *self.flags, f"/function/code/{file}", *words)
        container = msgspec.structs.replace(request.containers[0], command=command, files=files)
        return msgspec.structs.replace(request, containers=(container,), namespace=namespace)

    async def run(self, id: str, file: str, *words: str, **fields: Any) -> InstanceInfo:
        return await self.driver.start(self.script(id, file, *words, **fields))

    def printed(self, id: str) -> list[bytes]:
        return [data for name, stream, data in self.output.lines if name == id and stream == "stdout"]

    async def look(self, id: str, *words: str, **fields: Any) -> dict[str, Any]:
        await self.run(id, "look.py", *words, **fields)
        await until(lambda: bool(self.printed(id)), f"{id} tells")
        told: dict[str, Any] = json.loads(self.printed(id)[0][5:])
        return told


SLOW = """
import json, os, random, ssl, tempfile, time, uuid
begun = os.getpid()

def handle(request, context):
    return {
        "random": random.random(), "uuid": str(uuid.uuid4()), "ssl": ssl.RAND_bytes(8).hex(), "begun": begun,
        "pid": os.getpid(), "instance": os.environ["SEPTET_INSTANCE"], "tmp": tempfile.mkdtemp(), "uid": os.getuid(),
        "group": len(open("/proc/self/cgroup").read()), "fds": sorted(os.listdir("/proc/self/fd")),
        "status": [line for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "Seccomp:"))],
        "last": "END",
    }
"""
UNFIT = {
    "a thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n",
    "keeps socket": "import socket\nkept = socket.create_server(('127.0.0.1', 0))\n",
    "a process": "import subprocess\nkept = subprocess.Popen(['/bin/sleep', '60'])\n",
    "no such module": "raise ImportError('no such module')\n",
}


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[SetBed]:
    bed = SetBed(tmp_path)
    for name, text in {"look": LOOK, "bomb": BOMB, "eat": EAT, "fill": FILL, "ask": ASK}.items():
        (tmp_path / f"tree/code/{name}.py").write_text(text)
    await bed.open()
    if not bed.driver._cgroups.hard:
        await bed.close()
        why = "the class needs control groups that hold every limit"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    try:
        yield bed
    finally:
        await bed.close()


async def test_what_siblings_see_of_each_other(bed: SetBed) -> None:
    first = await bed.look("first", "listen", files={"/run/secrets/db/password": b"hunter2"})
    await until(lambda: b"LISTENS" in bed.printed("first"), "it listens")
    second = await bed.look("second")
    third = await bed.look("third", namespace="other")
    assert first["net"] == second["net"] != third["net"]
    assert first["ipc"] != second["ipc"]
    # That there is a process, and a port of the tenant's own; nothing of what is in it.
    assert set(second["others"]) == {"1", str(first["pid"])}
    assert set(third["others"]) == {"1"}
    for seen in second["others"].values():
        assert seen == ["EPERM", "FileNotFoundError", "FileNotFoundError"]
    assert (second["port"], third["port"] != 0) == (0, True)
    assert second["abstract"] != 0
    assert (first["secret"], second["secret"]) == ("hunter2", "FileNotFoundError")
    for seen in (first, second, third):
        assert (seen["uid"], seen["tmp"], seen["shelf"], seen["host"]) == (1000, ["mine"], [], "septet")
        assert seen["proc"] == [seen["pid"]]
        assert seen["fds"] == ["0", "1", "2", "3", "4"], "the last one is the listing's own"
        assert {int(seen["status"][name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert (seen["status"]["NoNewPrivs"], seen["status"]["Seccomp"]) == ("1", "2")
        for leak in (str(bed.folder), "septet-", "tree:", "/first", "/second", "set-"):
            assert leak not in seen["mounts"] + seen["cgroup"], leak


async def test_a_fork_bomb_ends_alone_and_wholly(bed: SetBed) -> None:
    await started(bed, "sibling")
    stream = await connected(bed, "sibling")
    await bed.run("bomb", "bomb.py", limits=Limits(pids=20))
    await until(lambda: bool(bed.printed("bomb")), "it began")
    group = next(Path(path) for path in groups(bed.driver) if path.endswith("/bomb") and "pids" in path)
    await until(lambda: len((group / "cgroup.procs").read_text().split()) > 15, "it multiplied")
    inside = [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    await bed.driver.stop("bomb", 0)
    assert [pid for pid in inside if Path(f"/proc/{pid}").exists()] == []
    assert [path for path in groups(bed.driver) if path.endswith("/bomb")] == []
    await echoes(*stream, b"unharmed")


async def test_limits_are_each_instance_s_own_and_named(bed: SetBed) -> None:
    await started(bed, "sibling")
    await bed.run("eats", "eat.py", limits=Limits(memory=64))
    await bed.run("fills", "fill.py", limits=Limits(tmp=8))
    await stopped(bed, "eats")
    await stopped(bed, "fills")
    assert (ending(bed, "eats").limit, ending(bed, "fills").limit) == ("memory", "tmp")
    assert [info.id for info in await bed.driver.instances()] == ["sibling"]


async def test_a_set_goes_when_it_is_idle_and_comes_again(bed: SetBed) -> None:
    await started(bed, "one")
    (zygote,) = bed.driver._zygotes.pids()
    assert len(descendants(zygote)) == 3, "the zygote, the keeper, the function"
    await bed.driver.stop("one", 0)
    await until(lambda: len(descendants(zygote)) == 1, "the set is gone")
    await started(bed, "two")


async def test_a_set_s_death_costs_its_own_instances_alone(bed: SetBed) -> None:
    await started(bed, "mine")
    await bed.look("theirs", namespace="other")
    (found,) = (item for item in bed.driver._sets._all.values() if item.info.namespace == "default")
    (zygote,) = bed.driver._zygotes.pids()
    keepers = [pid for pid in descendants(zygote) if f"PPid:\t{zygote}\n" in Path(f"/proc/{pid}/status").read_text()]
    os.kill(min(keepers), signal.SIGKILL)
    await stopped(bed, "mine")
    await asyncio.wait_for(found.gone.wait(), 5)
    assert [info.id for info in await bed.driver.instances()] == ["theirs"]
    await started(bed, "again")


async def test_the_gateway_knows_whose_set_calls(bed: SetBed) -> None:
    class Answer(asyncio.Protocol):
        def __init__(self, instance: InstanceInfo) -> None:
            self.instance = instance

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(f"you are of {self.instance.namespace}".encode())
            transport.close()

    await bed.driver.close()
    bed.driver = bed.make()
    await bed.driver.open(bed.events.append, bed.output, Answer)
    await bed.settled()
    for name in ("default", "other"):
        await bed.run(f"in-{name}", "ask.py", namespace=name, gateway=8099)
    for name in ("default", "other"):
        await stopped(bed, f"in-{name}")
        assert bed.printed(f"in-{name}") == [f"you are of {name}".encode()]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"namespace": "third"}, "does not allow"),
        ({"network": Network(mode="egress")}, "no way out"),
        ({"protocol": "http1"}, "frame link"),
    ],
)
async def test_what_the_class_cannot_hold_is_refused(bed: SetBed, fields: dict[str, Any], says: str) -> None:
    request = msgspec.structs.replace(bed.script("no", "look.py"), isolation=CLASS, **fields)
    with pytest.raises(InvalidInput, match=says) as caught:
        await bed.driver.start(request)
    assert caught.value.hint
    assert await bed.driver.instances() == []


def of(instance: str, function: str, **fields: Any) -> LaunchRequest:
    """As control asks for a Python function."""
    env = {"SEPTET_INSTANCE": instance, "SEPTET_HANDLER": f"{function}.py:handle", "SEPTET_CONCURRENCY": "1"}
    container = Container(
        runtime="python",
        command=("{interpreter}", "-I", "-S", "-B", "{runtime}/start.py"),
        env=env,
        volumes=(Volume(tree=TREE, target="/function"),),
        working_directory="/function/code",
        files=fields.pop("files", {}),
    )
    told = {"namespace": "default", "function": function, "revision": f"{function}-1", **fields}
    return LaunchRequest(id=instance, containers=(container,), isolation="shared-namespace", **told)


async def asked(bed: SetBed, instance: str) -> dict[str, Any]:
    """What the handler says of itself."""
    stream, ears = await connected(bed, instance)
    await until(lambda: b'"ok":true' in ears.heard, "it is ready")
    stream.write(frames.encode(frames.REQUEST, 1, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"", frames.END))
    await until(lambda: b'"random"' in ears.heard and b'"END"' in ears.heard, "it answers")
    text = ears.heard.decode("utf-8", "replace")
    told: dict[str, Any] = json.JSONDecoder().raw_decode(text, text.index('{"random"'))[0]
    return told


async def test_instances_are_forks_of_the_function_s_own_zygote(bed: SetBed) -> None:
    (bed.folder / "tree/code/slow.py").write_text(SLOW)
    await bed.driver.start(of("ahead", "slow", ahead=True))
    await until(lambda: "running" in states(bed, "ahead"), "the zygote is able")
    assert "zygote" not in bed.driver.starts, "nobody calls it"
    names = ("one", "two")
    for name in names:
        info = await bed.driver.start(of(name, "slow"))
        assert info.tier == "function-zygote"
    first, second = [await asked(bed, name) for name in names]
    assert first["begun"] == second["begun"] not in (first["pid"], second["pid"])
    for name in ("random", "uuid", "ssl", "pid", "tmp"):
        assert first[name] != second[name], name
    assert (first["instance"], second["instance"]) == names
    assert (first["tmp"].startswith("/tmp/one/"), first["uid"], first["fds"]) == (True, 1000, ["0", "1", "2", "3", "4"])
    assert {line.split()[1] for line in first["status"]} == {"0000000000000000", "2"}
    pids = [Path(path) / "cgroup.procs" for path in groups(bed.driver) if path.endswith("/one") and "pids" in path]
    assert len(pids[0].read_text().split()) == 1
    await bed.driver.stop("one", 5)
    assert ending(bed, "one").signal == 15
    await bed.driver.freeze("two")
    await bed.driver.stop("ahead", 0)
    await bed.driver.thaw("two")
    await bed.driver.stop("two", 0)
    assert ending(bed, "two").signal == 9
    assert groups(bed.driver) == []
    info = await bed.driver.start(of("three", "slow"))
    assert info.tier == "zygote"


@pytest.mark.parametrize("why", sorted(UNFIT))
async def test_what_cannot_be_forked_says_why(bed: SetBed, why: str) -> None:
    (bed.folder / "tree/code/unfit.py").write_text(UNFIT[why] + "def handle(request, context):\n    return ''\n")
    await bed.driver.start(of("ahead", "unfit", ahead=True))
    await stopped(bed, "ahead")
    assert why in ending(bed, "ahead").message
    assert "no zygote of this function" in ending(bed, "ahead").message


@pytest.mark.parametrize("words", [b"[" * 50_000, b"7", b'{"op": "ended", "pid": "x", "status": 1e999}'])
async def test_a_zygote_that_talks_nonsense_harms_itself_alone(bed: SetBed, words: bytes) -> None:
    await started(bed, "sibling")
    stream = await connected(bed, "sibling")
    source = f"import os\nos.write(3, {words!r})\ndef handle(request, context):\n    return ''\n"
    (bed.folder / "tree/code/unfit.py").write_text(source)
    await bed.driver.start(of("ahead", "unfit", ahead=True))
    await stopped(bed, "ahead")
    await echoes(*stream, b"unharmed")


async def test_a_zygote_holds_no_secret(bed: SetBed) -> None:
    (bed.folder / "tree/code/slow.py").write_text(SLOW)
    with pytest.raises(InvalidInput, match="no secret"):
        await bed.driver.start(of("ahead", "slow", ahead=True, files={"/run/secrets/a/b": b"c"}))
