from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from septet.policy import ahead


def test_none_before_enough_is_known() -> None:
    assert ahead.depth(ahead.WINDOW - 1, 0) == 0
    assert ahead.depth(ahead.WINDOW, 0) == ahead.DEPTH


@given(st.integers(ahead.WINDOW, 10_000), st.integers(0, 10_000))
def test_only_while_99_in_100_are_short(calls: int, slow: int) -> None:
    assert (ahead.depth(calls, slow) > 0) == (slow <= calls / 100)
