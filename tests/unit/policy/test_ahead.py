from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from septet.policy import ahead


def test_none_before_enough_is_known() -> None:
    assert ahead.depth(ahead.WINDOW - 1, 0, 0.1) == 0
    assert ahead.depth(ahead.WINDOW, 0, 0.0) == ahead.DEPTH


@given(st.integers(ahead.WINDOW, 10_000), st.integers(0, 10_000), st.floats(0, 1000))
def test_only_while_99_in_100_are_short(calls: int, slow: int, seconds: float) -> None:
    assert (ahead.depth(calls, slow, seconds) > 0) == (slow <= calls / 100)


@given(st.integers(ahead.WINDOW, 10_000), st.floats(1e-6, 0.01))
def test_what_waits_is_little_work(calls: int, each: float) -> None:
    depth = ahead.depth(calls, 0, calls * each)
    assert 1 <= depth <= ahead.DEPTH
    assert depth == 1 or depth * each <= ahead.WORK * 1.001
