"""Which old revisions are no longer kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Candidate(NamedTuple):
    """A revision. `busy` while it is built or started, or calls still run in it; `unused_since` in epoch
    seconds, 0 when it is not known to be unused."""

    name: str
    number: int
    busy: bool = False
    unused_since: float = 0.0


def retired(
    revisions: Sequence[Candidate], referred: Collection[str], retain: int, now: float, settle: float = 60.0
) -> tuple[str, ...]:
    """The names of revisions to retire: all that nothing refers to, but for the newest `retain` of them.

    `referred` are those that traffic, a tag, a route, or "latest" names. One goes only after `settle` seconds
    without use, so that whoever still reads an older table finds it.
    """
    unused = sorted(
        (revision for revision in revisions if revision.name not in referred and not revision.busy),
        key=lambda revision: -revision.number,
    )
    return tuple(
        revision.name
        for revision in unused[max(0, retain) :]
        if revision.unused_since > 0 and now - revision.unused_since >= settle
    )
