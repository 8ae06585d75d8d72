from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.model.errors import BadReply, MalformedRequest
from septet.wire.chunked import LAST_CHUNK, ChunkedDecoder, encode_chunk


def decode(data: bytes, sizes: list[int]) -> tuple[bytes, ChunkedDecoder, bytes]:
    """Feeds the data in pieces of the given sizes, then the rest; (body, decoder, bytes after the body)."""
    decoder, body, at = ChunkedDecoder(), b"", 0
    for size in [*sizes, len(data)]:
        if decoder.done:
            break
        body += b"".join(decoder.feed(data[at : at + size]))
        at += size
    return body, decoder, decoder.rest + data[at:]


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.lists(st.integers(1, 20), max_size=60),
    st.binary(max_size=20),
)
def test_whatever_was_encoded_comes_back_however_it_is_cut(pieces: list[bytes], sizes: list[int], after: bytes) -> None:
    data = b"".join(encode_chunk(piece) for piece in pieces) + LAST_CHUNK
    body, decoder, rest = decode(data + after, sizes)
    assert decoder.done
    assert (body, rest) == (b"".join(pieces), after)


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=30))
def test_any_bytes_end_in_an_error_a_body_or_waiting(data: bytes, sizes: list[int]) -> None:
    try:
        _, decoder, rest = decode(data, sizes)
    except MalformedRequest:
        return
    if decoder.done:
        assert data.endswith(rest)


@given(st.lists(st.integers(1, 5), max_size=60))
def test_extensions_and_trailers_are_passed_over(sizes: list[int]) -> None:
    body, decoder, rest = decode(b'3 ; a="b"\r\nabc\r\n0;x\r\nT: 1\r\nU: 2\r\n\r\nGET', sizes)
    assert decoder.done
    assert (body, rest) == (b"abc", b"GET")


def test_what_is_held_is_bounded() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"ffffffff\r\n")
    for _ in range(100):
        assert decoder.feed(b"x" * 1000) == [b"x" * 1000]
        assert decoder._held == b""


def test_the_error_is_the_one_asked_for() -> None:
    with pytest.raises(BadReply):
        ChunkedDecoder(BadReply).feed(b"x\r\n")
