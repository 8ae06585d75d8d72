"""Rows and their checksums: what is written carries a digest over all that it says, and is checked when read."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from septet.model.errors import Corrupt
from septet.model.objects import KINDS, AnyObject

_decoders: dict[str, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(cls) for kind, cls in KINDS.items()}
_encoder = msgspec.json.Encoder()


def checksum(*parts: str | int | float | bytes | None) -> bytes:
    """16 bytes over the parts and their borders."""
    seen = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        seen.update(b"%d:" % len(data) + data)
    return seen.digest()


def object_checksum(kind: str, namespace: str, name: str, uid: str, owner: str, version: int, data: bytes) -> bytes:
    return checksum("object", kind, namespace, name, uid, owner, version, data)


def change_checksum(
    version: int, type_: str, kind: str, namespace: str, name: str, data: bytes, before: bytes | None
) -> bytes:
    return checksum("change", version, type_, kind, namespace, name, data, before)


def encode(obj: AnyObject) -> bytes:
    return _encoder.encode(obj)


def decode(kind: str, data: bytes, where: str) -> AnyObject:
    """The object; Corrupt when the bytes are none of that kind."""
    try:
        found: AnyObject = _decoders[kind].decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise corrupt(where) from error
    return found


def corrupt(where: str) -> Corrupt:
    return Corrupt(
        f"{where} does not match its checksum and is not used",
        hint="stop the platform and restore the newest backup: `septet restore`",
    )
