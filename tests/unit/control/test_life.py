"""An instance's life, without an instance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.control import life
from septet.model.errors import FunctionOutOfMemory, InitFailed, StartFailed
from septet.model.instance import InstanceExit

ERROR = InitFailed("no handler")
EXIT = InstanceExit(code=3)
EVENTS: list[life.Event] = [
    life.Room(),
    life.Running(),
    life.Opened(),
    life.Failed(ERROR),
    life.Retire(),
    life.Idle(),
    life.Freeze(),
    life.Thaw(),
    life.Thawed(),
    life.Lost(),
    life.Stopped(EXIT),
]


def test_ordinary_life() -> None:
    phase: life.Phase = "waiting"
    done: list[str] = []
    for event in (life.Room(), life.Running(), life.Opened(), life.Retire(), life.Idle(), life.Stopped(EXIT)):
        step = life.step(phase, event)
        phase, done = step.phase, [*done, *step.do]
        assert step.error is None
    assert phase == "gone"
    assert done == ["launch", "open", "join", "drain", "stop", "forget"]


@pytest.mark.parametrize("phase", ["starting", "opening"])
def test_failed_start_is_killed_and_reported(phase: life.Phase) -> None:
    assert life.step(phase, life.Failed(ERROR)) == life.Step("stopping", ("kill",), ERROR)


def test_ended_process_is_reported_only_before_it_was_ready() -> None:
    early: tuple[life.Phase, ...] = ("starting", "opening")
    late: tuple[life.Phase, ...] = ("ready", "draining", "stopping")
    for phase in early:
        step = life.step(phase, life.Stopped(EXIT))
        assert step.phase == "gone" and isinstance(step.error, StartFailed) and "code 3" in step.error.message
    for phase in late:
        assert life.step(phase, life.Stopped(EXIT)) == life.Step("gone", ("forget",))


def test_broken_link_ends_a_ready_instance() -> None:
    assert life.step("ready", life.Lost()) == life.Step("stopping", ("bury",))
    assert life.step("draining", life.Lost()) == life.Step("stopping", ("bury",))
    assert life.step("opening", life.Lost()) == life.Step("opening")


def test_frozen_one_takes_calls_again_after_it_was_thawed() -> None:
    assert life.step("ready", life.Freeze()) == life.Step("frozen", ("freeze",))
    assert life.step("frozen", life.Thaw()) == life.Step("thawing", ("thaw",))
    assert life.step("thawing", life.Thawed()) == life.Step("ready", ("join",))
    assert life.step("frozen", life.Thawed()) == life.Step("frozen")
    assert life.step("starting", life.Freeze()) == life.Step("starting")


@pytest.mark.parametrize("phase", ["frozen", "thawing"])
def test_frozen_one_is_stopped_without_draining_and_its_end_is_no_failed_start(phase: life.Phase) -> None:
    assert life.step(phase, life.Retire()) == life.Step("stopping", ("stop",))
    assert life.step(phase, life.Failed(ERROR)) == life.Step("stopping", ("kill",))
    assert life.step(phase, life.Lost()) == life.Step("stopping", ("bury",))
    assert life.step(phase, life.Stopped(EXIT)) == life.Step("gone", ("forget",))


def test_one_that_is_not_ready_is_not_drained() -> None:
    assert life.step("waiting", life.Retire()) == life.Step("gone", ("forget",))
    assert life.step("starting", life.Retire()) == life.Step("stopping", ("kill",))


def test_memory_is_named() -> None:
    assert isinstance(life.ended(InstanceExit(signal=9, limit="memory")), FunctionOutOfMemory)
    assert "signal 11" in life.ended(InstanceExit(signal=11)).message
    assert "a bus error" in life.ended(InstanceExit(code=1, message="a bus error")).message


@given(st.lists(st.sampled_from(EVENTS), max_size=20))
def test_any_order_of_events_keeps_the_order_of_life(events: list[life.Event]) -> None:
    order = list(life.SHOWN)
    phase: life.Phase = "waiting"
    done: list[str] = []
    for event in events:
        step = life.step(phase, event)
        assert order.index(step.phase) >= order.index(phase) or (phase, step.phase) == ("frozen", "thawing")
        if step.phase == phase:
            assert step.do == () and step.error is None
        phase = step.phase
        done += step.do
    for once in ("launch", "open", "drain", "forget"):
        assert done.count(once) <= 1
    assert done.count("join") <= done.count("thaw") + 1 <= done.count("freeze") + 1
    assert done.count("stop") + done.count("kill") + done.count("bury") <= 1
    if "launch" in done and phase == "gone":
        assert "forget" in done
    if phase == "gone":
        assert all(life.step(phase, event) == life.Step("gone") for event in EVENTS)
