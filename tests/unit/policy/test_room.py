"""Placement, keep-alive, retention, quota."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.model.errors import NodeFull, QuotaExceeded
from septet.model.objects import Quota
from septet.policy import keepalive, placement, quota, retention
from septet.policy.placement import Budget, Occupant

occupants = st.lists(st.tuples(st.integers(1, 512), st.none() | st.floats(0, 100), st.booleans()), max_size=12).map(
    lambda rows: [Occupant(f"i{n}", memory, idle, kept) for n, (memory, idle, kept) in enumerate(rows)]
)


def test_nothing_goes_while_there_is_room() -> None:
    assert placement.place(128, Budget(1024), [Occupant("a", 512, 1.0)], "hello") == ()
    assert placement.place(128, Budget(), [Occupant("a", 512, 1.0)], "hello") == ()


def test_longest_idle_goes_first_and_no_more_than_needed() -> None:
    full = [Occupant("a", 256, 30.0), Occupant("b", 256, 10.0), Occupant("c", 256, 20.0), Occupant("d", 256)]
    assert placement.place(200, Budget(1024), full, "hello") == ("b",)
    assert placement.place(400, Budget(1024), full, "hello") == ("b", "c")


def test_one_that_turns_out_not_to_be_needed_stays() -> None:
    full = [Occupant("small", 64, 1.0), Occupant("big", 512, 2.0)]
    assert placement.place(512, Budget(576), full, "hello") == ("big",)


def test_busy_and_kept_instances_stay_and_the_error_has_the_numbers() -> None:
    full = [Occupant("a", 512), Occupant("b", 400, 1.0, kept=True)]
    with pytest.raises(NodeFull) as caught:
        placement.place(256, Budget(1024), full, "hello-00001")
    assert "memory" in caught.value.message and "256 MiB" in caught.value.message and "912 MiB" in caught.value.message
    assert caught.value.limit == "node memory 1024 MiB"
    assert caught.value.retry_after == 1.0


def test_instance_larger_than_the_node_never_fits() -> None:
    with pytest.raises(NodeFull) as caught:
        placement.place(2048, Budget(1024), [], "hello")
    assert caught.value.retry_after is None


@given(st.integers(1, 600), st.integers(0, 2048), st.integers(0, 8), occupants)
def test_what_goes_makes_room_and_every_one_of_them_is_needed(
    memory: int, budget: int, count: int, there: list[Occupant]
) -> None:
    limits = Budget(budget, count)

    def fits(gone: set[str]) -> bool:
        left = [o for o in there if o.id not in gone]
        return (not budget or sum(o.memory for o in left) + memory <= budget) and (not count or len(left) < count)

    idle = {o.id for o in there if o.idle_since is not None and not o.kept}
    going = placement.evictions(memory, limits, there)
    if going is None:
        assert not fits(idle)
        return
    assert set(going) <= idle
    assert fits(set(going))
    assert all(not fits(set(going) - {one}) for one in going)


def test_who_has_most_gives_the_least_busy_to_who_has_none() -> None:
    there = [Occupant(f"a{n}", 128, owner="a", running=n + 1) for n in range(3)]
    there += [Occupant("b0", 128, owner="b", running=1)]
    assert placement.reclaimed(128, Budget(512), there, {}) == ("a0",)
    assert placement.reclaimed(256, Budget(512), there, {}) == ("a0", "a1")
    assert placement.reclaimed(128, Budget(0, 4), there, {}) == ("a0",)
    assert placement.reclaimed(384, Budget(512), there, {}) == (), "each keeps one"
    assert placement.reclaimed(128, Budget(512), there, {"a": 3}) == (), "nobody goes below the minimum"
    assert placement.reclaimed(128, Budget(1024), there, {}) == ()


@given(st.integers(1, 600), st.integers(1, 2048), occupants, st.integers(0, 3))
def test_reclaiming_makes_room_and_leaves_everybody_one(
    memory: int, budget: int, there: list[Occupant], least: int
) -> None:
    owned = [occupant._replace(owner=f"o{n % 3}") for n, occupant in enumerate(there)]
    taken = set(placement.reclaimed(memory, Budget(budget), owned, {"o0": least}))
    left = [occupant for occupant in owned if occupant.id not in taken]
    if taken:
        assert sum(occupant.memory for occupant in left) + memory <= budget
        for owner in {occupant.owner for occupant in owned if occupant.id in taken}:
            assert sum(occupant.owner == owner for occupant in left) >= (max(1, least) if owner == "o0" else 1)


def test_surplus_takes_starting_ones_then_idle_ones_then_the_least_busy() -> None:
    there = [
        keepalive.Candidate("busy", True, 5),
        keepalive.Candidate("calm", True, 1),
        keepalive.Candidate("old", True, 0, 1.0),
        keepalive.Candidate("fresh", True, 0, 9.0),
        keepalive.Candidate("new", False),
    ]
    assert keepalive.surplus(there, 0) == ("new", "old", "fresh", "calm", "busy")
    assert keepalive.surplus(there, 3) == ("new", "old")
    assert keepalive.surplus(there, 7) == ()


revisions = st.lists(st.tuples(st.booleans(), st.floats(0, 1000), st.booleans()), max_size=15).map(
    lambda rows: [retention.Candidate(f"r{n}", n, busy, since) for n, (busy, since, _) in enumerate(rows)]
)


def test_oldest_unused_revisions_go_beyond_those_retained() -> None:
    there = [retention.Candidate(f"r{n}", n, unused_since=1.0) for n in range(6)]
    assert set(retention.retired(there, {"r0", "r5"}, 2, 1000.0)) == {"r1", "r2"}


def test_revision_unused_for_a_moment_or_of_unknown_use_stays() -> None:
    there = [retention.Candidate("a", 1, unused_since=990.0), retention.Candidate("b", 2)]
    assert retention.retired(there, set(), 0, 1000.0, settle=60) == ()
    assert retention.retired(there, set(), 0, 1050.0, settle=60) == ("a",)


@given(revisions, st.sets(st.sampled_from([f"r{n}" for n in range(15)])), st.integers(0, 5))
def test_nothing_referred_to_or_busy_is_ever_retired(
    there: list[retention.Candidate], referred: set[str], retain: int
) -> None:
    gone = set(retention.retired(there, referred, retain, 2000.0))
    assert not gone & referred
    assert not gone & {r.name for r in there if r.busy}
    unused = [r for r in there if r.name not in referred and not r.busy]
    newest = sorted(unused, key=lambda r: -r.number)[:retain]
    assert not gone & {r.name for r in newest}


def test_quota_names_the_ceiling_and_the_numbers() -> None:
    ceilings = Quota(instances=4, memory=512)
    quota.check(ceilings, quota.Usage(instances=3, memory=384), quota.Usage(instances=1, memory=128), "namespace 'a'")
    with pytest.raises(QuotaExceeded) as caught:
        quota.check(ceilings, quota.Usage(3, 400), quota.Usage(1, 128), "namespace 'a'")
    assert caught.value.limit == "quota memory 512 MiB"
    assert "400 MiB" in caught.value.message and "namespace 'a'" in caught.value.message


def test_no_ceiling_and_nothing_asked_are_no_offence() -> None:
    quota.check(Quota(), quota.Usage(1000, 10**6), quota.Usage(1, 10**6), "x")
    quota.check(Quota(functions=1), quota.Usage(functions=5), quota.Usage(instances=1), "x")
