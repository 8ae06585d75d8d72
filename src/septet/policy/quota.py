"""Ceilings of a namespace or a token."""

from __future__ import annotations

from typing import NamedTuple

from septet.model.errors import QuotaExceeded
from septet.model.objects import Quota


class Usage(NamedTuple):
    """What is used, or asked for. Memory and storage in MiB."""

    instances: int = 0
    memory: int = 0
    storage: float = 0.0
    builds: int = 0
    functions: int = 0


_UNITS = {"memory": " MiB", "storage": " MiB"}


def check(quota: Quota, used: Usage, asked: Usage, owner: str) -> None:
    """Raises QuotaExceeded, naming the ceiling of `owner` that `asked` on top of `used` would break."""
    for name in Usage._fields:
        more = getattr(asked, name)
        ceiling = getattr(quota, name)
        if more <= 0 or ceiling <= 0:
            continue
        before = getattr(used, name)
        if before + more > ceiling:
            unit = _UNITS.get(name, "")
            raise QuotaExceeded(
                f"{owner} may use {ceiling:g}{unit} of {name}: {before:g}{unit} are in use, "
                f"and {more:g}{unit} are asked for",
                hint=f"free some, or raise the quota's {name}",
                limit=f"quota {name} {ceiling:g}{unit}",
                details={"quota": name, "ceiling": ceiling, "used": before, "asked": more},
            )
