"""A suite of checks, each bound to a numbered clause of a port's docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

from septet.model.errors import SeptetError

Bed = TypeVar("Bed")


class Clause(NamedTuple):
    id: str
    check: Callable[[Any], Awaitable[None]]

    @property
    def name(self) -> str:
        return f"{self.id}-{self.check.__name__}"


class Suite(Generic[Bed]):
    """Checks by clause; each takes a test bed with the driver."""

    def __init__(self) -> None:
        self.clauses: list[Clause] = []

    def clause(self, id: str) -> Callable[[Callable[[Bed], Awaitable[None]]], Callable[[Bed], Awaitable[None]]]:
        def keep(check: Callable[[Bed], Awaitable[None]]) -> Callable[[Bed], Awaitable[None]]:
            self.clauses.append(Clause(id, check))
            return check

        return keep

    def ids(self) -> set[str]:
        return {clause.id for clause in self.clauses}


def written_clauses(port: ModuleType, word: str) -> set[str]:
    """The clause ids in a port's text."""
    return set(re.findall(rf"\b{word}\.\d+", inspect.getsource(port)))


async def raises(kind: type[SeptetError], work: Awaitable[object]) -> SeptetError:
    """The error of exactly that class which awaiting raises."""
    try:
        await work
    except SeptetError as error:
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}"
        assert error.message
        return error
    raise AssertionError(f"no {kind.__name__}")
