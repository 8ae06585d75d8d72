from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from septet.policy.window import Window, average, record

writes = st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1000)), max_size=40)


def test_empty_window_is_zero() -> None:
    assert average(Window(60), 100) == 0.0


def test_young_window_divides_by_the_seconds_it_has() -> None:
    window = record(record(Window(60), 10, 4.0), 11, 8.0)
    assert average(window, 11) == 6.0


def test_gap_counts_as_zero_but_trailing_silence_shrinks_the_window() -> None:
    window = record(record(Window(6), 10, 6.0), 12, 6.0)
    assert average(window, 12) == 4.0
    assert average(window, 14) == 4.0
    assert average(window, 16) == 3.0, "second 10 has left: 11 and 12 remain"
    assert average(window, 18) == 0.0


def test_values_of_one_second_add_up_also_when_they_come_late() -> None:
    window = record(record(record(Window(6), 10, 1.0), 12, 1.0), 11, 2.0)
    assert window.buckets == (1.0, 2.0, 1.0)
    assert record(window, 12, 5.0).buckets == (1.0, 2.0, 6.0)
    assert record(window, 9, 3.0).buckets == (3.0, 1.0, 2.0, 1.0)
    assert record(window, 6, 3.0) == window, "older than the window"


def test_idle_window_begins_anew() -> None:
    window = record(Window(6), 10, 100.0)
    window = record(window, 16, 2.0)
    assert average(window, 16) == 2.0


@given(st.integers(1, 10), writes, st.integers(0, 60))
def test_average_is_what_a_plain_table_of_seconds_says(size: int, entries: list[tuple[int, float]], after: int) -> None:
    window = Window(size)
    table: dict[int, float] = {}
    second = 0
    for step, value in entries:
        if step >= size:
            table.clear()
        second += step
        window = record(window, second, value)
        table[second] = table.get(second, 0.0) + value
    now = second + after
    if not table or after >= size:
        assert average(window, now) == 0.0
        return
    seconds = [s for s in range(min(table), second + 1) if s > now - size]
    expected = sum(table.get(s, 0.0) for s in seconds) / len(seconds)
    assert abs(average(window, now) - expected) < 1e-5
    assert len(window.buckets) <= size
