"""Writing a status on top of what is stored now."""

from __future__ import annotations

import msgspec
from world import World, virtual

from septet.control.mirror import Mirror
from septet.control.status import Statuses, with_condition
from septet.model.function import Function
from septet.model.meta import Condition


def ready(function: Function) -> Function:
    return msgspec.structs.replace(function, status=msgspec.structs.replace(function.status, latest_ready="x"))


@virtual
async def test_change_is_made_again_on_top_of_what_somebody_else_wrote(world: World) -> None:
    mirror = Mirror(world.store)
    statuses = Statuses(world.store, mirror)
    old = await world.apply("hello")
    mirror.apply(old)
    await world.apply("hello", retain=3)
    written = await statuses.change(old, ready)
    assert written is not None and written.status.latest_ready == "x" and written.spec.retain == 3
    assert mirror.get(Function, "default", "hello") == written
    writes = world.store.writes
    assert await statuses.change(written, ready) == written
    assert world.store.writes == writes, "an equal status writes nothing"


@virtual
async def test_object_that_is_gone_or_another_one_of_its_name_is_left_alone(world: World) -> None:
    statuses = Statuses(world.store, Mirror(world.store))
    old = await world.apply("hello")
    await world.store.delete("Function", "default", "hello")
    assert await statuses.change(old, ready) is None
    await world.apply("hello")
    assert await statuses.change(old, ready) is None
    assert world.function("hello").status.latest_ready == ""


def test_time_of_a_condition_stays_while_its_truth_does() -> None:
    first = with_condition((), Condition(type="Ready", status=None, reason="Building", changed_at=1.0))
    second = with_condition(first, Condition(type="Ready", status=None, reason="Starting", changed_at=2.0))
    third = with_condition(second, Condition(type="Ready", status=True, changed_at=3.0))
    times = [conditions[0].changed_at for conditions in (first, second, third)]
    assert times == [1.0, 1.0, 3.0]
    assert second[0].reason == "Starting"
