"""Rows of the cold path: four different numbers that are never to be mixed up, each with the tier that answered."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping
from typing import Any

import references
from measured import Measured, row
from processes import split
from septet_platform import pack
from world import PLAIN, SOON_IDLE, World, apply_many, at_zero, caller, tiers, until

from harness import Platform, children, proportional

COUNT = 8
NODE = {"index.js": "exports.handle = (request, context) => ({hello: 'world'});\n"}
HEAVY = {
    "main.py": "import numpy, requests\n\ndef handle(request, context):\n    return {'n': int(numpy.int64(3))}\n",
    "requirements.txt": "numpy\nrequests\n",
}

HELD_HEAVY = {
    **HEAVY,
    "main.py": "import time\nimport numpy, requests\n\ndef handle(request, context):\n"
    "    time.sleep(float(request.query.get('hold', 0)))\n    return {'n': int(numpy.int64(3))}\n",
}


def first_calls(platform: Platform, names: list[str], pause: float = 0.05) -> tuple[list[float], dict[str, int] | None]:
    """Milliseconds of the first call of each function at zero, and which tiers answered them."""
    at_zero(platform)
    link = caller(platform)
    link.call("/healthz")
    before = tiers(platform)
    took = []
    for name in names:
        took.append(link.ok(f"/fn/default/{name}/"))
        time.sleep(pause)
    after = tiers(platform)
    if before is None or after is None:
        return took, None
    return took, {tier: count - before.get(tier, 0) for tier, count in after.items() if count > before.get(tier, 0)}


def three_runs(platform: Platform, names: list[str], pause: float = 0.05) -> tuple[float, dict[str, int] | None, Any]:
    runs = [first_calls(platform, names, pause) for _ in range(3)]
    best = min(runs, key=lambda run: statistics.median(run[0]))
    return statistics.median(best[0]), best[1], [run[0] for run in runs]


def multiple(world: World, value: float) -> str:
    return f"{value / world.python_ms:.2g} x python3 -I -S -c pass ({world.python_ms:.3g} ms)"


def _tier(world: World, tier: str) -> tuple[float | None, str, Any, str]:
    """Median of first calls that this tier answered: value, note, raw, isolation class."""
    known = world.flags
    isolation = "strict" if tier == "exec" and "--no-zygote" in known else "default"
    if tier == "pool" and "--warm-pool" not in known:
        return None, "tier not available: no --warm-pool", {}, isolation
    if tier == "zygote" and "--no-zygote" not in known:
        return None, "tier not available: no --no-zygote", {}, isolation
    flags = {"pool": ["--warm-pool", str(COUNT)], "zygote": ["--warm-pool", "0"], "exec": ["--no-zygote"]}[tier]
    usable = flags[0] in known
    template: dict[str, Any] = {"scale": SOON_IDLE}
    with world.platform(*(flags if usable else [])) as platform:
        names = [f"cold{number}" for number in range(COUNT)]
        try:
            if tier == "exec" and "--no-zygote" in known:
                template["isolation"] = "strict"
            apply_many(platform, names, PLAIN, **template)
        except AssertionError:
            template.pop("isolation", None)
            isolation = "default"
            apply_many(platform, names, PLAIN, **template)
        value, seen, raw = three_runs(platform, names, pause=0.3 if tier == "pool" else 0.05)
    counted = {"answered by": seen, "runs": raw}
    if seen is None and tier != "exec":
        return None, "tier not available: the platform counts none", counted, isolation
    if seen is not None and seen.get(tier, 0) < COUNT:
        return None, f"tier not available: answered by {seen}", counted, isolation
    return value, multiple(world, value), counted, isolation


@row("first-call", "first call of an idle Python function: pool, zygote, exec, and ever; against runc; draws a chart")
def first_call(world: World) -> list[Measured]:
    found = []
    runc, why = _runc(world)
    bounds = {"pool": (5.0, 1.0, 0.10, 0.01), "zygote": (15.0, 6.0, 0.35, 0.1), "exec": (None, None, None, None)}
    chart: dict[str, float] = {}
    for tier, (bound, aim, relative, relative_aim) in bounds.items():
        value, note, raw, isolation = _tier(world, tier)
        what = f"first call, Python, {tier}, isolation {isolation}"
        found.append(Measured(what, "ms", value, bound=bound, aim=aim, note=note, raw=raw))
        found.append(
            Measured(f"{what}: against runc", "ms", value, "runc run", runc, "ratio", relative, relative_aim, note=why)
        )
        if value is not None:
            chart[tier] = value
    ever = first_ever(world)
    found.append(
        Measured("first ever call: upload, unpacking, compiling, start", "ms", ever, note=multiple(world, ever))
    )
    chart |= {"ever, with unpacking": ever, "python3 -c pass": world.python_ms}
    if runc is not None:
        chart["runc run"] = runc
    world.curves["cold"] = chart
    return found


def _runc(world: World) -> tuple[float | None, str]:
    try:
        bundle = references.runc_bundle(world.folder("bundle"), world.handler)
        return min(statistics.median(references.runc_once(bundle) for _ in range(5)) for _ in range(3)), ""
    except references.Missing as missing:
        return None, f"reference missing: {missing}"


def first_ever(world: World) -> float:
    """From the first byte of the upload to the first answer: nothing of the source was there before."""
    took = []
    with world.platform() as platform:
        for number in range(5):
            files = {"main.py": f"{PLAIN['main.py']}# {number}\n"}
            begin = time.perf_counter()
            digest = platform.request("POST", "/septet/v1/namespaces/default/blobs", pack(files)).json["digest"]
            spec = {"template": {"runtime": "python", "source": digest}}
            platform.api("PUT", f"/namespaces/default/functions/ever{number}", {"spec": spec})
            while platform.call(f"ever{number}").status != 200:
                time.sleep(0.002)
            took.append((time.perf_counter() - begin) * 1000)
    return min(took)


def _plain_first_call(
    world: World,
    what: str,
    files: Mapping[str, str],
    count: int,
    bound: float,
    aim: float,
    *flags: str,
    **template: Any,
) -> list[Measured]:
    with world.platform(*flags) as platform:
        names = [f"cold{number}" for number in range(count)]
        for name in names:
            platform.deploy(name, files, timeout=300, scale=SOON_IDLE, **template)
        value, seen, raw = three_runs(platform, names, pause=0.3)
    note = f"{multiple(world, value)}; answered by {seen or 'exec, the only tier'}"
    return [Measured(what, "ms", value, bound=bound, aim=aim, note=note, raw={"runs": raw, "answered by": seen})]


@row("first-call-node", "first call of an idle Node function from the pool")
def first_call_node(world: World) -> list[Measured]:
    flags = ["--warm-pool", "4"] if "--warm-pool" in world.flags else []
    limits = {"memory": 256}
    what = "first call, Node, from the pool"
    return _plain_first_call(world, what, NODE, 4, 10.0, 2.0, *flags, runtime="node", limits=limits)


@row("first-call-imports", "first call of a Python function that imports numpy and requests")
def first_call_imports(world: World) -> list[Measured]:
    what = "first call, Python with numpy and requests"
    found = _plain_first_call(world, what, HEAVY, 2, 15.0, 8.0, limits={"memory": 256})
    return [*found, _from_frozen(world, what), _from_its_zygote(world, what)]


def _from_its_zygote(world: World, what: str) -> Measured:
    """Calls that find every instance busy: each gets a new one. The same limits, and keep-alive, without which a
    function has no zygote."""
    took = []
    with world.platform("--memory-budget", "65536", "--shared-namespace", "default") as platform:
        scale = {**SOON_IDLE, "keep_alive": 3600.0, "max": COUNT + 2}
        platform.deploy(
            "heavy", HELD_HEAVY, timeout=300, isolation="shared-namespace", scale=scale, limits={"memory": 256}
        )
        path = "/septet/v1/namespaces/default/functions/heavy/summary"
        until("its zygote", lambda: platform.request("GET", path).json["zygotes"] == 1, 60)
        before = tiers(platform) or {}
        for _ in range(COUNT):
            busy = threading.Thread(target=caller(platform).call, args=("/fn/default/heavy/?hold=12",), daemon=True)
            busy.start()
            time.sleep(0.5)
            link = caller(platform)
            link.call("/healthz")
            took.append(link.ok("/fn/default/heavy/"))
        after = tiers(platform) or {}
        busy.join()
    seen = {tier: count - before.get(tier, 0) for tier, count in after.items() if count > before.get(tier, 0)}
    value = statistics.median(took)
    note = f"{multiple(world, value)}; isolation shared-namespace; answered by {seen}"
    what = f"{what}, a new instance from the function's zygote"
    return Measured(what, "ms", value, bound=15.0, aim=8.0, note=note, raw={"runs": took})


def _from_frozen(world: World, what: str) -> Measured:
    """The same function kept alive: its modules are loaded, so the call waits for a thaw alone."""
    took = []
    kept = {**SOON_IDLE, "grace": 0.0, "keep_alive": 600.0}
    with world.platform() as platform:
        platform.deploy("kept", HEAVY, timeout=300, scale=kept, limits={"memory": 256})
        link = caller(platform)
        link.ok("/fn/default/kept/")
        for _ in range(5):
            until("it is frozen", lambda: [i["state"] for i in platform.instances("kept")] == ["frozen"], 60)
            took.append(link.ok("/fn/default/kept/"))
    value = statistics.median(took)
    return Measured(f"{what}, kept frozen", "ms", value, note=multiple(world, value), raw={"took": took})


@row("memory", "memory (PSS) of an idle Python instance, beside the interpreter asleep")
def memory(world: World) -> list[Measured]:
    import subprocess

    from harness import PYTHON

    count = 10
    with world.platform() as platform:
        own = set(split(platform.pid)[0])
        platform.deploy("idle", PLAIN, scale={"min": count, "max": count})
        while sum(info["state"] == "ready" for info in platform.instances("idle")) < count:
            time.sleep(0.1)
        time.sleep(2)
        inside = [pid for pid in children(platform.pid) if pid not in own]
        first = {pid for pid in inside if not set(children(pid)).isdisjoint(inside)}
        # Those that wait for a function are among them: the same processes, counted with the others.
        handlers = [child for pid in first for child in children(pid)]
        functions = statistics.mean(proportional(pid) for pid in handlers)
        init = statistics.mean(proportional(pid) for pid in first)
        bare = [subprocess.Popen([PYTHON, "-I", "-S", "-c", "import time; time.sleep(600)"]) for _ in range(count)]
        time.sleep(1)
        asleep = statistics.median(proportional(process.pid) for process in bare)
        for process in bare:
            process.kill()
            process.wait()
    note = f"function {functions:.2f} and its init {init:.2f}, {len(handlers)} of them"
    what = "memory (PSS) of an idle Python instance, init included"
    return [Measured(what, "MiB", functions + init, "interpreter asleep", asleep, bound=6.0, aim=3.5, note=note)]
