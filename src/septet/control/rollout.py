"""Where a function's traffic goes now, by what is ready and what time it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from septet.model.function import Function, Revision
from septet.policy import traffic


class Move(NamedTuple):
    """The traffic to be in force; `again` is in how many seconds it changes by itself, if it does. `started_at`
    is when the rollout under way began, in epoch seconds, 0 when there is none."""

    traffic: traffic.Mix
    latest_ready: str
    started_at: float
    status: bool | None
    reason: str
    message: str = ""
    again: float | None = None


def move(function: Function, revisions: Sequence[Revision], now: float) -> Move:
    """Traffic goes to ready revisions alone; as long as a target is not ready, everything stays as it is."""
    status = function.status
    ready = [revision for revision in revisions if revision.status.phase == "ready"]
    latest = max(ready, key=lambda revision: revision.spec.number).meta.name if ready else ""
    names = {revision.meta.name for revision in ready}
    resolution = traffic.resolve(function.spec.traffic, latest, names)
    if resolution.missing:
        known = {revision.meta.name: revision.status.phase for revision in revisions}
        return _stay(function, latest, resolution.missing[0], known)
    started = status.rollout_started_at
    if latest != status.latest_ready and status.traffic and function.spec.rollout > 0:
        started = now
    done = Move(resolution.targets, latest, 0.0, True, "Assigned")
    if not started:
        return done
    goal = next((target.percent for target in function.spec.traffic if not target.revision), 0)
    elapsed = max(0.0, now - started)
    percent = traffic.share(elapsed, function.spec.rollout, goal)
    mix = traffic.rolled(function.spec.traffic, status.traffic, resolution.targets, percent)
    if mix is None or percent >= goal:
        return done
    return Move(
        mix,
        latest,
        started,
        None,
        "RolloutInProgress",
        f"{latest} has {percent} of {goal} percent",
        traffic.next_change(elapsed, function.spec.rollout, goal),
    )


def _stay(function: Function, latest: str, missing: str, known: Mapping[str, str]) -> Move:
    """A target cannot be served: the traffic in force stays. A revision still on its way is worth waiting for."""
    current = function.status.traffic
    started = function.status.rollout_started_at
    phase = known.get(missing)
    if missing == "(latest ready)":
        underway = any(value in ("pending", "building", "starting") for value in known.values()) or not known
        if underway:
            return Move(current, latest, started, None, "Deploying", "no revision is ready yet")
        return Move(current, latest, started, False, "NoRevisionReady", "no revision is ready")
    if phase in ("pending", "building", "starting"):
        return Move(current, latest, started, None, "Deploying", f"{missing} is {phase}")
    why = f"is {phase}" if phase else "does not exist"
    return Move(current, latest, started, False, "RevisionMissing", f"traffic names {missing}, which {why}")
