"""How many prepared sandboxes wait."""

from __future__ import annotations

from septet.policy.warm_pool import INTERVAL, LEAST, MOST, UNUSED, WINDOW, room, size


def burst(at: float, count: int) -> list[float]:
    return [at] * count


def test_without_starts_a_few_wait_where_there_is_room() -> None:
    assert size([], 1000.0, room=100) == LEAST
    assert size([], 1000.0, room=1) == 1
    assert size([], 1000.0, room=-5) == 0


def test_one_burst_in_ten_minutes_is_rarer_than_the_quantile() -> None:
    assert size(burst(999.0, 20), 1000.0, room=100) == LEAST


def test_bursts_that_come_often_are_waited_for() -> None:
    starts = [at for number in range(10) for at in burst(900.05 + number * INTERVAL * 5, 12)]
    assert size(starts, 1000.0, room=100) == 12
    assert size(starts, 1000.0, room=7) == 7
    assert size(starts, 1000.0 + WINDOW, room=100) == LEAST, "it forgets"


def test_it_never_grows_beyond_its_bound() -> None:
    starts = [at for number in range(10) for at in burst(900.05 + number * INTERVAL * 5, 500)]
    assert size(starts, 1000.0, room=10_000) == MOST


def test_what_the_operator_said_counts_as_far_as_memory_goes() -> None:
    starts = [at for number in range(10) for at in burst(900.05 + number * INTERVAL * 5, 12)]
    assert size(starts, 1000.0, room=100, fixed=0) == 0
    assert size(starts, 1000.0, room=100, fixed=50) == 50
    assert size(starts, 1000.0, room=3, fixed=50) == 3


def test_nobody_waits_for_what_is_no_longer_used() -> None:
    assert size([1000.0], 1000.0 + UNUSED - 1, room=100) == LEAST
    assert size([1000.0], 1000.0 + UNUSED, room=100) == 0
    assert size([1000.0], 1000.0 + UNUSED, room=100, fixed=3) == 3, "the operator said so"


def test_room_is_what_nobody_was_promised_and_the_host_has() -> None:
    assert room(0, each=8.0, unpromised=80.0, available=8000.0, host=16_000.0) == 10
    assert room(4, each=8.0, unpromised=8000.0, available=1080.0, host=16_000.0) == 4 + 10
    assert room(4, each=8.0, unpromised=8000.0, available=984.0, host=16_000.0) == 2, "those that wait go first"
    assert room(0, each=8.0, unpromised=-8.0, available=8000.0, host=16_000.0) < 0
