"""What every stored object has: its name, its identity, its versions, its owner and its end."""

from __future__ import annotations

import msgspec

from septet.model.errors import InvalidInput

NAME_MAX = 253


class OwnerReference(msgspec.Struct, frozen=True, kw_only=True):
    """The object that this one goes away with."""

    kind: str
    name: str
    uid: str


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Shared metadata. The store sets uid, versions and times; callers set the rest.

    `name` is free text (no control characters, no "/"); each API maps it to its own grammar. `generation`
    grows when the spec changes, `resource_version` with every write. An object whose `deleting_since` is set
    goes away when its last finalizer is removed. `documents` holds one opaque document per API: what only that
    API understands, kept as it came. Times are seconds since the epoch. `applied_by` names the token that wrote the
    spec last, and the tokens that it came from: what their quotas count. The service sets it, never a client.
    """

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: int = 0
    generation: int = 0
    created_at: float = 0.0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner: OwnerReference | None = None
    deleting_since: float | None = None
    finalizers: tuple[str, ...] = ()
    documents: dict[str, msgspec.Raw] = {}
    applied_by: tuple[str, ...] = ()


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One observed truth about an object, with the reason in a word and in a sentence."""

    type: str
    status: bool | None
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    changed_at: float = 0.0


def check_name(name: str, what: str = "name") -> str:
    """Returns `name`; raises InvalidInput when it is empty, too long, or holds a slash or a control character."""
    if not name or len(name.encode()) > NAME_MAX:
        raise InvalidInput(
            f"{what} must have 1 to {NAME_MAX} bytes, this one has {len(name.encode())}",
            details={"field": what},
        )
    if name in (".", "..") or "/" in name or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise InvalidInput(
            f"{what} {name!r} holds a slash or a control character, or is a dot name",
            hint="use letters, digits, dashes, dots, underscores or any other printable text",
            details={"field": what},
        )
    return name
