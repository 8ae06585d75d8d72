"""What control is told by the composition root."""

from __future__ import annotations

from dataclasses import dataclass, field

from septet.policy.retry import Backoff


@dataclass(frozen=True)
class ControlSettings:
    """Times in seconds, memory in MiB."""

    memory: int = 0
    """The node's budget for the memory of all instances together; 0 means none."""
    instances: int = 0
    """The most instances on the node; 0 means no such limit."""
    sandbox: str = "process"
    """The driver for functions that name none."""
    gateway: int = 8081
    """Port of the inner gateway inside each instance; 0 means that instances have none."""
    port: int = 8080
    """Where an http1 process listens inside its instance."""
    keep_alive: float | None = 0.0
    """How long after its last call a function's last instance is kept frozen, where the function says nothing; None:
    as its idle times say."""
    tick: float = 2.0
    """Between two scaling decisions of a revision."""
    step: int = 4
    """How many instances of one revision may start at a time."""
    attempts: int = 3
    """Failed starts in a row after which a new revision is given up."""
    progress: float = 600.0
    """How long a new revision may wait for room before it is given up."""
    patience: float = 1.0
    """How long calls of a revision without any instance wait for room on a full node."""
    backoff: Backoff = field(default_factory=Backoff)
    """Between failed starts of one revision."""
    stop_grace: float = 5.0
    """From the stop signal to the kill."""
    builds: int = 2
    """Builds at a time."""
    sweep: float = 30.0
    """Between two passes of the collector."""
    settle: float = 60.0
    """How long a revision is unused before it may be retired."""
    keep_unused: float = 3600.0
    """How long a blob or a tree that nothing refers to is kept: an upload comes before its function."""
    caches: int = 8 << 30
    """What the caches of all namespaces' build tools may take together, in bytes."""
    keep_expired: float = 86400.0
    """How long an expired token is kept, so that its holder learns that it has expired."""
    lease: float = 15.0
    """How long control's lease lasts without being renewed."""
    log_tail: int = 4000
    """Characters of a log that go into a condition's message."""
