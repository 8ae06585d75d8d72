"""The line between two processes on which calls are lent: frames (docs/frames.md), with three meanings of its own.

The asking side leases an instance's place for one call before it sends the request, so that it waits in the owner's
queue and its clocks run as they do for the owner's own calls. On a stream's number stands the lease's:

    SPECIALISE  lease     body: LeaseRequest
    READY       answer    body: Grant, or a refusal
    DRAIN       give back a lease that carried no request
"""

from __future__ import annotations

import msgspec

from septet.app.workers.messages import Failure
from septet.model.instance import ColdReason
from septet.ports.signals import RevisionKey
from septet.wire import frames

LEASE = frames.SPECIALISE
GRANT = frames.READY
RELEASE = frames.DRAIN


class LeaseRequest(msgspec.Struct, frozen=True, array_like=True):
    """How many calls may wait, and how long (seconds). `again`: it waited before, and its instance was lost."""

    key: RevisionKey
    queue: int
    queue_timeout: float
    again: bool


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """The instance, and why it took a wait; or why there is none."""

    instance: str = ""
    cold: ColdReason = ""
    failure: Failure | None = None


class LentHead(msgspec.Struct, frozen=True, array_like=True):
    """What a REQUEST's head does not say in its lines; stands before them as one line of base64."""

    lease: int
    invocation: str
    deadline: float
    length: int | None
    upgrade: bytes


encode = msgspec.msgpack.Encoder(enc_hook=str).encode
