"""What a row gets to measure with: a place for files, the load generator, platforms, and references."""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import references
from loads import Caller, Generator, Target
from processes import split

from harness import PYTHON, Platform, run_ms

PLAIN = {"main.py": "def handle(request, context):\n    return {'hello': 'world'}\n"}
SOON_IDLE = {"window": 6.0, "grace": 0.5}
"""The shortest way to zero that a function may ask for."""


class World:
    """Of one run."""

    def __init__(self, scratch: Path, rounds: int) -> None:
        self.scratch = scratch
        self.rounds = rounds
        self.generator = Generator(scratch)
        self.shared = contextlib.ExitStack()
        """Closed at the end of each group of rows."""
        self.kept: dict[str, Platform] = {}
        self.curves: dict[str, object] = {}
        """What the drawings are made of."""
        self._number = 0

    @cached_property
    def flags(self) -> str:
        """The options that this platform knows."""
        done = subprocess.run([sys.executable, "-m", "septet", "up", "--help"], capture_output=True, text=True)
        return done.stdout

    @cached_property
    def python_ms(self) -> float:
        """`python3 -I -S -c pass`: the measure of what milliseconds mean on this machine."""
        return best(lambda: [run_ms(PYTHON, "-I", "-S", "-c", "pass") for _ in range(10)])

    def folder(self, name: str) -> Path:
        self._number += 1
        path = self.scratch / f"{name}-{self._number}"
        path.mkdir()
        return path

    @contextlib.contextmanager
    def platform(self, *flags: str) -> Iterator[Platform]:
        with Platform(self.folder("platform") / "data", *flags) as platform:
            yield platform

    @cached_property
    def handler(self) -> Path:
        """The handler of the references: the very file that Septet gets."""
        path = self.folder("handler") / "main.py"
        path.write_text(PLAIN["main.py"])
        return path

    def nginx(self) -> contextlib.AbstractContextManager[tuple[int, list[int]]]:
        return references.nginx(self.folder("proxy") / "nginx", self.handler)


def best(measure: Callable[[], list[float]], times: int = 3) -> float:
    """The best median of three runs: what milliseconds count."""
    return min(statistics.median(measure()) for _ in range(times))


def port(platform: Platform) -> int:
    return int(platform.url.rsplit(":", 1)[1])


def target(platform: Platform, *names: str) -> Target:
    return Target(port(platform), [f"/fn/default/{name}/" for name in names], platform.token)


def caller(platform: Platform) -> Caller:
    return Caller(platform.url, platform.token)


def gateway(platform: Platform) -> list[int]:
    return split(platform.pid)[0]


def until(what: str, true: Callable[[], bool], seconds: float = 120, pause: float = 0.1) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not come true within {seconds:g} s")
        time.sleep(pause)


def instances(platform: Platform) -> int:
    """Of all functions, whatever their state."""
    got = platform.request("GET", "/metrics")
    return int(sum(float(v) for v in re.findall(r"^septet_instances\{[^}]*\} ([\d.e+]+)$", got.text, re.MULTILINE)))


def at_zero(platform: Platform) -> None:
    until("everything at zero", lambda: instances(platform) == 0, 180, 0.5)


def tiers(platform: Platform) -> dict[str, int] | None:
    """Cold starts by the tier that answered, from the platform's own counter; None when it counts none."""
    got = platform.request("GET", "/metrics").text
    found = re.findall(r'^septet_cold_starts_total\{[^}]*tier="([^"]+)"[^}]*\} ([\d.e+]+)$', got, re.MULTILINE)
    if not found and "septet_cold_starts" not in got:
        return None
    counts: dict[str, int] = {}
    for tier, value in found:
        counts[tier] = counts.get(tier, 0) + int(float(value))
    return counts


def apply_many(platform: Platform, names: list[str], files: dict[str, str], **template: object) -> None:
    """Deploys functions of one source, and waits until all are ready."""
    source = platform.request("POST", "/septet/v1/namespaces/default/blobs", _pack(files)).json["digest"]
    spec = {"template": {"runtime": "python", "source": source, **template}}
    for name in names:
        platform.api("PUT", f"/namespaces/default/functions/{name}", {"spec": spec})
    for name in names:
        platform.wait_ready(name, timeout=300)


def _pack(files: dict[str, str]) -> bytes:
    from septet_platform import pack

    return pack(files)
