"""An instance's life: events in, instructions out. It waits for nothing and calls nobody.

    waiting -> starting -> opening -> ready -> draining -> stopping -> gone
                                      ready -> frozen -> thawing -> ready

`waiting` is for room on the node; `opening` is the contract's: connect, until the process is ready.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from septet.model.errors import FunctionOutOfMemory, SeptetError, StartFailed
from septet.model.instance import InstanceExit, InstanceState

Phase = Literal["waiting", "starting", "opening", "thawing", "ready", "frozen", "draining", "stopping", "gone"]

SHOWN: dict[Phase, InstanceState] = {
    "waiting": "starting",
    "starting": "starting",
    "opening": "running",
    "thawing": "frozen",
    "ready": "ready",
    "frozen": "frozen",
    "draining": "draining",
    "stopping": "draining",
    "gone": "stopped",
}


class Room(NamedTuple):
    """There is room now; the sandbox may be asked to start it."""


class Running(NamedTuple):
    """The sandbox says that the process exists."""


class Opened(NamedTuple):
    """The contract opened the link."""


class Failed(NamedTuple):
    """It could not be started, or its link could not be opened."""

    error: SeptetError


class Retire(NamedTuple):
    """It is no longer wanted: running calls may end."""


class Idle(NamedTuple):
    """While draining: nothing runs in it any more, or the time for that is over."""


class Freeze(NamedTuple):
    """Nothing calls it, but it is kept: it may run no more until it is thawed."""


class Thaw(NamedTuple):
    """A call wants it again."""


class Thawed(NamedTuple):
    """The sandbox lets it run again."""


class Lost(NamedTuple):
    """The link broke."""


class Stopped(NamedTuple):
    """The sandbox says that it is gone. `log` is the end of what it wrote, where that explains a failed start."""

    exit: InstanceExit
    log: str = ""


Event = Room | Running | Opened | Failed | Retire | Idle | Freeze | Thaw | Thawed | Lost | Stopped

Do = Literal["launch", "open", "join", "freeze", "thaw", "drain", "stop", "kill", "bury", "forget"]

_FORWARD: dict[tuple[Phase, type[Event]], tuple[Phase, Do]] = {
    ("waiting", Room): ("starting", "launch"),
    ("starting", Running): ("opening", "open"),
    ("opening", Opened): ("ready", "join"),
    ("ready", Freeze): ("frozen", "freeze"),
    ("frozen", Thaw): ("thawing", "thaw"),
    ("thawing", Thawed): ("ready", "join"),
    ("draining", Idle): ("stopping", "stop"),
}


class Step(NamedTuple):
    """The next phase, what to do now in this order, and the error to report as this start's outcome."""

    phase: Phase
    do: tuple[Do, ...] = ()
    error: SeptetError | None = None


def step(phase: Phase, event: Event) -> Step:
    """What an event means in a phase; one that means nothing there (it came too late) changes nothing."""
    if phase == "gone":
        return Step("gone")
    if isinstance(event, Stopped):
        return _stopped(phase, event)
    if isinstance(event, Retire):
        return _retire(phase)
    if isinstance(event, Failed):
        return _failed(phase, event.error)
    if isinstance(event, Lost):
        return Step("stopping", ("bury",)) if phase in ("ready", "frozen", "thawing", "draining") else Step(phase)
    then = _FORWARD.get((phase, type(event)))
    return Step(then[0], (then[1],)) if then else Step(phase)


def _failed(phase: Phase, error: SeptetError) -> Step:
    if phase == "waiting":
        return Step("gone", ("forget",), error)
    if phase in ("starting", "opening"):
        return Step("stopping", ("kill",), error)
    # It started once: that it cannot be thawed says nothing of the next start.
    return Step("stopping", ("kill",)) if phase in ("frozen", "thawing") else Step(phase)


def _retire(phase: Phase) -> Step:
    if phase == "waiting":
        return Step("gone", ("forget",))
    if phase in ("starting", "opening"):
        return Step("stopping", ("kill",))
    if phase in ("frozen", "thawing"):
        return Step("stopping", ("stop",))
    return Step("draining", ("drain",)) if phase == "ready" else Step(phase)


def _stopped(phase: Phase, event: Stopped) -> Step:
    error = ended(event.exit, event.log) if phase in ("starting", "opening") else None
    return Step("gone", ("forget",), error)


def ended(exit: InstanceExit, output: str = "") -> SeptetError:
    """The error of a process that ended before it was ready; `details["log"]` is the end of its output."""
    told = {"log": output} if output else {}
    if exit.limit == "memory":
        return FunctionOutOfMemory(
            "the process used more memory than it may before it was ready",
            hint="raise limits.memory",
            limit="memory",
            stage="start",
            details=told,
        )
    how = exit.message or (
        f"it was killed by signal {exit.signal}" if exit.signal else f"it ended with code {exit.code}"
    )
    return StartFailed(
        f"the process ended before it was ready: {how}",
        hint="look at the function's logs",
        limit=exit.limit,
        details={"code": exit.code, "signal": exit.signal, **told},
    )
