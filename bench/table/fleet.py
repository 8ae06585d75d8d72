"""Rows of many functions and of many instances: what grows with their number, and what must not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from cold import multiple
from loads import burst, result
from measured import Measured, row
from processes import available, cpu, descriptors, kernel_memory, memory, resident, split, tree
from world import PLAIN, SOON_IDLE, World, apply_many, at_zero, caller, gateway, instances, target, tiers, until

from harness import Platform, run_ms

THOUSAND = 1000
MANY = 100_000
ROOMY = ("--memory-budget", "65536")
"""Above what the machine has: the limits of a thousand idle instances, not what they use."""
SMALL = {"memory": 32, "concurrency": 8}
HELD = {
    "main.py": "import os, time\n\ndef handle(request, context):\n"
    "    begun = time.clock_gettime(time.CLOCK_MONOTONIC)\n    time.sleep(3)\n"
    "    return {'begun': begun, 'instance': os.environ['SEPTET_INSTANCE']}\n"
}


def thousand(world: World) -> tuple[Platform, list[str]]:
    """A platform with a thousand functions, made once for the rows of its group."""
    names = [f"f{number:04d}" for number in range(THOUSAND)]
    if "thousand" not in world.kept:
        platform = world.shared.enter_context(world.platform(*ROOMY))
        apply_many(platform, names, PLAIN, scale=SOON_IDLE, limits=SMALL)
        world.kept["thousand"] = platform
    return world.kept["thousand"], names


@row("deploy", "a deploy of a source function, from the command to the first answer")
def deploy(world: World) -> list[Measured]:
    took, alone = [], []
    with world.platform() as platform:
        env = {"PATH": "/usr/bin:/bin", "SEPTET_URL": platform.url, "SEPTET_TOKEN": platform.token, "HOME": "/tmp"}
        if path := os.environ.get("PYTHONPATH"):
            env["PYTHONPATH"] = path
        for number in range(6):
            source = world.folder("source")
            (source / "main.py").write_text(f"{PLAIN['main.py']}# {number}\n")
            command = (sys.executable, "-m", "septet", "deploy", f"d{number}", "--runtime", "python")
            begin = time.perf_counter()
            subprocess.run([*command, "--source", source], env=env, check=True, capture_output=True)
            answered = platform.call(f"d{number}").status
            took.append((time.perf_counter() - begin) * 1000)
            if answered != 200:
                raise RuntimeError(f"d{number} answered {answered}")
            alone.append(run_ms(sys.executable, "-m", "septet", "--help", env=env))
    value, client = min(took), min(alone)
    what = "deploy of a source function, command to first answer"
    raw = {"ours": took, "client": alone}
    return [
        Measured(what, "ms", value, "septet --help", client, bound=500, aim=150, note=multiple(world, value), raw=raw)
    ]


@row("thousand-memory", "resident memory of the platform with 1,000 functions at zero", group="thousand")
def thousand_memory(world: World) -> list[Measured]:
    platform, _ = thousand(world)
    at_zero(platform)
    own = gateway(platform)
    value = resident(own)
    share = sum(memory(pid) for pid in own)
    with world.platform() as empty:
        floor = resident(gateway(empty))
    note = f"PSS {share:.0f}, {len(own)} processes"
    what = "1,000 functions at zero: resident memory of the platform"
    return [Measured(what, "MiB", value, "the platform without functions", floor, bound=200, aim=120, note=note)]


@row("burst-200", "200 first calls at once to 200 functions", group="thousand")
def burst_200(world: World) -> list[Measured]:
    platform, names = thousand(world)
    runs = []
    answered = 200
    for number in range(3):
        at_zero(platform)
        chosen = names[number * 200 : number * 200 + 200]
        seen = burst(platform.url, platform.token, [f"/fn/default/{name}/" for name in chosen])
        answered = min(answered, seen.statuses.count(200))
        runs.append(sorted(seen.took_ms)[int(0.99 * len(seen.took_ms))] / 1000)
    note = f"{answered} of 200 answered in the worst of three"
    value = min(runs) if answered == 200 else None
    what = "200 first calls at once to 200 functions, p99"
    return [Measured(what, "s", value, bound=1.5, aim=0.5, note=note, raw={"runs": runs})]


@row("starts", "fresh sandboxed starts a second, sustained over 400 functions", group="thousand")
def starts(world: World) -> list[Measured]:
    platform, names = thousand(world)
    return [_starts(platform, names[:400], "default isolation", 150, 500)]


@row("starts-shared", "the same in isolation class shared-namespace, 400 functions of one tenant")
def starts_shared(world: World) -> list[Measured]:
    names = [f"s{number:04d}" for number in range(400)]
    with world.platform(*ROOMY, "--shared-namespace", "default") as platform:
        apply_many(platform, names, PLAIN, scale=SOON_IDLE, limits=SMALL, isolation="shared-namespace")
        return [_starts(platform, names, "isolation shared-namespace", 500, 2500)]


def _starts(platform: Platform, names: list[str], isolation: str, bound: float, aim: float) -> Measured:
    at_zero(platform)
    before, used = tiers(platform), cpu(tree(platform.pid))
    began = time.perf_counter()
    answered = 0
    for first in range(0, len(names), 40):
        paths = [f"/fn/default/{name}/" for name in names[first : first + 40]]
        answered += burst(platform.url, platform.token, paths, settle=0).statuses.count(200)
    took, used = time.perf_counter() - began, cpu(tree(platform.pid)) - used
    after = tiers(platform)
    note = f"{answered} of {len(names)} answered, 40 at a time; {1000 * used / len(names):.2f} ms of processor each"
    if before is not None and after is not None:
        note += f"; tiers { ({k: v - before.get(k, 0) for k, v in after.items()}) }"
    what, raw = f"fresh sandboxed starts a second, {isolation}", {"seconds": took, "processor": used}
    return Measured(what, "/s", answered / took, bound=bound, aim=aim, better="more", note=note, raw=raw)


@row("in-turn", "1,000 functions called in turn, against one function", group="thousand")
def in_turn(world: World) -> list[Measured]:
    platform, names = thousand(world)
    apply_many(platform, names, PLAIN, scale={"min": 1, "max": 1}, limits=SMALL)
    until("1,000 instances", lambda: instances(platform) >= THOUSAND, 300, 1)
    all_of_them, one = [], []
    for number in range(4):
        pair = [world.generator.run(target(platform, *n), seconds=3, connections=8).rate for n in (names, names[:1])]
        if number:
            all_of_them.append(pair[0])
            one.append(pair[1])
    a, b = statistics.median(all_of_them), statistics.median(one)
    what = "1,000 functions called in turn: throughput"
    raw = {"ours": all_of_them, "theirs": one}
    return [Measured(what, "/s", a, "one function", b, "ratio", 0.7, 0.9, "more", "8 connections, all warm", raw)]


@row("zero-to-hundred", "one function from 0 to 100 sandboxes under 100 waiting calls")
def zero_to_hundred(world: World) -> list[Measured]:
    runs, answered, sandboxes = [], 100, 100
    with world.platform(*ROOMY) as platform:
        platform.deploy("wide", HELD, scale={**SOON_IDLE, "max": 100}, limits={"memory": 32})
        for _ in range(2):
            at_zero(platform)
            begin = time.clock_gettime(time.CLOCK_MONOTONIC) + 0.3
            seen = burst(platform.url, platform.token, ["/fn/default/wide/"] * 100)
            told = [json.loads(body) for body, status in zip(seen.bodies, seen.statuses, strict=False) if status == 200]
            answered = min(answered, len(told))
            sandboxes = min(sandboxes, len({each["instance"] for each in told}))
            runs.append(max(each["begun"] for each in told) - begin)
    note = f"{answered} of 100 answered by {sandboxes} sandboxes; until the last handler began, each holds its own 3 s"
    value = min(runs) if answered == 100 else None
    what = "0 to 100 sandboxes of one function under 100 calls"
    return [Measured(what, "s", value, bound=1.5, aim=0.25, note=note, raw={"runs": runs})]


@row("kill", "kill -9 of the platform at half load: seconds until it serves again")
def kill(world: World) -> list[Measured]:
    took = []
    with world.platform() as platform:
        platform.deploy("hello", PLAIN, scale={"min": 1}, limits={"concurrency": 64})
        half = world.generator.run(target(platform, "hello"), seconds=2).rate / 2
        for _ in range(3):
            load = world.generator.start(target(platform, "hello"), seconds=3, rate=half)
            time.sleep(1)
            begin = time.perf_counter()
            platform.kill()
            load.kill()
            load.wait()
            platform.start()
            while platform.call("hello").status != 200:
                time.sleep(0.005)
            took.append(time.perf_counter() - begin)
    what = "kill -9 at half load: serving again"
    note = f"at {half:.0f}/s; the harness starts it again at once"
    return [Measured(what, "s", min(took), bound=2, aim=0.3, note=note, raw={"runs": took})]


@row("hundred-thousand", "100,000 functions at zero: a first call of any, and a restart", long=True)
def hundred_thousand(world: World) -> list[Measured]:
    platform = Platform(world.folder("many") / "data", *ROOMY).start()
    try:
        platform.deploy("seed", PLAIN, scale=SOON_IDLE)
        platform.stop()
        filled = asyncio.run(_fill(platform.data / "store.db", MANY - 1))
        restarts, calls = [], []
        for round_ in range(3):
            begin = time.perf_counter()
            platform.start(timeout=120)
            while platform.call("seed").status != 200:
                time.sleep(0.01)
            restarts.append(time.perf_counter() - begin)
            link = caller(platform)
            numbers = [(7919 * (round_ * 5 + number)) % filled for number in range(5)]
            calls.append([link.ok(f"/fn/default/copy{number}/") for number in numbers])
            size = resident(gateway(platform))
            platform.stop()
    finally:
        platform.stop()
    value = min(statistics.median(each) for each in calls)
    raw = {"restarts": restarts, "calls": calls, "resident_mib": size}
    least, most = min(map(min, calls)), max(map(max, calls))
    note = f"{multiple(world, value)}; all of three rounds {least:.1f} to {most:.1f}"
    held = f"{size:.0f} MiB resident"
    return [
        Measured("100,000 functions at zero: first call of any", "ms", value, bound=50, aim=10, note=note, raw=raw),
        Measured(
            "100,000 functions at zero: restart to an answer", "s", min(restarts), bound=3, aim=0.3, note=held, raw=raw
        ),
    ]


async def _fill(path: Path, count: int) -> int:
    """Copies of the seed and its ready revision, through the store's own port: as if each had been deployed."""
    from septet.drivers.clock.system import SystemClock
    from septet.drivers.store.sqlite.store import SqliteStore
    from septet.model.function import Function, Revision

    store = SqliteStore(path, SystemClock())
    try:
        function = await store.get("Function", "default", "seed")
        assert isinstance(function, Function)
        revision = await store.get("Revision", "default", function.status.latest_ready)
        assert isinstance(revision, Revision)
        for first in range(0, count, 200):
            names = [f"copy{number}" for number in range(first, min(first + 200, count))]
            await asyncio.gather(*(_copy(store, function, revision, name) for name in names))
            await store.settle([family for name in names if (family := store.family("Function", "default", name))])
    finally:
        await store.close()
    return count


async def _copy(store: Any, function: Any, revision: Any, name: str) -> None:
    replace = msgspec.structs.replace
    meta = replace(function.meta, name=name, uid="", resource_version=0)
    made = await store.create(replace(function, meta=meta))
    own = f"{name}-00001"
    owner = replace(revision.meta.owner, name=name, uid=made.meta.uid)
    meta = replace(revision.meta, name=own, uid="", resource_version=0, owner=owner)
    spec = replace(revision.spec, function=name, function_uid=made.meta.uid)
    await store.create(replace(revision, meta=meta, spec=spec))
    traffic = tuple(replace(each, revision=own) for each in function.status.traffic)
    status = replace(
        function.status,
        latest_created=own,
        latest_ready=own,
        traffic=traffic,
        observed_generation=made.meta.generation,
    )
    await store.update_status(replace(made, status=status))


FROZEN = 200
KEPT = {"min": 0, "window": 6.0, "grace": 0.0, "keep_alive": 3600.0}


def frozen_ones(platform: Platform) -> int:
    got = platform.request("GET", "/metrics").text
    found = re.findall(r'^septet_instances\{[^}]*state="frozen"[^}]*\} ([\d.e+]+)$', got, re.MULTILINE)
    return int(sum(float(value) for value in found))


@row("frozen", "live, frozen Python instances that one GiB holds", long=True)
def frozen(world: World) -> list[Measured]:
    """One instance of each of many functions, since of a function one is kept, and only one that was called."""
    names = [f"kept{number:03d}" for number in range(FROZEN)]
    with world.platform(*ROOMY, "--warm-pool", "0") as platform:
        apply_many(platform, names, PLAIN, scale=SOON_IDLE, limits={"memory": 32})
        at_zero(platform)
        time.sleep(5)
        free, kernel, own = available(), kernel_memory(), set(tree(platform.pid))
        for name in names:
            platform.api("PUT", f"/namespaces/default/functions/{name}/scale", KEPT)
            if platform.call(name).status != 200:
                raise RuntimeError(f"{name} does not answer")
        until("all are frozen", lambda: frozen_ones(platform) == FROZEN, 180, 1)
        time.sleep(5)
        inside = [pid for pid in tree(platform.pid) if pid not in own]
        held = sum(memory(pid) for pid in inside)
        kernel, free = kernel_memory() - kernel, free - available()
        asleep = frozen_ones(platform)
        thawed = [caller(platform).ok(f"/fn/default/{name}/") for name in names[:20]]
    each = (held + kernel) / FROZEN
    note = (
        f"{asleep} of {FROZEN} frozen, {len(inside)} processes; each PSS {held / FROZEN:.2f} and kernel "
        f"{kernel / FROZEN:.2f} MiB; the kernel had {free / FROZEN:.2f} MiB less for each; "
        f"a call thaws one in {statistics.median(thawed):.2f} ms"
    )
    raw = {"pss_mib": held, "kernel_mib": kernel, "available_mib": free, "thawed_ms": thawed}
    value = 1024 / each if asleep == FROZEN else None
    what = "live, frozen Python instances in one GiB"
    return [Measured(what, "", value, bound=150, aim=400, better="more", note=note, raw=raw)]


@row("soak", "ten minutes at half load: growth of memory, descriptors and processes", long=True)
def soak(world: World) -> list[Measured]:
    minutes = 10
    samples: list[tuple[float, float, int, int]] = []
    with world.platform() as platform:
        platform.deploy("hello", PLAIN, scale={"min": 1}, limits={"concurrency": 64})
        half = world.generator.run(target(platform, "hello"), seconds=3).rate / 2
        process = world.generator.start(target(platform, "hello"), seconds=minutes * 60, rate=half)
        began = time.monotonic()
        while process.poll() is None:
            own, inside = split(platform.pid)
            both = own + inside
            samples.append((time.monotonic() - began, resident(own), descriptors(own), len(both)))
            with contextlib.suppress(Exception):
                process.wait(5)
        load = result(process)
    early = [each for each in samples if 60 <= each[0] < 120]
    late = [each for each in samples if each[0] >= minutes * 60 - 60]
    grown = [statistics.median(e[i] for e in late) - statistics.median(e[i] for e in early) for i in (1, 2, 3)]
    note = f"{half:.0f}/s, {load.requests} answered, {load.failed} failed, p99 {load.p99:.3g} ms"
    raw = {"samples": samples, "load": load._asdict()}
    return [
        Measured("soak of ten minutes: growth of resident memory", "MiB", grown[0], bound=2.0, note=note, raw=raw),
        Measured("soak of ten minutes: growth of descriptors", "", grown[1], bound=0),
        Measured("soak of ten minutes: growth of processes", "", grown[2], bound=0),
    ]
