#!/usr/bin/env python3
"""Keep-alive: cold starts against memory held idle, by the fixed and the histogram policy, on a generated trace.

The decisions are those of `septet.policy.keepalive`, the very functions that the platform runs. The trace is made, not
recorded: its rates and shares follow figures published of the Azure Functions trace ("Serverless in the Wild", ATC
2020), the weights of periods and the shapes of gaps are assumed.

- Rate: 45 % of functions are called once an hour or less on average, 81 % once a minute or less; rates span eight
  orders of magnitude. Here: log-uniform from once in ten days to once an hour (45 %), from there to once a minute
  (36 %), and from there to 100 calls a second (19 %).
- Timers are 16 % of functions, and fire once in 1, 5, 10, 15, 30 or 60 minutes, 6 hours or a day (weights 10, 25, 10,
  20, 10, 15, 4 and 6), a second early or late at most.
- The others: half are called at random (exponential gaps, a coefficient of variation of 1), half in bursts with long
  silence between (lognormal gaps with sigma 1.8, a coefficient of variation of 5).

As in the paper, calls take no time and all functions take the same memory, so that the memory-time counted is that of
instances which wait. Calls less than four seconds apart are no idle time for the platform, which looks every two
seconds: they are counted by their mean and hold no idle memory; idle times below a bin are counted by their mean too.
Functions do not influence each other: each is replayed alone, so that the memory needed does not grow with their
number. A function's first call is cold under any policy and is not counted. Instances are stopped and started at the
very moment that the windows say, without the time that scaling to zero takes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from septet.policy import keepalive
from septet.policy.keepalive import BIN, IdleTimes, Windows

HOUR = 3600.0
DAY = 24 * HOUR
RATES = ((0.45, 10 * DAY, HOUR), (0.36, HOUR, 60.0), (0.19, 60.0, 0.01))
"""Share of functions, and between which mean gaps (seconds)."""
TIMERS = 0.16
PERIODS = (60.0, 300.0, 600.0, 900.0, 1800.0, HOUR, 6 * HOUR, DAY)
WEIGHTS = (10, 25, 10, 20, 10, 15, 4, 6)
BURSTY = 0.5
SIGMA = 1.8
NORMAL = statistics.NormalDist()
NEVER = 1e-9
"""A share of long gaps that no trace is long enough for."""
PAUSE = 4.0
"""Seconds without a call from which on the platform counts an idle time (`control/keeping.py`)."""
BATCH = 10_000
BUCKETS = 101
"""For the share of cold calls by function: 0 %, 1 %, ... 100 %."""


class Pattern(NamedTuple):
    """How one function is called, in seconds. Of its idle times a `share` are a bin of the histogram or longer and
    come from `long`; the others are `brief` on average. Between two idle times are `close` calls more, `lull` apart."""

    first: float
    share: float
    brief: float
    close: float
    lull: float
    long: Callable[[], float]


def draw(choice: random.Random) -> Pattern:
    """One function of the trace."""
    if choice.random() < TIMERS:
        period = choice.choices(PERIODS, WEIGHTS)[0]
        # A timer of a minute fires in the bin of its period.
        return Pattern(choice.random() * period, 1.0, 0.0, 0.0, 0.0, lambda: max(BIN, period + 2 * choice.random() - 1))
    _, rarest, busiest = choice.choices(RATES, [share for share, _, _ in RATES])[0]
    mean = rarest * (busiest / rarest) ** choice.random()
    return (_bursts if choice.random() < BURSTY else _random)(choice, mean)


def _random(choice: random.Random, mean: float) -> Pattern:
    def below(edge: float) -> tuple[float, float]:
        share = -math.expm1(-edge / mean)
        return share, mean * share - edge * (1 - share)

    return _pattern(choice, mean, below, lambda: BIN + choice.expovariate(1 / mean))


def _bursts(choice: random.Random, mean: float) -> Pattern:
    middle = math.log(mean) - SIGMA * SIGMA / 2

    def below(edge: float) -> tuple[float, float]:
        at = (math.log(edge) - middle) / SIGMA
        return NORMAL.cdf(at), mean * NORMAL.cdf(at - SIGMA)

    least = below(BIN)[0]

    def long() -> float:
        at = least + (1 - least) * choice.random()
        return math.exp(middle + SIGMA * NORMAL.inv_cdf(min(max(at, 1e-12), 1 - 1e-12)))

    return _pattern(choice, mean, below, long)


def _pattern(
    choice: random.Random, mean: float, below: Callable[[float], tuple[float, float]], long: Callable[[], float]
) -> Pattern:
    """`below` gives the share of gaps shorter than an edge, and what these add to the mean gap."""
    near, near_part = below(PAUSE)
    short, short_part = below(BIN)
    first = choice.expovariate(1 / mean)
    lull = near_part / near if near else 0.0
    if 1 - near < NEVER:
        return Pattern(first, 0.0, 0.0, math.inf, mean, long)
    share = (1 - short) / (1 - near)
    brief = (short_part - near_part) / (short - near) if short > near else BIN
    return Pattern(first, share, brief, near / (1 - near), lull, long)


class Tally:
    """What one policy did to many functions. Times in seconds of one instance."""

    def __init__(self) -> None:
        self.calls = 0
        self.cold = 0
        self.held = 0.0
        self.functions = [0] * BUCKETS
        """Functions by their share of cold calls."""

    def add(self, calls: int, cold: int, held: float) -> None:
        self.calls += calls
        self.cold += cold
        self.held += held
        if calls:
            self.functions[round(100 * cold / calls)] += 1

    def join(self, other: Tally) -> None:
        self.calls += other.calls
        self.cold += other.cold
        self.held += other.held
        self.functions = [a + b for a, b in zip(self.functions, other.functions, strict=True)]

    def quartile(self, share: float) -> int:
        """The share of cold calls (percent) that this share of functions stays at or below."""
        wanted = share * sum(self.functions)
        seen = 0
        for percent, count in enumerate(self.functions):
            seen += count
            if seen >= wanted:
                return percent
        return 100


def gaps(pattern: Pattern, room: int, spare: float, choice: random.Random) -> tuple[list[float], int, float]:
    """The next idle times, at most `room` of them and about `spare` seconds together with the calls between them: the
    long ones, how many brief ones, and the time that all take."""
    long: list[float] = []
    brief = 0
    took = 0.0
    between = pattern.close * pattern.lull
    apart = pattern.brief + between
    never = math.log1p(-pattern.share) if NEVER < pattern.share < 1 else 0.0
    while took < spare and len(long) + brief < room:
        if pattern.share < 1:
            run = room - brief - len(long)
            if never:
                run = min(run, int(math.log(1 - choice.random()) / never))
            run = min(run, 1 + int((spare - took) / apart))
            brief += run
            took += run * apart
            if took >= spare or brief + len(long) >= room:
                break
        seconds = pattern.long()
        long.append(seconds)
        took += seconds + between
    return long, brief, took


def weigh(wanted: Windows, long: list[float], brief: int, mean: float) -> tuple[int, float]:
    """Cold calls after these idle times, and the seconds that an instance waited in them."""
    prewarm, end = wanted.prewarm, wanted.end
    if prewarm == 0:
        # A keep-alive is never shorter than a bin, so that no call after a brief idle time is cold.
        return sum(seconds > end for seconds in long), sum(min(s, end) for s in long) + brief * mean
    cold = sum(1 for seconds in long if not prewarm <= seconds <= end)
    return cold + brief, sum(min(seconds, end) - prewarm for seconds in long if seconds > prewarm)


def replay(pattern: Pattern, length: float, fixed: list[float], choice: random.Random) -> list[tuple[int, int, float]]:
    """One function: for each fixed keep-alive, and last for the histogram, (calls, cold ones, seconds held)."""
    at = pattern.first
    if at >= length:
        return [(0, 0, 0.0)] * (len(fixed) + 1)
    if pattern.close == math.inf:
        return [(int((length - at) / pattern.lull), 0, 0.0)] * (len(fixed) + 1)
    memory = IdleTimes()
    all_long: list[float] = []
    all_brief = cold = 0
    held = cut = 0.0
    while at < length:
        long, brief, took = gaps(pattern, memory.due - memory.total, length - at, choice)
        at += took
        wanted = keepalive.windows(memory, keepalive.STANDARD)
        if at >= length and long:
            # The last call comes after the trace's end: it does not count, and the wait for it is cut there.
            cut = max(0.0, length - (at - long.pop()))
            held += max(0.0, min(cut, wanted.end) - wanted.prewarm)
        missed, waited = weigh(wanted, long, brief, pattern.brief)
        cold, held = cold + missed, held + waited
        all_long += long
        all_brief += brief
        memory = keepalive.observe(memory, long, brief)
    idle = len(all_long) + all_brief
    rest = max(0.0, length - pattern.first - sum(all_long) - all_brief * pattern.brief - cut)
    close = min(idle * pattern.close, rest / pattern.lull) if pattern.lull else 0.0
    results = []
    for seconds in fixed:
        missed, waited = weigh(Windows(0.0, seconds), all_long, all_brief, pattern.brief)
        results.append((missed, waited + min(cut, seconds)))
    return [(idle + int(close), missed, waited) for missed, waited in (*results, (cold, held))]


def batch(work: tuple[int, int, float, list[float]]) -> list[Tally]:
    """Some functions, from a seed of their own."""
    seed, count, length, fixed = work
    choice = random.Random(seed)
    tallies = [Tally() for _ in range(len(fixed) + 1)]
    for _ in range(count):
        for tally, result in zip(tallies, replay(draw(choice), length, fixed, choice), strict=True):
            tally.add(*result)
    return tallies


def works(given: argparse.Namespace) -> Iterator[tuple[int, int, float, list[float]]]:
    for number, begin in enumerate(range(0, given.functions, BATCH)):
        count = min(BATCH, given.functions - begin)
        yield given.seed * 1_000_003 + number, count, given.hours * HOUR, [m * 60 for m in given.fixed]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--functions", type=int, default=100_000)
    parser.add_argument("--hours", type=float, default=24.0, help="length of the trace (default 24)")
    parser.add_argument("--fixed", type=float, nargs="+", default=[1, 10, 20, 60], help="fixed keep-alives, minutes")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="unused: a trace and a seed have one result")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    totals = [Tally() for _ in range(len(given.fixed) + 1)]
    with multiprocessing.Pool(given.processes) as pool:
        for part in pool.imap_unordered(batch, works(given)):
            for total, tally in zip(totals, part, strict=True):
                total.join(tally)
    took = time.monotonic() - began
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    tell(given, totals, took, peak)


def tell(given: argparse.Namespace, totals: list[Tally], took: float, peak: float) -> None:
    names = [*(f"fixed, {minutes:g} min" for minutes in given.fixed), "histogram"]
    reference = next((t for t, minutes in zip(totals, given.fixed, strict=False) if minutes == 10), totals[0])
    rows = [
        {
            "policy": name,
            "calls": total.calls,
            "cold_percent": 100 * total.cold / max(1, total.calls),
            "function_cold_percent": [total.quartile(share) for share in (0.25, 0.5, 0.75)],
            "instance_hours": total.held / HOUR,
            "memory_time": total.held / (reference.held or 1.0),
        }
        for name, total in zip(names, totals, strict=True)
    ]
    if given.json:
        print(json.dumps({"functions": given.functions, "hours": given.hours, "seed": given.seed, "rows": rows,
                          "seconds": took, "peak_mib": peak}))  # fmt: skip
        return
    print(f"{given.functions:,} functions over {given.hours:g} h, seed {given.seed}: {rows[0]['calls']:,} calls")
    print(f"{'':<16}{'cold calls':>12}{'cold by function, quartiles':>31}{'memory-time':>14}{'instance hours':>17}")
    for row in rows:
        low, middle, high = row["function_cold_percent"]
        quartiles = f"{low} / {middle} / {high} %"
        print(
            f"{row['policy']:<16}{row['cold_percent']:>10.4f} %{quartiles:>31}{row['memory_time']:>13.2f}x"
            f"{row['instance_hours']:>17,.0f}"
        )
    print(f"took {took:.1f} s in {given.processes} processes, the largest {peak:.0f} MiB")


if __name__ == "__main__":
    main()
