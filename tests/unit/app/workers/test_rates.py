"""A rate that two processes share lets through what one of them would."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest

from septet.app.workers.rates import SharedAdmission, make_memory
from septet.model.errors import QuotaExceeded
from septet.model.objects import Quota


def admission(memory: int) -> SharedAdmission:
    return SharedAdmission(cast("Any", None), cast("Any", None), lambda: 100.0, lambda: 100.0, memory)


def allowed(who: SharedAdmission, owner: str, times: int) -> int:
    passed = 0
    for _ in range(times):
        try:
            who._count([(owner, Quota(requests=1.0, burst=10))])
        except QuotaExceeded:
            continue
        passed += 1
    return passed


def test_the_burst_is_shared_between_processes() -> None:
    memory = make_memory()
    alone = allowed(admission(make_memory()), "token a", 50)
    here = admission(memory)
    first = allowed(here, "token a", alone - 4)
    child = os.fork()
    if not child:
        os._exit(allowed(admission(memory), "token a", 50))
    _, status = os.waitpid(child, 0)
    assert first == alone - 4
    assert os.waitstatus_to_exitcode(status) == 4
    assert allowed(here, "token a", 5) == 0
    assert allowed(here, "token b", 50) == alone
    with pytest.raises(QuotaExceeded):
        here._count([("token b", Quota(requests=1.0, burst=10))])


def test_a_call_that_one_owner_refuses_counts_for_none() -> None:
    here = admission(make_memory())
    small, large = Quota(requests=1.0, burst=0), Quota(requests=1.0, burst=10)
    here._count([("token small", small)])
    for _ in range(5):
        with pytest.raises(QuotaExceeded):
            here._count([("token large", large), ("token small", small)])
    assert allowed(here, "token large", 50) == 11
