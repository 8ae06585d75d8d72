"""The frame codec: any split of the bytes decodes the same, and any violation is an error."""

from __future__ import annotations

import importlib.util
import itertools
import struct
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import septet.runtimes
from septet.wire import frames

RUNTIMES = Path(next(iter(septet.runtimes.__path__)))
FRAMES = st.lists(
    st.builds(
        frames.Frame,
        type=st.integers(frames.REQUEST, frames.SPECIALISE),
        flags=st.integers(0, 255),
        stream=st.integers(0, 2**32 - 1),
        head=st.binary(max_size=300),
        body=st.binary(max_size=3000),
    ),
    max_size=8,
)


def encoded(found: list[frames.Frame]) -> bytes:
    return b"".join(frames.encode(f.type, f.stream, f.head, f.body, f.flags) for f in found)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def shim_codec(folder: str) -> ModuleType:
    path = RUNTIMES / folder / "frames.py"
    spec = importlib.util.spec_from_file_location("shim_frames", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(FRAMES, st.lists(st.integers(0, 100_000), max_size=30))
def test_any_split_decodes_to_the_same_frames(found: list[frames.Frame], cuts: list[int]) -> None:
    decoder = frames.FrameDecoder()
    got: list[frames.Frame] = []
    for piece in split(encoded(found), cuts):
        got.extend(decoder.feed(piece))
    assert got == found


@pytest.mark.parametrize("folder", ["python/septet_runtime", "exec/septet_exec"])
def test_the_shims_codec_agrees(folder: str) -> None:
    codec = shim_codec(folder)

    @given(FRAMES, st.lists(st.integers(0, 100_000), max_size=30))
    def agrees(found: list[frames.Frame], cuts: list[int]) -> None:
        decoder = codec.Decoder()
        got = []
        for piece in split(encoded(found), cuts):
            got.extend(decoder.feed(piece))
        assert [frames.Frame(type_, flags, stream, head, body) for type_, flags, stream, head, body in got] == found
        assert encoded(found) == b"".join(codec.encode(f.type, f.stream, f.head, f.body, f.flags) for f in found)

    agrees()


@given(
    length=st.integers(0, 2**32 - 1),
    stream=st.integers(0, 2**32 - 1),
    type_=st.integers(0, 255),
    head=st.integers(0, 2**16 - 1),
)
def test_a_header_that_breaks_a_rule_is_an_error_at_once(length: int, stream: int, type_: int, head: int) -> None:
    decoder = frames.FrameDecoder()
    header = struct.pack(">IIBBH", length, stream, type_, 0, head)
    if length <= frames.FRAME_MAX and head <= length and 1 <= type_ <= 12:
        assert len(decoder.feed(header)) == (length == 0)
    else:
        with pytest.raises(frames.FrameError):
            decoder.feed(header)


def test_what_is_too_large_is_not_encoded() -> None:
    frames.encode(frames.DATA, 1, b"", b"x" * frames.FRAME_MAX)
    with pytest.raises(ValueError, match="too large"):
        frames.encode(frames.DATA, 1, b"", b"x" * (frames.FRAME_MAX + 1))
    with pytest.raises(ValueError, match="too large"):
        frames.encode(frames.REPLY, 1, b"x" * (frames.HEAD_MAX + 1))


@given(st.integers(0, 2**32 - 1))
def test_credit_goes_round(credit: int) -> None:
    (frame,) = frames.FrameDecoder().feed(frames.encode_window(7, credit))
    assert (frame.type, frame.stream, frames.decode_window(frame.body)) == (frames.WINDOW, 7, credit)


def test_credit_of_another_size_is_an_error() -> None:
    with pytest.raises(frames.FrameError):
        frames.decode_window(b"\0\0\1")
