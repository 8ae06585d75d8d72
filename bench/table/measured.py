"""What a row of the table is, and what it says of itself: met, or short of the bound by how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from world import World


@dataclass
class Measured:
    """One number beside its reference, both of the same run.

    `bound` and `aim` are of the ratio to the reference, or of the value alone; with `better` "more" they are floors.
    `value` None means that it could not be measured, and `note` says why; `reference` likewise.
    """

    what: str
    unit: str
    value: float | None
    reference_name: str = ""
    reference: float | None = None
    of: Literal["value", "ratio"] = "value"
    bound: float | None = None
    aim: float | None = None
    better: Literal["less", "more"] = "less"
    note: str = ""
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        if self.value is None or not self.reference:
            return None
        return self.value / self.reference

    @property
    def counted(self) -> float | None:
        """What bound and aim are about."""
        return self.ratio if self.of == "ratio" else self.value

    @property
    def verdict(self) -> str:
        if self.bound is None:
            return "shown" if self.value is not None else "not measured"
        counted = self.counted
        if counted is None:
            return "not measured"
        if not self._holds(counted, self.bound):
            return f"short of the bound by {self._distance(counted, self.bound)}"
        if self.aim is not None and self._holds(counted, self.aim):
            return "pass, aim met"
        return "pass"

    def _holds(self, counted: float, limit: float) -> bool:
        return counted <= limit if self.better == "less" else counted >= limit

    def _distance(self, counted: float, limit: float) -> str:
        return f"{abs(counted - limit):.3g}{'x' if self.of == 'ratio' else ' ' + self.unit}"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "verdict": self.verdict}


@dataclass(frozen=True)
class Row:
    """One measurement that can be asked for by name; it may yield several numbers."""

    name: str
    about: str
    measure: Callable[[World], list[Measured]]
    group: str
    """Rows of one group stand together and may share a platform, which ends with the group."""
    long: bool


ROWS: list[Row] = []


def row(
    name: str, about: str, *, group: str = "", long: bool = False
) -> Callable[[Callable[[World], list[Measured]]], Callable[[World], list[Measured]]]:
    """Enters a function into the table."""

    def enter(measure: Callable[[World], list[Measured]]) -> Callable[[World], list[Measured]]:
        ROWS.append(Row(name, about, measure, group or name, long))
        return measure

    return enter


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def limit(measured: Measured, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:g}x" if measured.of == "ratio" else f"{value:g}"


def cells(measured: Measured) -> list[str]:
    """The columns of one line."""
    ratio = measured.ratio
    return [
        measured.what,
        f"{number(measured.value)} {measured.unit}" if measured.value is not None else "-",
        f"{number(measured.reference)} ({measured.reference_name})" if measured.reference_name else "-",
        f"{ratio:.3g}x" if ratio is not None else "-",
        limit(measured, measured.bound),
        limit(measured, measured.aim),
        measured.verdict + (f" ({measured.note})" if measured.note else ""),
    ]


HEADER = ["what", "Septet", "reference", "ratio", "bound", "aim", "result"]


def table(found: list[Measured]) -> str:
    """A Markdown table."""
    lines = [HEADER, ["---"] * len(HEADER), *(cells(measured) for measured in found)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
