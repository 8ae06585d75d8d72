"""The composition root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from septet.app.start import doctor, restore, run

__all__ = ["doctor", "restore", "run"]


def __getattr__(name: str) -> Any:
    """A worker is below this package too, and needs a small part of what the whole platform imports."""
    if name not in __all__:
        raise AttributeError(f"module 'septet.app' has no attribute {name!r}")
    from septet.app import start

    return getattr(start, name)
