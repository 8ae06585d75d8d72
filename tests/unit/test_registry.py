"""The tables of names, and the built-in runtimes as their files describe them."""

from __future__ import annotations

import tomllib

import msgspec
import pytest

from septet.model.runtime import Runtime
from septet.registry import CONTRACTS, RUNTIMES, load, runtime_folder, runtimes


def test_every_runtime_is_what_its_file_says() -> None:
    found = runtimes()
    assert set(found) == set(RUNTIMES)
    for name, runtime in found.items():
        assert runtime.name == name
        assert runtime.protocol in CONTRACTS
        assert runtime.start_from_spec != bool(runtime.command)
        assert {p.name for p in runtime_folder(name).iterdir()} >= {"runtime.toml"}


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_file_that_a_command_names_is_there(name: str) -> None:
    runtime = runtimes()[name]
    for words in (runtime.command, *(build.command for build in runtime.builds)):
        for word in words:
            if word.startswith("{runtime}/"):
                assert (runtime_folder(name) / word.removeprefix("{runtime}/")).is_file()


def test_an_unknown_member_is_an_error() -> None:
    text = 'name = "x"\ncomand = ["a"]\n'
    with pytest.raises(msgspec.ValidationError, match="comand"):
        msgspec.convert(tomllib.loads(text), Runtime)


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_contract_can_be_loaded(name: str) -> None:
    assert load(CONTRACTS, name)().name == name
