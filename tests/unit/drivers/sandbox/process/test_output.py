"""Lines from a pipe: bounded in length and in rate."""

from __future__ import annotations

import asyncio
import os
import time

from septet.drivers.sandbox.process.output import LINE_MAX, OutputPipe


async def read(data: bytes, rate: float = 1e9, burst: float = 1e9) -> tuple[list[bytes], list[bool], float]:
    lines: list[bytes] = []
    floods: list[bool] = []
    pipe = OutputPipe(lines.append, lambda: floods.append(True), rate, burst)
    reader, writer = os.pipe()
    begin = time.monotonic()
    await asyncio.get_running_loop().connect_read_pipe(lambda: pipe, os.fdopen(reader, "rb", buffering=0))

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    await asyncio.gather(asyncio.to_thread(write), pipe.closed)
    return lines, floods, time.monotonic() - begin


async def test_lines_and_the_rest() -> None:
    assert (await read(b"a\n\nb\xff\nrest"))[0] == [b"a", b"", b"b\xff", b"rest"]


async def test_a_line_of_just_the_limit_is_whole() -> None:
    assert (await read(b"x" * LINE_MAX + b"\ny\n"))[0] == [b"x" * LINE_MAX, b"y"]


async def test_longer_lines_come_in_pieces() -> None:
    lines, _, _ = await read(b"x" * (2 * LINE_MAX + 5) + b"\n")
    assert [len(line) for line in lines] == [LINE_MAX, LINE_MAX, 5]


async def test_a_flood_is_slowed_down_noted_once_and_loses_nothing() -> None:
    data = b"z" * 999 + b"\n"
    lines, floods, seconds = await read(data * 600, rate=1e6, burst=1e5)
    assert len(lines) == 600
    assert floods == [True]
    assert seconds >= 0.4
