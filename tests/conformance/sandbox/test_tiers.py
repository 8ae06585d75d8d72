"""What a process that was forked, and not exec'ed, must not show: its siblings, its parent, the host."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_beds import PoolBed, ZygoteBed
from sandbox_clauses import connected, states, stopped, until

TELL = """
import json, os, random, signal, ssl, sys, time, uuid
import logging, platform, tempfile, threading, traceback
seen = os.listdir("/tmp")
open("/tmp/mine", "w").close()
def read(name):
    with open("/proc/self/" + name, "rb") as file:
        return file.read().decode("utf-8", "replace")
fds = {}
for name in os.listdir("/proc/self/fd"):
    try:
        fds[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass
def thread():
    said = []
    worker = threading.Thread(target=said.append, args=("ran",))
    worker.start()
    worker.join()
    return said
files = {str(getattr(m, "__file__", "")) for m in list(sys.modules.values())}
names = {frame.filename for frame in traceback.extract_stack()}
frames, frame = [], sys._getframe()
while frame:
    frames.append(sorted(frame.f_locals) if frame.f_back else [])
    frame = frame.f_back
mounts = []
for words in (line.split() for line in read("mountinfo").splitlines()):
    end = words.index("-")  # the root in its file system, the place, attributes, propagation; kind and source
    mounts.append(" ".join(words[3:end] + words[end + 1 : end + 3]))
print("TELL " + json.dumps({
    "mounts": sorted(mounts), "set-uid": [p for p in ("/usr/bin/su", "/usr/bin/passwd") if os.path.isfile(p)],
    "random": random.random(), "uuid": str(uuid.uuid4()), "ssl": ssl.RAND_bytes(16).hex(), "tmp": seen,
    "environ": dict(os.environ), "proc_environ": read("environ"), "cmdline": read("cmdline"),
    "maps": sorted({line.split(None, 5)[5] for line in read("maps").splitlines() if len(line.split(None, 5)) > 5}),
    "fds": fds, "files": sorted(files), "stack": sorted(names), "node": platform.node(), "argv": sys.argv,
    "orig_argv": sys.orig_argv, "path": sys.path, "flags": str(sys.flags), "main": sys.modules["__main__"].__file__,
    "septet": sorted(name for name in sys.modules if name.startswith("septet.")), "umask": os.umask(0o022),
    "signals": {str(n): str(signal.getsignal(n)) for n in signal.valid_signals() if n < 32},
    "streams": [
        [s.fileno(), s.encoding, s.errors, s.name, s.line_buffering] for s in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "started": abs(logging._startTime - time.time()), "meta_path": [str(item) for item in sys.meta_path],
    "cpu": time.process_time(), "thread": thread(),
    "status": [line for line in read("status").splitlines() if line.startswith(
        ("Cap", "NoNewPrivs", "Seccomp", "SigIgn", "SigBlk", "Groups", "Uid"))],
}), flush=True)
time.sleep(60)
"""


@pytest.fixture(params=[ZygoteBed, PoolBed])
async def forked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ZygoteBed]:
    bed: ZygoteBed = request.param(tmp_path)
    (tmp_path / "tree/code/tell.py").write_text(TELL)
    await bed.open()
    try:
        yield bed
    finally:
        await bed.close()


async def told(bed: ZygoteBed, name: str, **fields: Any) -> dict[str, Any]:
    request = bed.request(name, **fields)
    container = request.containers[0]
    words = tuple("/function/code/tell.py" if word.endswith("/f.py") else word for word in container.command)
    container = type(container)(**{**{f: getattr(container, f) for f in container.__struct_fields__}, "command": words})
    await bed.driver.start(bed.request(name, container=container, **fields))
    found: list[bytes] = []

    def heard() -> bool:
        found[:] = [data for id, _, data in bed.output.lines if id == name and data.startswith(b"TELL ")]
        return bool(found)

    await until(heard, "it tells")
    told: dict[str, Any] = json.loads(found[0][5:])
    return told


def tier(bed: ZygoteBed, name: str) -> str:
    return next(event.instance.tier for event in bed.events if event.instance.id == name)


async def test_siblings_share_no_randomness_and_no_tmp(forked: ZygoteBed) -> None:
    first, second = await told(forked, "first"), await told(forked, "second")
    expected = "pool" if forked.pooled else "zygote"
    assert [tier(forked, "first"), tier(forked, "second")] == [expected, expected]
    for name in ("random", "uuid", "ssl"):
        assert first[name] != second[name]
    assert first["tmp"] == second["tmp"] == []


async def test_nothing_of_the_host_or_of_the_parent_shows(forked: ZygoteBed) -> None:
    seen = await told(forked, "one")
    assert sorted(seen["fds"]) == ["0", "1", "2", "3"]
    assert seen["septet"] == []
    assert seen["set-uid"] == []
    assert not [line for line in seen["mounts"] if "master:" in line or "shared:" in line]
    assert seen["node"] == "septet"
    assert seen["started"] < 5
    assert seen["thread"] == ["ran"]
    text = json.dumps({name: value for name, value in seen.items() if name != "environ"})
    for host in (str(forked.folder), str(Path(__file__).parents[3]), "memfd:", "ROOM"):
        assert host not in text
    assert all(name.startswith(("/usr/", "/lib", "/function/", "/opt/septet/", "<", "/////")) for name in seen["stack"])


async def test_a_fork_is_like_an_exec(forked: ZygoteBed) -> None:
    """All that a program can ask about itself, beside what is random, is the same."""
    fork, exec_ = await told(forked, "fork"), await told(forked, "exec", isolation="strict")
    assert tier(forked, "exec") == "exec"
    fork["proc_environ"] = fork["proc_environ"].rstrip("\0")
    exec_["proc_environ"] = exec_["proc_environ"].rstrip("\0")
    fork["status"] = [line for line in fork["status"] if not line.startswith("Seccomp_filters")]
    exec_["status"] = [line for line in exec_["status"] if not line.startswith("Seccomp_filters")]
    # Every one of a runtime shows the command line that its functions have.
    assert fork.pop("cmdline") == "\0".join((*exec_["orig_argv"][:4], "/opt/septet/runtime/start.py", ""))
    different = {
        name: (fork[name], exec_[name])
        for name in fork
        if name not in ("random", "uuid", "ssl", "maps", "stack", "started", "files", "cpu", "fds", "status")
        and fork[name] != exec_[name]
    }
    assert different == {}


async def test_the_zygote_s_death_costs_its_own_instances_alone(forked: ZygoteBed) -> None:
    await told(forked, "strict", isolation="strict")
    await told(forked, "lost")
    (zygote,) = forked.driver._zygotes.pids()
    starting = [asyncio.create_task(forked.driver.start(forked.request(f"mid-{n}"))) for n in range(4)]
    await asyncio.sleep(0)
    os.kill(zygote, signal.SIGKILL)
    await asyncio.gather(*starting)
    await stopped(forked, "lost")
    assert "stopped" not in states(forked, "strict"), [e.instance.exit for e in forked.events]
    await forked.driver.start(forked.request("meanwhile"))
    await connected(forked, "meanwhile")
    assert tier(forked, "meanwhile") == "exec"
    for number in range(4):
        await forked.driver.stop(f"mid-{number}", 0)
    await forked.settled()
    await told(forked, "again")
    assert tier(forked, "again") == ("pool" if forked.pooled else "zygote")


async def test_a_burst_leaves_nothing(forked: ZygoteBed) -> None:
    before = forked.inventory()
    names = [f"burst-{number}" for number in range(100)]
    await asyncio.gather(*(forked.driver.start(forked.request(name)) for name in names))
    for name in names:
        await connected(forked, name)
    await asyncio.gather(*(forked.driver.stop(name, 0) for name in names))
    assert await forked.driver.instances() == []
    await forked.settled()
    after = forked.inventory()
    assert {name: (was, after[name]) for name, was in before.items() if was != after[name]} == {}
