"""A bounded file of lines, kept as a few segments of which the oldest goes first."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

SEGMENTS = 4
_NAME = re.compile(r"(\d{12})\.jsonl")


class Segments:
    """Lines in `<folder>/<number>.jsonl`; all segments together stay below `limit` bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._size_limit = max(limit // SEGMENTS, 1024)
        self._numbers = self._existing()
        self._size = self._path(self._numbers[-1]).stat().st_size if self._numbers else 0

    def append(self, lines: list[bytes]) -> bool:
        """Writes whole lines (without their ends); True when older ones were dropped to make room. OSError."""
        if not self._numbers:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        dropped = False
        while lines:
            if not self._numbers or self._size >= self._size_limit:
                dropped |= self._roll()
            room = self._size_limit - self._size
            batch, lines = _fitting(lines, room)
            data = b"".join(line + b"\n" for line in batch)
            with self._path(self._numbers[-1]).open("ab") as file:
                file.write(data)
            self._size += len(data)
        return dropped

    def read(self) -> Iterator[bytes]:
        """Every whole line, the oldest first."""
        for number in self._existing():
            with contextlib.suppress(FileNotFoundError), self._path(number).open("rb") as file:
                yield from (line[:-1] for line in file if line.endswith(b"\n"))

    def read_back(self) -> Iterator[bytes]:
        """Every whole line, the newest first."""
        for number in reversed(self._existing()):
            with contextlib.suppress(FileNotFoundError):
                lines = self._path(number).read_bytes().split(b"\n")[:-1]
                yield from reversed(lines)

    def delete(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._numbers = []
        self._size = 0

    def _roll(self) -> bool:
        self._numbers.append(self._numbers[-1] + 1 if self._numbers else 1)
        self._size = 0
        old, self._numbers = self._numbers[:-SEGMENTS], self._numbers[-SEGMENTS:]
        for number in old:
            self._path(number).unlink(missing_ok=True)
        return bool(old)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}.jsonl"

    def _existing(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted(int(found[1]) for path in self._folder.iterdir() if (found := _NAME.fullmatch(path.name)))


def _fitting(lines: list[bytes], room: int) -> tuple[list[bytes], list[bytes]]:
    """As many lines as fit, and at least one."""
    size = 0
    for index, line in enumerate(lines):
        size += len(line) + 1
        if size > room and index:
            return lines[:index], lines[index:]
    return lines, []
