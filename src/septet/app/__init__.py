"""The composition root."""

from septet.app.start import doctor, restore, run

__all__ = ["doctor", "restore", "run"]
