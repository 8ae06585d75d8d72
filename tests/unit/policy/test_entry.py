"""Access, rate limits, turns, retries: who comes in, and when."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.model.access import ANONYMOUS, PLATFORM, Caller
from septet.policy import access, admission, retry


def caller(*verbs: str, namespaces: tuple[str, ...] = ("default",), expires_at: float = 0.0) -> Caller:
    return Caller(name="ci", namespaces=namespaces, verbs=verbs, expires_at=expires_at)


@pytest.mark.parametrize(
    ("granted", "verb", "allowed"),
    [
        ("*", "secrets:write", True),
        ("functions:*", "functions:invoke", True),
        ("functions:*", "functions", True),
        ("*:read", "secrets:read", True),
        ("*:read", "secrets:write", False),
        ("functions:invoke", "functions:invoke", True),
        ("functions:invoke", "functions:write", False),
        ("functions:invoke", "function:invoke", False),
        ("functions", "functions:invoke", False),
        ("", "functions:invoke", False),
        ("functions:*", "secrets:read", False),
    ],
)
def test_verbs(granted: str, verb: str, allowed: bool) -> None:
    assert access.decide(caller(granted), verb, "default").allowed is allowed


@pytest.mark.parametrize(
    ("namespaces", "namespace", "allowed"),
    [
        (("default",), "default", True),
        (("default",), "other", False),
        (("default",), "", False),
        (("*",), "", True),
        (("*",), "anything", True),
        (("",), "", False),
        (("a", "b"), "b", True),
        (("def",), "default", False),
    ],
)
def test_namespaces(namespaces: tuple[str, ...], namespace: str, allowed: bool) -> None:
    found = access.decide(caller("*", namespaces=namespaces), "functions:read", namespace)
    assert found.allowed is allowed
    assert allowed or found.reason == "namespace"


def test_expiry_is_exact() -> None:
    holder = caller("*", expires_at=100.0)
    assert access.decide(holder, "functions:read", "default", now=99.9).allowed
    refused = access.decide(holder, "functions:read", "default", now=100.0)
    assert not refused.allowed and refused.reason == "expired" and "ci" in refused.message


def test_anonymous_may_call_public_functions_and_nothing_else() -> None:
    assert access.decide(ANONYMOUS, "functions:invoke", "default", public=True).reason == "public"
    assert access.decide(ANONYMOUS, "functions:invoke", "default").reason == "anonymous"
    assert access.decide(ANONYMOUS, "functions:read", "default", public=True).reason == "anonymous"
    assert access.decide(PLATFORM, "tokens:write", "").allowed


def test_nobody_hands_on_more_than_they_hold() -> None:
    holder = caller("functions:*", "secrets:read")
    assert access.within(("functions:invoke", "functions:*", "secrets:read"), holder) == ()
    assert access.within(("secrets:*", "*", "secrets:write"), holder) == ("secrets:*", "*", "secrets:write")
    assert access.within(("*",), PLATFORM) == ()


words = st.sampled_from(["functions", "secrets", "*"])
actions = st.sampled_from(["read", "write", "invoke", "*"])
verbs = st.builds(lambda r, a: f"{r}:{a}", words, actions)


@given(st.lists(verbs, max_size=3), verbs, st.sampled_from(["functions:read", "secrets:write", "functions:invoke"]))
def test_what_may_be_handed_on_opens_nothing_new(held: list[str], asked: str, verb: str) -> None:
    giver = caller(*held)
    if giver.verbs and not access.within((asked,), giver) and access.decide(caller(asked), verb, "default").allowed:
        assert access.decide(giver, verb, "default").allowed


# -- rate


def test_burst_passes_and_then_the_rate_holds() -> None:
    rate, arrival, passed = admission.Rate(10, burst=5), 0.0, 0
    for _ in range(20):
        answer, arrival = admission.admit(rate, arrival, 100.0)
        passed += answer.allowed
    assert passed == 6
    answer, _ = admission.admit(rate, arrival, 100.0)
    assert not answer.allowed and answer.retry_after == pytest.approx(0.1)
    answer, _ = admission.admit(rate, arrival, 100.0 + answer.retry_after)
    assert answer.allowed


def test_no_rate_is_no_limit() -> None:
    assert admission.admit(admission.Rate(0), 7.0, 1.0) == (admission.Admission(True), 7.0)


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=300), st.floats(1, 100), st.integers(0, 20))
def test_no_span_lets_through_more_than_rate_and_burst(gaps: list[float], requests: float, burst: int) -> None:
    now, arrival = 50.0, 0.0
    times: list[float] = []
    for gap in gaps:
        now += gap
        answer, arrival = admission.admit(admission.Rate(requests, burst), arrival, now)
        if answer.allowed:
            times.append(now)
        else:
            assert answer.retry_after > 0
    for first in range(0, len(times), 7):
        for last in range(first, len(times), 5):
            count = last - first + 1
            assert count <= burst + 1 + (times[last] - times[first]) * requests + 1e-6


# -- turns


def test_one_with_thousands_waiting_does_not_starve_the_other() -> None:
    turns = admission.Turns()
    served: list[str] = []
    for _ in range(100):
        chosen, turns = admission.next_turn({"crowd": 1.0, "single": 1.0}, turns)
        served.append(chosen)
    assert Counter(served) == {"crowd": 50, "single": 50}


def test_who_was_away_comes_back_level_and_not_with_credit() -> None:
    turns = admission.Turns()
    for _ in range(100):
        _, turns = admission.next_turn({"a": 1.0}, turns)
    served = []
    for _ in range(10):
        chosen, turns = admission.next_turn({"a": 1.0, "b": 1.0}, turns)
        served.append(chosen)
    assert 4 <= Counter(served)["b"] <= 6


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0.5, 4), min_size=1))
def test_shares_of_work_are_even(costs: dict[str, float]) -> None:
    turns = admission.Turns()
    work: Counter[str] = Counter()
    spent = dict.fromkeys(costs, 0.0)
    for _ in range(300):
        chosen, turns = admission.next_turn(costs, turns)
        work[chosen] += 1
        spent[chosen] += costs[chosen]
    assert max(spent.values()) - min(spent.values()) <= 2 * max(costs.values()) + 1e-6
    assert len(turns.served) <= len(costs)


# -- retry


def test_ceiling_doubles_until_it_is_reached() -> None:
    settings = retry.Backoff(first=0.5, factor=2.0, ceiling=30.0)
    assert [retry.ceiling(n, settings) for n in (0, 1, 2, 3, 7, 8, 100_000)] == [0.0, 0.5, 1.0, 2.0, 30.0, 30.0, 30.0]


@given(st.integers(0, 50), st.floats(0, 1, exclude_max=True))
def test_delay_is_within_its_ceiling(failures: int, number: float) -> None:
    settings = retry.Backoff()
    assert 0 <= retry.delay(failures, settings, number) <= retry.ceiling(failures, settings) <= settings.ceiling
