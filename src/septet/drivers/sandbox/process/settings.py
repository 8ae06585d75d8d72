"""What the composition root chooses for the process sandbox."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from septet.drivers.sandbox.process.egress import EgressSettings


@dataclass(frozen=True)
class ProcessSettings:
    """Rates in bytes a second, sizes in bytes, times in seconds."""

    level: Literal["full", "none"] = "full"
    """ "none" starts plain processes without any wall."""

    uid_base: int = 400_000_000
    """As root, instance number n gets this uid plus n on the host; no account may lie in the range."""

    uid_count: int = 65_536
    """How many uids from `uid_base` on are ours."""

    python: str = sys.executable
    """The interpreter of the launcher: the platform's own."""

    pool_size: Callable[[Sequence[float], int, int], int] = lambda starts, waiting, each: 0
    """How many prepared sandboxes wait, from the times of cold starts (of the driver's clock), how many do, and the
    bytes that one takes; 0: no pool."""

    zygotes: bool = True
    """Whether interpreters that can be forked ahead are; without it every start is an exec."""

    shared_namespaces: tuple[str, ...] = ()
    """Namespaces whose functions may have isolation `shared-namespace`; "*" for all."""

    set_idle: float = 30.0
    """Seconds between looks at namespace sets; one that is empty at two of them goes."""

    open_files: int = 65_536
    """Descriptors that one process of an instance may have open."""

    output_rate: float = 4 * 1024 * 1024
    """What each stream of an instance may print before it has to wait."""

    output_burst: float = 8 * 1024 * 1024
    """What it may print at once."""

    supervise_every: float = 0.1
    """How often memory is summed where control groups cannot limit it."""

    egress: EgressSettings = field(default_factory=EgressSettings)
    """How instances reach the outside; its tag is set by the driver."""
