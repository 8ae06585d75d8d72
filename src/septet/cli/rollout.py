"""Waiting until what was deployed is ready, telling meanwhile what is waited for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from septet.cli.failures import Exit, Failure
from septet.cli.options import Session
from septet.cli.output import clean, colour_wanted, condition, note

PAUSE_FIRST = 0.05
PAUSE_MOST = 1.0
LOG_END = 30


@dataclass
class Watcher:
    """What one function's rollout has shown so far."""

    session: Session
    name: str
    phase: str = ""
    log_lines: int = 0
    say: Callable[[str], None] = field(default=note)

    def look(self) -> bool:
        """One look at the function. True when the latest revision serves; Failure when it cannot become ready."""
        function = self.session.client.get(self.session.path("functions", self.name))
        status = function.get("status") or {}
        latest = status.get("latest_created", "")
        if status.get("observed_generation", 0) < function["meta"].get("generation", 0):
            return self.tell("waiting for the platform to look at it")
        if not latest:
            state, why = condition(function)
            if state == "no":
                raise Failure(f"not ready: {why}")
            return self.tell("waiting for its first revision")
        revision = self.session.client.get(self.session.path("functions", self.name, "revisions", latest))
        phase = revision["status"].get("phase", "pending")
        if phase != "failed":
            self.tell(f"{latest} is {phase}")
        if phase == "building":
            self.build_log(latest)
        if phase == "failed":
            raise self.failed(revision, latest, bool(status.get("latest_ready")))
        return phase in ("ready", "retired") and self.serving(function)

    def serving(self, function: dict[str, Any]) -> bool:
        """Whether the traffic has moved, or has begun to when it is to move gradually. Failure when it cannot."""
        state, why = condition(function)
        if state == "no":
            raise Failure(f"not ready: {first_line(why)}")
        gradual = function["spec"].get("rollout", 0) > 0
        return state == "yes" or (
            gradual and function["status"].get("latest_ready") == function["status"]["latest_created"]
        )

    def tell(self, phase: str) -> bool:
        if phase != self.phase:
            self.phase = phase
            self.say(f"{self.name}: {clean(phase)}")
        return False

    def build_log(self, revision: str, most: int = 1_000_000) -> None:
        """Says the lines of the build's log that were not said yet, the last `most` of them."""
        try:
            text = self.session.client.get(
                self.session.path("functions", self.name, "revisions", revision, "build-log")
            )
        except Failure as failure:
            if failure.code == Exit.NOT_FOUND:
                return
            raise
        lines = str(text or "").splitlines()
        for line in lines[self.log_lines :][-most:]:
            self.say(f"  | {clean(line)}")
        self.log_lines = max(self.log_lines, len(lines))

    def failed(self, revision: dict[str, Any], latest: str, serves: bool) -> Failure:
        """Why the revision failed, with the end of its build's log or its trace."""
        _, why = condition(revision)
        first, *rest = why.splitlines() or ["no reason was given"]
        if why.startswith("build"):
            self.build_log(latest, LOG_END)
            rest = rest if self.log_lines == 0 else []
        return Failure(
            f"{latest} did not become ready: {clean(first)}",
            hint="what served before keeps serving" if serves and "keeps serving" not in first else "",
            more="\n".join(f"  | {clean(line)}" for line in rest),
        )


def first_line(text: str) -> str:
    return clean(text.partition("\n")[0])


def wait_ready(session: Session, name: str, patience: float) -> None:
    """Returns when the function's latest revision serves. Failure when it cannot, or after `patience` seconds."""
    end = time.monotonic() + patience
    pause = PAUSE_FIRST
    with spinner(f"{name}: waiting") as say:
        watcher = Watcher(session, name, say=say)
        while not watcher.look():
            if time.monotonic() >= end:
                raise Failure(
                    f"not ready after {patience:.0f} s, still: {watcher.phase or 'starting'}",
                    hint="look again with `septet describe`, or wait longer with --timeout",
                    code=Exit.TIMEOUT,
                )
            time.sleep(pause)
            pause = min(pause * 1.5, PAUSE_MOST)


def spinner(text: str) -> AbstractContextManager[Callable[[str], None]]:
    """Something that moves while a person waits at a terminal; elsewhere just the lines."""
    import os

    if not (sys.stderr.isatty() and colour_wanted(sys.stderr)) or os.environ.get("CI"):
        return nullcontext(note)
    return _Spinner(text)


class _Spinner:
    def __init__(self, text: str) -> None:
        from rich.console import Console
        from rich.text import Text

        self.text = Text
        self.console = Console(stderr=True, highlight=False)
        self.status = self.console.status(Text(text))

    def __enter__(self) -> Callable[[str], None]:
        self.status.start()
        return self.say

    def say(self, line: str) -> None:
        self.status.update(self.text(line))
        self.console.print(self.text(line))

    def __exit__(self, *_exc: object) -> None:
        self.status.stop()
