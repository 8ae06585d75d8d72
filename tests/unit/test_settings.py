"""Settings from flags and environment."""

from __future__ import annotations

import pytest

from septet.model.errors import InvalidInput
from septet.settings import load


def test_one_process_serves_unless_more_are_asked_for() -> None:
    assert load({}, {}).workers == 1
    assert load({"workers": None}, {"SEPTET_WORKERS": "3"}).workers == 3
    assert load({"workers": 2}, {"SEPTET_WORKERS": "3"}).workers == 2


@pytest.mark.parametrize("text", ["0", "-1", "65", "two"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        load({}, {"SEPTET_WORKERS": text})
