"""What this host can do for the process sandbox: each thing tried in a throw-away process, none assumed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import septet
from septet.drivers.sandbox.process.cgroup import Cgroups
from septet.drivers.sandbox.process.resolve import find_interpreter
from septet.model.runtime import Runtime
from septet.ports.sandbox import Check

_SOURCE = str(Path(septet.__file__).parent.parent)
_SECONDS = 20
_COSTS = {
    "user namespace": "no isolation of users: the process sandbox refuses to start",
    "mount namespace": "no own file system: the process sandbox refuses to start",
    "pid namespace": "processes of others could be seen: the process sandbox refuses to start",
    "network namespace": "no own network: the process sandbox refuses to start",
    "ipc namespace": "shared memory of others could be reached: the process sandbox refuses to start",
    "uts namespace": "the host's name would be visible: the process sandbox refuses to start",
    "cgroup namespace": "the host's control groups would be visible: the process sandbox refuses to start",
    "mounts": "no read-only root: the process sandbox refuses to start",
    "seccomp": "every system call of the kernel would be open: the process sandbox refuses to start",
    "overlay": "mountinfo inside an instance shows where the data directory is",
    "landlock": "one wall less around files; the mounts still hold",
}
_FIXES = {
    "user namespace": "sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=65536, or run as root",
    "mounts": "a kernel of 5.12 or newer",
    "seccomp": "a kernel with CONFIG_SECCOMP_FILTER on x86_64 or aarch64",
    "overlay": "a kernel of 5.11 or newer with the overlay module loaded",
    "landlock": "a kernel of 5.13 or newer with landlock in its lsm= list",
}
_SOFT = {
    "memory": "memory is checked ten times a second instead of by the kernel",
    "cpu": "processor time is not limited",
    "pids": "processes are counted for each user, not for each instance",
}
_OPTIONAL = frozenset({"overlay", "landlock"})


async def probe(python: str, cgroups: Cgroups, runtimes: Mapping[str, Runtime]) -> list[Check]:
    """One line for each wall, for the limits, and for each runtime's interpreter."""
    checks = [_check(name, error) for name, error in (await _trial(python)).items()]
    return [*checks, await asyncio.to_thread(_limits, cgroups), *(_runtime(item) for item in runtimes.values())]


async def _trial(python: str) -> dict[str, str]:
    code = f"import sys; sys.path.insert(0, {_SOURCE!r}); from septet.drivers.sandbox.process.trial import main; main()"
    process = await asyncio.create_subprocess_exec(
        python, "-I", "-S", "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd="/"
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), _SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        return dict.fromkeys(_COSTS, f"the trial did not end within {_SECONDS} s")
    try:
        found: dict[str, str] = json.loads(out)
    except ValueError:
        text = err.decode("utf-8", "replace").strip().splitlines()
        return dict.fromkeys(_COSTS, f"the trial failed: {text[-1] if text else 'it said nothing'}")
    return found


def _check(name: str, error: str) -> Check:
    required = name not in _OPTIONAL
    if not error:
        return Check(name=name, state="ok", required=required)
    return Check(
        name=name,
        state="missing" if required else "degraded",
        detail=error,
        cost=_COSTS.get(name, ""),
        fix=_FIXES.get(name, ""),
        required=required,
    )


def _limits(cgroups: Cgroups) -> Check:
    if not cgroups.hard and not cgroups.why:
        cgroups.try_out()
    if cgroups.hard:
        return Check(name="limits", state="ok", detail="hard: control groups")
    kept = f"; the kernel holds {', '.join(sorted(cgroups.held))}" if cgroups.held else ""
    return Check(
        name="limits",
        state="degraded",
        detail=f"best effort: {cgroups.why}{kept}",
        cost=", ".join(text for name, text in _SOFT.items() if name not in cgroups.held),
        fix=cgroups.fix,
    )


def _runtime(runtime: Runtime) -> Check:
    found = find_interpreter(runtime)
    if found is not None or not runtime.interpreter:
        return Check(name=f"runtime {runtime.name}", state="ok", detail=found.path if found else "")
    return Check(
        name=f"runtime {runtime.name}",
        state="missing",
        detail=f"none of {', '.join(runtime.interpreter)}",
        cost=f"functions of runtime {runtime.name} cannot be built or run",
        fix=runtime.install_hint,
    )
