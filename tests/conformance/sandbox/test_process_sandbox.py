"""What the process sandbox promises beyond the port: walls, limits, tasks, secrets, the gateway, output."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_beds import ProcessBed, groups
from sandbox_clauses import ending, started, stopped, until

from septet.model.errors import InvalidInput
from septet.model.function import Limits
from septet.model.instance import InstanceExit, InstanceInfo
from septet.ports.sandbox import Container, Volume

LOOK = """
import json, os, socket
def read(path):
    try:
        with open(path, "rb") as file: return file.read().decode("utf-8", "replace")
    except OSError as error: return type(error).__name__
def tried(path):
    try:
        with open(path, "w"): return "written"
    except OSError as error: return type(error).__name__
def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port))
status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
print(json.dumps({
    "status": {k: v.strip() for k, v in status.items()}, "uid": os.getuid(), "pid": os.getpid(),
    "fds": sorted(os.listdir("/proc/self/fd")), "cwd": os.getcwd(), "root": sorted(os.listdir("/")),
    "pids": [n for n in os.listdir("/proc") if n.isdigit()], "env": dict(os.environ), "host": socket.gethostname(),
    "mounts": read("/proc/self/mountinfo"),
    "cgroup": read("/proc/self/cgroup"), "secret": read("/run/secrets/db/password"), "shadow": read("/etc/shadow"),
    "kallsyms": read("/proc/kallsyms"), "setuid": read("/usr/bin/su"), "boot": read("/proc/sys/kernel/random/boot_id"),
    "cpus": os.cpu_count(), "tree": sorted(os.listdir("/function/code")),
    "writes": {p: tried(p) for p in
        ("/x", "/usr/x", "/etc/x", "/function/code/x", "/run/x", "/proc/sys/vm/x", "/tmp/x")},
    "init": [read("/proc/1/environ"), read("/proc/1/maps")], "host_port": connects(PORT_OF_HOST),
}))
"""


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[ProcessBed]:
    bed = ProcessBed(tmp_path)
    await bed.open()
    try:
        yield bed
    finally:
        await bed.close()


def script(code: str, **fields: Any) -> Container:
    fields.setdefault("volumes", (Volume(tree="tree:of-the-suite", target="/function"),))
    return Container(
        runtime="python", command=("{interpreter}", "-c", code), working_directory="/function/code", **fields
    )


async def run(bed: ProcessBed, id: str, code: str, **fields: Any) -> InstanceExit:
    await bed.driver.start(bed.request(id, kind="task", container=script(code, **fields)))
    await stopped(bed, id)
    return ending(bed, id)


def printed(bed: ProcessBed, id: str, stream: str = "stdout") -> list[bytes]:
    return [data for name, kind, data in bed.output.lines if name == id and kind == stream]


async def test_what_a_function_sees(bed: ProcessBed) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    done = await run(
        bed,
        "look",
        LOOK.replace("PORT_OF_HOST", str(port)),
        files={"/run/secrets/db/password": b"hunter2"},
        env={"A": "b"},
    )
    server.close()
    assert done.code == 0, printed(bed, "look", "stderr")
    seen = json.loads(printed(bed, "look")[0])
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(seen["status"][name], 16) == 0, name
    assert (seen["status"]["NoNewPrivs"], seen["status"]["Seccomp"]) == ("1", "2")
    assert (seen["uid"], seen["pid"], seen["pids"]) == (1000, 2, ["2"])
    assert seen["fds"] == ["0", "1", "2", "3"], "the last one is the listing's own"
    assert seen["cwd"] == "/function/code"
    assert not {"home", "root", "work", "boot", "mnt"} & set(seen["root"])
    assert seen["env"] == {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "A": "b"}
    assert seen["host"] == "septet"
    assert seen["secret"] == "hunter2"
    assert seen["shadow"] == "FileNotFoundError"
    assert (seen["kallsyms"], seen["boot"]) == ("", "")
    assert seen["setuid"] == ""
    assert seen["tree"] == ["f.py"]
    assert seen["cpus"] >= 1
    assert seen["writes"].pop("/tmp/x") == "written"
    assert "written" not in seen["writes"].values()
    assert not any("root" in text for text in seen["init"])
    assert seen["host_port"] != 0
    for leak in (str(bed.folder), "septet-", "tree:"):
        assert leak not in seen["mounts"], leak
        assert leak not in seen["cgroup"], leak


async def test_memory_is_limited_and_named(bed: ProcessBed) -> None:
    done = await run(bed, "m", "x = bytearray(400 * 1024 * 1024); import time; time.sleep(5)", limits=Limits(memory=64))
    assert done.limit == "memory"
    assert "64 MiB" in done.message


async def test_shared_memory_counts_where_limits_are_hard(bed: ProcessBed) -> None:
    code = "f = open('/dev/shm/x', 'wb', 0)\nwhile True: f.write(bytes(1 << 20))"
    done = await run(bed, "m", code, limits=Limits(memory=32))
    # Best effort sums the pages of processes and does not see files in memory: their size is bounded instead.
    assert done.limit == ("memory" if bed.driver._cgroups.hard else "")
    assert done.code != 0


async def test_a_fork_bomb_stops_at_its_limit(bed: ProcessBed) -> None:
    code = """
import os, time
made = 0
try:
    while made < 500:
        if os.fork() == 0: time.sleep(60)
        made += 1
except BlockingIOError:
    print(made, flush=True)
"""
    await run(bed, "bomb", code, limits=Limits(pids=20))
    assert 10 <= int(printed(bed, "bomb")[0]) < 20


async def test_tmp_is_limited_and_named(bed: ProcessBed) -> None:
    done = await run(bed, "t", "open('/tmp/x', 'wb').write(bytes(20 << 20))", limits=Limits(tmp=8))
    assert done.limit == "tmp"
    assert "8 MiB" in done.message


SWALLOWS = """
import os, time
try:
    for _ in range(200):
        if os.fork() == 0: time.sleep(60)
except BlockingIOError: pass
try:
    with open("/tmp/x", "wb", 0) as file:
        for _ in range(20): file.write(bytes(1 << 20))
except OSError: pass
print("done", flush=True)
time.sleep(60)
"""


async def test_limits_that_nobody_told_of_are_seen(bed: ProcessBed) -> None:
    """By what the kernel counted; as an ordinary user without control groups, by what is full."""
    limits = Limits(pids=20, tmp=8, memory=128)
    await bed.driver.start(bed.request("quiet", kind="task", container=script(SWALLOWS, limits=limits)))
    await until(lambda: printed(bed, "quiet") == [b"done"], "it met them")
    met = {item.name: item for item in (await bed.driver.stats("quiet")).met}
    assert {name: item.value for name, item in met.items()} == {"pids": "20", "tmp": "8 MiB"}
    assert met["pids"].times > 0 or not bed.driver._cgroups.hard
    await bed.driver.stop("quiet", 0)
    await stopped(bed, "quiet")
    assert [item.name for item in ending(bed, "quiet").met] == (["pids"] if bed.driver._cgroups.hard else [])


async def test_a_task_writes_its_tree(bed: ProcessBed) -> None:
    tree = bed.folder / "made"
    (tree / "code").mkdir(parents=True)
    tree.chmod(0o700)
    bed.trees.made["work"] = tree
    volumes = (Volume(tree="work", target="/function", writable=True),)
    code = "import os; os.makedirs('/function/deps'); open('/function/deps/a', 'w').write('b')"
    done = await run(bed, "build", code, volumes=volumes)
    assert done.code == 0, printed(bed, "build", "stderr")
    assert (tree / "deps/a").read_text() == "b"
    assert {(tree / name).stat().st_uid for name in ("", "deps", "deps/a")} == {os.getuid()}


async def test_only_a_task_writes_into_a_tree(bed: ProcessBed) -> None:
    bed.trees.made["work"] = bed.folder
    container = Container(command=("true",), volumes=(Volume(tree="work", target="/function", writable=True),))
    with pytest.raises(InvalidInput, match="only a task"):
        await bed.driver.start(bed.request("serves", container=container))


async def test_exit_of_a_task(bed: ProcessBed) -> None:
    done = await run(bed, "seven", "raise SystemExit(7)")
    assert (done.code, done.signal, done.asked) == (7, None, False)


async def test_a_command_that_is_not_there(bed: ProcessBed) -> None:
    await bed.driver.start(bed.request("no", container=Container(command=("no-such-program",))))
    await stopped(bed, "no")
    assert "no-such-program" in ending(bed, "no").message


async def test_lines_of_output(bed: ProcessBed) -> None:
    code = "import sys; print('a\\nb'); sys.stderr.write('c'); sys.stdout.write('x' * 150_000)"
    await run(bed, "out", code)
    lines = printed(bed, "out")
    assert lines[:2] == [b"a", b"b"]
    assert [len(line) for line in lines[2:]] == [65536, 65536, 150_000 - 2 * 65536]
    assert printed(bed, "out", "stderr") == [b"c"]


async def test_a_flood_of_output_is_slowed_down(bed: ProcessBed) -> None:
    code = "import os\nline = b'y' * 1023 + b'\\n'\nfor _ in range(16384): os.write(1, line)"
    await bed.driver.start(bed.request("flood", kind="task", container=script(code)))
    await until(lambda: bool(printed(bed, "flood", "platform")), "the flood is noted")
    await bed.driver.stop("flood", 0)
    assert b"slowed down" in printed(bed, "flood", "platform")[0]


async def test_the_gateway_knows_who_calls(bed: ProcessBed) -> None:
    class Answer(asyncio.Protocol):
        def __init__(self, instance: InstanceInfo) -> None:
            self.instance = instance

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(f"you are {self.instance.id}".encode())
            transport.close()

    await bed.driver.close()
    bed.driver = bed.make()
    await bed.driver.open(bed.events.append, bed.output, Answer)
    code = "import socket; print(socket.create_connection(('127.0.0.1', 8099)).recv(100).decode())"
    for name in ("one", "two"):
        await bed.driver.start(bed.request(name, kind="task", gateway=8099, container=script(code)))
    await stopped(bed, "one")
    await stopped(bed, "two")
    assert printed(bed, "one") == [b"you are one"]
    assert printed(bed, "two") == [b"you are two"]


async def test_death_of_the_launcher_is_the_death_of_all(bed: ProcessBed) -> None:
    await started(bed, "one")
    os.kill(bed.driver._launcher.pid, signal.SIGKILL)
    await stopped(bed, "one")
    assert "launcher" in ending(bed, "one").message
    assert groups(bed.driver) == []


async def test_files_stay_below_run(bed: ProcessBed) -> None:
    for name in ("/etc/passwd", "/run/../etc/passwd", "run/a"):
        with pytest.raises(InvalidInput):
            await bed.driver.start(bed.request("f", container=script("", files={name: b"x"})))


async def test_volumes_stay_off_the_system(bed: ProcessBed) -> None:
    for target in ("/", "/usr/bin", "/etc", "/a/../etc", "/proc/1"):
        with pytest.raises(InvalidInput):
            volumes = (Volume(tree="tree:of-the-suite", target=target),)
            await bed.driver.start(bed.request("v", container=script("", volumes=volumes)))


async def test_limits_are_called_what_they_are(bed: ProcessBed) -> None:
    expected = "hard" if bed.driver._cgroups.hard else "best effort"
    assert bed.driver.capabilities().limits == expected
    (check,) = [check for check in await bed.driver.probe() if check.name == "limits"]
    assert check.detail.startswith(expected)


async def test_every_wall_is_tried(bed: ProcessBed) -> None:
    checks = {check.name: check for check in await bed.driver.probe()}
    for name in ("user namespace", "pid namespace", "network namespace", "mounts", "seccomp"):
        assert checks[name].state == "ok", checks[name]
        assert checks[name].required
    assert checks["runtime missing"].state == "missing"
    assert checks["runtime missing"].fix == "apt install nowhere"


async def test_a_strict_umask_of_the_platform_shuts_no_function_out(tmp_path: Path) -> None:
    bed = ProcessBed(tmp_path)
    before = os.umask(0o077)  # as in the systemd unit
    try:
        await bed.open()
        done = await run(bed, "u", "open('/tmp/x', 'w').write('x'); open('/dev/null', 'w'); open('/etc/passwd')")
    finally:
        os.umask(before)
        await bed.close()
    assert done.code == 0, done.message
