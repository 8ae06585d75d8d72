"""What every call adds to, in plain numbers; rendered for Prometheus when somebody asks.

Names follow the FaaS semantic conventions of OpenTelemetry in Prometheus spelling. Labels never hold an id or a
path; past `SERIES_MAX` functions the rest share one series named "other".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 60.0)
SERIES_MAX = 5_000
_LABELS = ("namespace", "function", "revision", "trigger", "status_class")
SeriesKey = tuple[str, str, str, str]
Gauges = Callable[[], list[tuple[str, str, dict[tuple[str, ...], float], tuple[str, ...]]]]
"""() -> [(name, help, {label values: value}, label names)]"""


class Series:
    """The numbers of one (namespace, function, revision, trigger)."""

    __slots__ = ("bytes_in", "bytes_out", "cold", "errors", "status", "timeouts")

    def __init__(self) -> None:
        self.status: dict[str, tuple[list[int], list[float]]] = {}
        self.errors = 0
        self.timeouts = 0
        self.cold: dict[str, int] = {}
        self.bytes_in = 0
        self.bytes_out = 0

    def add(self, status: int, seconds: float) -> None:
        counts, total = self.entry(status)
        counts[bisect_left(BUCKETS, seconds)] += 1
        total[0] += seconds

    @property
    def calls(self) -> int:
        """How many were counted until now."""
        return sum(sum(counts) for counts, _ in self.status.values())

    def copy(self) -> Series:
        made = Series()
        made.status = {name: (counts[:], total[:]) for name, (counts, total) in self.status.items()}
        made.cold = dict(self.cold)
        made.errors, made.timeouts = self.errors, self.timeouts
        made.bytes_in, made.bytes_out = self.bytes_in, self.bytes_out
        return made

    def since(self, before: Series) -> Series:
        """What was added after `before`, a copy of the same series."""
        grown = self.copy()
        for name, (counts, total) in before.status.items():
            mine = grown.status[name]
            mine[0][:] = [new - old for new, old in zip(mine[0], counts, strict=True)]
            mine[1][0] -= total[0]
        for reason, count in before.cold.items():
            grown.cold[reason] -= count
        grown.errors -= before.errors
        grown.timeouts -= before.timeouts
        grown.bytes_in -= before.bytes_in
        grown.bytes_out -= before.bytes_out
        return grown

    def entry(self, status: int) -> tuple[list[int], list[float]]:
        """The histogram that calls with this status are counted in, and the sum of their seconds."""
        name = f"{status // 100}xx" if 100 <= status < 600 else "none"
        entry = self.status.get(name)
        if entry is None:
            entry = self.status[name] = ([0] * (len(BUCKETS) + 1), [0.0])
        return entry


class Metrics:
    """All series, the platform's own counters, and gauges that others supply when asked."""

    def __init__(self) -> None:
        self._series: dict[SeriesKey, Series] = {}
        self._taken: dict[SeriesKey, Series] = {}
        self._gauges: list[Gauges] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def of(self, namespace: str, function: str, revision: str, trigger: str) -> Series:
        key = (namespace, function, revision, trigger)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= SERIES_MAX:
                key = ("other", "other", "other", trigger)
            series = self._series.setdefault(key, Series())
        return series

    def take(self) -> dict[SeriesKey, Series]:
        """What was added since it was last taken, for another process to `merge`."""
        taken = {}
        for key, series in self._series.items():
            before = self._taken.get(key)
            if before is None or series.calls != before.calls:
                now = self._taken[key] = series.copy()
                taken[key] = now.since(before) if before is not None else now
        return taken

    def merge(self, key: SeriesKey, grown: Series) -> None:
        """Adds what another process counted."""
        series = self.of(*key)
        for name, (counts, total) in grown.status.items():
            mine = series.status.setdefault(name, ([0] * len(counts), [0.0]))
            mine[0][:] = [a + b for a, b in zip(mine[0], counts, strict=True)]
            mine[1][0] += total[0]
        for reason, count in grown.cold.items():
            series.cold[reason] = series.cold.get(reason, 0) + count
        series.errors += grown.errors
        series.timeouts += grown.timeouts
        series.bytes_in += grown.bytes_in
        series.bytes_out += grown.bytes_out

    def forget(self, namespace: str, function: str) -> None:
        """A function is gone: so are its series."""
        for key in [key for key in self._series if key[:2] == (namespace, function)]:
            del self._series[key]
            self._taken.pop(key, None)

    def gauges(self, supply: Gauges) -> None:
        self._gauges.append(supply)

    def render(self) -> bytes:
        """The text exposition; takes milliseconds with many functions, so call it in a thread."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """prometheus_client asks here."""
        yield from self._calls()
        for supply in self._gauges:
            for name, text, values, labels in supply():
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                family = kind(name, text, labels=labels)
                for value_labels, value in values.items():
                    family.add_metric(value_labels, value)
                yield family

    def describe(self) -> list[Metric]:
        """Nothing is known before it happens."""
        return []

    def _calls(self) -> Iterator[Metric]:
        short = _LABELS[:4]
        calls = CounterMetricFamily("faas_invocations", "Calls that ended, by class of status.", labels=_LABELS)
        duration = HistogramMetricFamily("faas_invoke_duration_seconds", "Time from head to end.", labels=_LABELS)
        errors = CounterMetricFamily("faas_errors", "Calls that the platform answered with an error.", labels=short)
        timeouts = CounterMetricFamily("faas_timeouts", "Calls that ran out of time.", labels=short)
        cold = CounterMetricFamily("faas_coldstarts", "Calls that waited for an instance.", labels=(*short, "reason"))
        received = CounterMetricFamily("septet_request_bytes", "Bytes of request bodies.", labels=short)
        sent = CounterMetricFamily("septet_reply_bytes", "Bytes of reply bodies.", labels=short)
        for key, series in list(self._series.items()):
            for status, (counts, total) in list(series.status.items()):
                calls.add_metric((*key, status), sum(counts))
                sums = 0
                buckets = []
                for bound, count in zip((*BUCKETS, float("inf")), counts, strict=True):
                    sums += count
                    buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", sums))
                duration.add_metric((*key, status), buckets, total[0])
            errors.add_metric(key, series.errors)
            timeouts.add_metric(key, series.timeouts)
            received.add_metric(key, series.bytes_in)
            sent.add_metric(key, series.bytes_out)
            for reason, count in list(series.cold.items()):
                cold.add_metric((*key, reason), count)
        yield from (calls, duration, errors, timeouts, cold, received, sent)
