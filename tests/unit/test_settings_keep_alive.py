"""How long the platform keeps what functions do not say otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from septet.model.errors import InvalidInput
from septet.model.function import Scale
from septet.service import validation
from septet.settings import load


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("600", 600.0), ("0.5", 0.5), ("auto", None)])
def test_seconds_or_auto(tmp_path: Path, text: str, seconds: float | None) -> None:
    assert load({"data_dir": tmp_path, "keep_alive": text}, {}).kept == seconds
    assert load({"data_dir": tmp_path}, {"SEPTET_KEEP_ALIVE": text}).kept == seconds


def test_off_by_default(tmp_path: Path) -> None:
    assert load({"data_dir": tmp_path}, {}).kept == 0


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "soon", "99999999"])
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match="keep an instance"):
        load({"data_dir": tmp_path, "keep_alive": text}, {})


def test_a_function_s_own_is_bounded_and_may_be_unset() -> None:
    for good in (None, "auto", 0.0, 3600.0):
        validation.scale(Scale(keep_alive=good))
    for bad in (-1.0, float("nan"), 1e9):
        with pytest.raises(InvalidInput, match="keep_alive"):
            validation.scale(Scale(keep_alive=bad))
