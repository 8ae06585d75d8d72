"""A bounded file of lines, kept as a few segments of which the oldest goes first."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

SEGMENTS = 4
_NAME = re.compile(r"(\d{12})\.jsonl")


class Segments:
    """Lines in `<folder>/<number>.jsonl`; all segments together stay below `limit` bytes.

    One thread uses it. Nothing is changed on disk before the first `append`.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._size_limit = limit // SEGMENTS
        self._numbers = self._existing()
        self._size: int | None = None

    @property
    def dropped(self) -> bool:
        """Whether older lines went to make room."""
        return bool(self._numbers) and self._numbers[0] > 1

    def append(self, lines: list[bytes]) -> None:
        """Writes whole lines (without their ends), each shorter than a segment. OSError, and then some are
        written and the rest are not; none is written in part."""
        if self._size is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._size = self._whole() if self._numbers else 0
        while lines:
            batch, rest = _fitting(lines, self._size_limit - self._size)
            if not self._numbers or (not batch and self._size):
                self._roll()
                continue
            if not batch:
                batch, rest = lines[:1], lines[1:]  # longer than a segment: it gets one of its own
            self._write(b"".join(line + b"\n" for line in batch))
            lines = rest

    def read_back(self) -> Iterator[bytes]:
        """Every whole line, the newest first."""
        for number in reversed(self._numbers):
            with contextlib.suppress(FileNotFoundError):
                lines = self._path(number).read_bytes().split(b"\n")[:-1]
                yield from reversed(lines)

    def _write(self, data: bytes) -> None:
        assert self._size is not None
        path = self._path(self._numbers[-1])
        try:
            # What functions print is their owner's alone. Not open(): it asks for four system calls more.
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                write_whole(file, data)
            finally:
                os.close(file)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, self._size)
            self._size = None  # measured anew before the next line
            raise
        self._size += len(data)

    def _whole(self) -> int:
        """Cuts what a crash left of a line off the newest segment; its size."""
        path = self._path(self._numbers[-1])
        data = path.read_bytes() if path.exists() else b""
        end = data.rfind(b"\n") + 1
        if end < len(data):
            os.truncate(path, end)
        return end

    def _roll(self) -> None:
        self._numbers.append(self._numbers[-1] + 1 if self._numbers else 1)
        self._size = 0
        old, self._numbers = self._numbers[:-SEGMENTS], self._numbers[-SEGMENTS:]
        for number in old:
            self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}.jsonl"

    def _existing(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted(int(found[1]) for path in self._folder.iterdir() if (found := _NAME.fullmatch(path.name)))


def _fitting(lines: list[bytes], room: int) -> tuple[list[bytes], list[bytes]]:
    """As many lines as fit."""
    size = 0
    for index, line in enumerate(lines):
        size += len(line) + 1
        if size > room:
            return lines[:index], lines[index:]
    return lines, []


def write_whole(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, memoryview(data)[written:])
