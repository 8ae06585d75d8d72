"""Names to implementations, loaded when chosen; and the built-in runtimes, one folder each."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from septet.model.errors import InvalidInput
from septet.model.runtime import Runtime

APIS = {
    "native": "septet.apis.native.surface:surface",
}
SANDBOXES = {
    "process": "septet.drivers.sandbox.process.driver:ProcessSandbox",
}
CONTRACTS = {
    "frames": "septet.drivers.contract.frames:FramesContract",
    "http1": "septet.drivers.contract.http1:Http1Contract",
}
RUNTIMES = ("python", "node", "ruby", "go", "exec", "http", "binary")

_RUNTIME_ROOT = Path(__file__).parent / "runtimes"


def load(table: dict[str, str], name: str) -> Any:
    """The attribute that `name` stands for; InvalidInput when the table has no such name."""
    if name not in table:
        raise InvalidInput(f"there is no {name!r}", hint=f"choose one of: {', '.join(sorted(table))}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def runtime_folder(name: str) -> Path:
    """Where a runtime's shim files stand."""
    return _RUNTIME_ROOT / name


def runtimes() -> dict[str, Runtime]:
    """Every built-in runtime, read from its `runtime.toml`."""
    found: dict[str, Runtime] = {}
    for name in RUNTIMES:
        with (_RUNTIME_ROOT / name / "runtime.toml").open("rb") as file:
            found[name] = msgspec.convert(tomllib.load(file), Runtime)
    return found
