"""Rows of the warm path: what a call costs beyond the function, and how long it waits."""

from __future__ import annotations

import statistics

import references
from loads import Target, result
from measured import Measured, row
from processes import cpu, tree
from world import PLAIN, World, gateway, target

from harness import Platform

WARM = {"scale": {"min": 1, "max": 1}}
ASYNC = {"main.py": PLAIN["main.py"].replace("def handle", "async def handle")}
KINDS: dict[str, tuple[dict[str, str], dict[str, int]]] = {"sync": (PLAIN, {}), "async": (ASYNC, {"concurrency": 64})}
"""A synchronous handler runs one call at a time, which is the default; an asynchronous one serves all connections."""
NO_ACCELERATOR = "not shipped: docs/adr/0008-no-accelerator-yet.md"


def cost(world: World, to: Target, pids: list[int], seconds: float = 2.0) -> float:
    """Microseconds of processor time of these processes for each answered request, 32 connections."""
    before = cpu(pids)
    load = world.generator.run(to, seconds=seconds)
    used = cpu(pids) - before
    return used / load.requests * 1e6


@row("gateway-cpu", "processor time of the gateway for a warm GET, against nginx")
def gateway_cpu(world: World) -> list[Measured]:
    ours: dict[str, list[float]] = {kind: [] for kind in KINDS}
    theirs: list[float] = []
    with world.platform() as platform, world.nginx() as (port, workers):
        for kind, (files, limits) in KINDS.items():
            platform.deploy(kind, files, scale={"min": 1, "max": 1}, limits=limits)
        other = Target(port, ["/"])
        for number in range(world.rounds + 1):
            found = {kind: cost(world, target(platform, kind), gateway(platform)) for kind in KINDS}
            reference = cost(world, other, workers)
            if number:  # the first round warms up
                theirs.append(reference)
                for kind, value in found.items():
                    ours[kind].append(value)
    b = statistics.median(theirs)
    rows = [
        Measured(
            f"gateway CPU per warm GET, 32 connections, {kind} handler",
            "us",
            statistics.median(values),
            "nginx proxy",
            b,
            "ratio",
            2.0,
            1.4,
            raw={"ours": values, "theirs": theirs},
        )
        for kind, values in ours.items()
    ]
    return [
        *rows,
        Measured("the same with the accelerator", "us", None, bound=1.0, aim=0.7, of="ratio", note=NO_ACCELERATOR),
    ]


@row("whole-path", "processor time of gateway, shim and handler, against of-watchdog")
def whole_path(world: World) -> list[Measured]:
    ours: dict[str, list[float]] = {kind: [] for kind in KINDS}
    theirs: list[float] = []
    note = ""
    for kind, (files, limits) in KINDS.items():
        # A platform for each, so that no other function's process is counted.
        with world.platform() as platform:
            platform.deploy(kind, files, scale={"min": 1, "max": 1}, limits=limits)
            cost(world, target(platform, kind), tree(platform.pid), seconds=1)
            try:
                program = references.install_watchdog(world.folder("watchdog"))
                with references.watchdog(program, world.handler) as (port, pids):
                    for _ in range(world.rounds):
                        ours[kind].append(cost(world, target(platform, kind), tree(platform.pid)))
                        theirs.append(cost(world, Target(port, ["/"]), pids))
            except references.Missing as missing:
                note = f"reference missing: {missing}"
                ours[kind] = [cost(world, target(platform, kind), tree(platform.pid)) for _ in range(world.rounds)]
    return [
        Measured(
            f"whole path: gateway, shim and handler, CPU per request, {kind} handler",
            "us",
            statistics.median(values),
            "of-watchdog and handler",
            statistics.median(theirs) if theirs else None,
            "ratio",
            0.40,
            0.20,
            note=note,
            raw={"ours": values, "theirs": theirs},
        )
        for kind, values in ours.items()
    ]


@row("p50", "median latency with one connection, against nginx")
def p50(world: World) -> list[Measured]:
    ours, theirs = [], []
    with world.platform() as platform, world.nginx() as (port, _):
        platform.deploy("hello", PLAIN, **WARM)
        for _ in range(3):
            ours.append(world.generator.run(target(platform, "hello"), seconds=1.5, connections=1).p50)
            theirs.append(world.generator.run(Target(port, ["/"]), seconds=1.5, connections=1).p50)
    raw = {"ours": ours, "theirs": theirs}
    return [Measured("p50, one connection", "ms", min(ours), "nginx proxy", min(theirs), "ratio", 2.0, 1.3, raw=raw)]


def saturated(world: World, to: Target) -> float:
    """Answers a second of an open loop that asks for more than there is: calls come one by one, as strangers' do.

    A closed loop reaches more, as answers that leave together bring their next calls together.
    """
    more = statistics.median(world.generator.run(to, seconds=2).rate for _ in range(3))
    return statistics.median(world.generator.run(to, seconds=2, rate=more, connections=64).rate for _ in range(3))


@row("p99", "p99 of an open loop at 70 % of the saturation rate, against nginx at the same rate; draws a curve")
def p99(world: World) -> list[Measured]:
    with world.platform() as platform, world.nginx() as (port, _):
        platform.deploy("hello", PLAIN, **WARM)
        mine, other = target(platform, "hello"), Target(port, ["/"])
        world.generator.run(mine, seconds=1)
        saturation = saturated(world, mine)
        rate = 0.7 * saturation
        rounds = [
            (
                world.generator.run(mine, seconds=4, rate=rate, connections=64),
                world.generator.run(other, seconds=4, rate=rate, connections=64),
            )
            for _ in range(3)
        ]
        curve = {}
        for name, to in (("Septet", mine), ("nginx", other)):
            shares = (0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9)
            runs = [world.generator.run(to, seconds=2, rate=share * saturation, connections=64) for share in shares]
            for quantile in ("p50", "p99"):
                points = [(share * saturation, getattr(run, quantile)) for share, run in zip(shares, runs, strict=True)]
                curve[f"{name} {quantile}"] = points
    world.curves["latency"] = curve
    late = max(run.late_p99 for pair in rounds for run in pair)
    failed = sum(run.failed for pair in rounds for run in pair)
    note = f"{rate:.0f}/s, generator late by {late:.2g} ms at p99" + (f", {failed} failed" if failed else "")
    raw = {"saturation": saturation, "rounds": [[run._asdict() for run in pair] for pair in rounds], "curve": curve}
    a, b = (min(pair[side].p99 for pair in rounds) for side in (0, 1))
    return [
        Measured("p99 at 70 % of saturation", "ms", a, "nginx proxy", b, "ratio", 3.0, 1.5, note=note, raw=raw),
    ]


COUNTING = {
    "server.py": """
import os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock, inside, most = threading.Lock(), 0, 0

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.004)
        with lock:
            inside -= 1
        data = b"%d" % most
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 128

Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
}
ALLOWED = 4


NAMES = [f"hot{number}" for number in range(6)]


def hot(world: World, platform: Platform, mixed: bool) -> tuple[float, float]:
    """Microseconds of the platform's own processes for each answer, and answers a second. `mixed`: each connection
    calls all functions in turn; else each function has connections of its own."""
    own = gateway(platform)
    before = cpu(own)
    if mixed:
        loads = [world.generator.run(target(platform, *NAMES), seconds=2, connections=30)]
    else:
        running = [world.generator.start(target(platform, name), seconds=2, connections=5) for name in NAMES]
        loads = [result(process) for process in running]
    answered = sum(load.requests for load in loads)
    return (cpu(own) - before) / answered * 1e6, sum(load.rate for load in loads)


@row("workers", "several hot functions with two workers, against one process; concurrency limits under load")
def workers(world: World) -> list[Measured]:
    found: dict[tuple[bool, str], list[tuple[float, float]]] = {}
    with world.platform() as one, world.platform("--workers", "2") as two:
        for platform in (one, two):
            for name in NAMES:
                platform.deploy(name, PLAIN, **WARM)
        for number in range(world.rounds + 1):
            for mixed in (False, True):
                for kind, platform in (("one", one), ("two", two)):
                    seen = hot(world, platform, mixed)
                    if number:  # the first round warms up
                        found.setdefault((mixed, kind), []).append(seen)
        command = ["/usr/bin/python3", "server.py"]
        limits = {"concurrency": ALLOWED}
        two.deploy("counting", COUNTING, runtime="http", command=command, limits=limits, **WARM)
        world.generator.run(target(two, "counting"), seconds=2)
        most = int(two.call("counting").text)
    rows = []
    for mixed, how in ((False, "own connections for each"), (True, "each connection calls all in turn")):
        (a, fast), (b, slow) = (
            map(statistics.median, zip(*found[mixed, kind], strict=True)) for kind in ("two", "one")
        )
        what = f"6 hot functions, --workers 2, {how}: CPU per request"
        raw = {kind: found[mixed, kind] for kind in ("one", "two")}
        rows.append(Measured(what, "us", a, "one process", b, note=f"{fast / slow:.2f} times the answers", raw=raw))
    over = f"{most} at once of {ALLOWED}, from 32 connections at two workers"
    what = "calls beyond a concurrency limit, --workers 2"
    return [*rows, Measured(what, "", max(0, most - ALLOWED), bound=0, note=over)]
