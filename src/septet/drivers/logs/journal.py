"""The latest records of all functions in one file, so that a thousand functions called once each cost one write.

A record waits here until its function's own file takes it; after a crash the journal gives it back.
"""

from __future__ import annotations

import os
from pathlib import Path

from septet.drivers.logs.segments import write_whole


class Journal:
    """Lines, in the order in which they came. One thread uses it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self.size = 0

    def append(self, lines: list[bytes]) -> None:
        """Writes whole lines (without their ends). OSError, and then none of them is kept."""
        data = b"".join([line + b"\n" for line in lines])
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self.size = os.fstat(self._file).st_size
        try:
            write_whole(self._file, data)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)

    def read(self) -> list[bytes]:
        """Every whole line; what a crash left of one is left out."""
        try:
            return self._path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []

    def clear(self) -> None:
        """Forgets all of it."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
        elif self._path.exists():
            os.truncate(self._path, 0)
        self.size = 0

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
