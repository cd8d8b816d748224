"""CPU seconds of candidates, taken in random order, and what may be said of them.

The time of this process counts, so other programs on the machine count only by the
caches and the clock that they share; all candidates of a row run in the same
rounds, so such moments meet all of them.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "UNKNOWN",
    "Ratio",
    "Spread",
    "finals",
    "geometric_mean",
    "heats",
    "interleaved",
    "medians",
    "ratio",
    "repeated",
    "seconds",
    "spread",
]

Calls = Mapping[str, Callable[[], Any]]
Times = dict[str, list[float]]
Clock = Callable[[], float]

SHORTEST = 2e-3
"""Seconds of a sample: a shorter call is repeated in it."""

NARROW = 0.02
"""A ratio is known where its interval reaches so far to either side."""


@dataclass(frozen=True)
class Spread:
    """Of a sample of times in seconds: the median and the quartiles."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Ratio:
    """Of the times of two candidates: the median of the ratios of rounds, and the interval in which that median lies.

    low, high  of 95 % confidence, by order statistics, whatever the distribution is; of a few rounds all
    """

    median: float
    low: float
    high: float
    rounds: int

    @property
    def half_width(self) -> float:
        """How far the interval reaches, in units of the median; inf for what is unknown."""
        reach = max(self.high - self.median, self.median - self.low) / self.median
        return math.inf if math.isnan(reach) else reach


UNKNOWN = Ratio(math.nan, math.nan, math.nan, 0)
"""Where there is nothing to compare with."""


def seconds(call: Callable[[], Any], repeats: int = 1, clock: Clock = time.process_time) -> float:
    """CPU seconds of one call, the mean of so many in a row, which another one has led: it brings its arrays back."""
    if repeats > 1:
        call()
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats


def interleaved(
    calls: Calls,
    rounds: int,
    *,
    repeats: Mapping[str, int] | None = None,
    warm: int = 1,
    key: int = 0,
    clock: Clock = time.process_time,
) -> Times:
    """CPU seconds of each in each round, in another order each time; `warm` rounds more, which do not count.

    What a call leaves behind, such as garbage to collect, is paid by the next one.
    An accelerator works while this process waits: give time.perf_counter as the clock, and calls that wait.
    """
    times: Times = {name: [] for name in calls}
    order = random.Random(key)
    for turn in range(warm + rounds):
        for name in order.sample(list(calls), len(calls)):
            taken = seconds(calls[name], (repeats or {}).get(name, 1), clock)
            if turn >= warm:
                times[name].append(taken)
    return times


def medians(
    calls: Calls,
    rounds: int,
    *,
    warm: int = 1,
    repeats: Mapping[str, int] | None = None,
    clock: Clock = time.process_time,
) -> dict[str, float]:
    """Median CPU seconds of each call."""
    times = interleaved(calls, rounds, warm=warm, repeats=repeats, clock=clock)
    return {name: statistics.median(values) for name, values in times.items()}


def repeated(calls: Calls) -> dict[str, int]:
    """How often each is called in a sample, which a shorter one is too short for."""
    once = {name: _warmed(call) for name, call in calls.items()}
    return {name: max(1, min(1000, math.ceil(SHORTEST / max(taken, 1e-9)))) for name, taken in once.items()}


def heats(
    calls: Calls, always: str, groups: Sequence[Sequence[str]], rounds: int, budget: float, repeats: Mapping[str, int]
) -> tuple[Times, Times]:
    """(times of all candidates in a few rounds, times of those that matter in more), which say who is the best.

    always  takes part in the second ones, with those of each group within a quarter of its fastest
    rounds  of these; fewer where they would take much more than `budget` seconds, and four at least
    """
    first = interleaved(calls, 3, repeats=repeats, warm=0)
    typical = {name: statistics.median(values) for name, values in first.items()}
    near = {name for group in groups for name in group if typical[name] <= 1.25 * min(typical[n] for n in group)}
    chosen = {name: call for name, call in calls.items() if name == always or name in near}
    affordable = int(budget / sum(typical[name] * repeats[name] for name in chosen))
    return first, interleaved(
        chosen, max(4, min(rounds, affordable)), repeats={name: repeats[name] for name in chosen}, warm=0, key=1
    )


def finals(
    calls: Calls, pairs: Sequence[tuple[str, str]], rounds: int, budget: float, repeats: Mapping[str, int]
) -> Times:
    """Times of those that were chosen, in rounds of their own, so that no luck of the choice is in their ratios.

    rounds  at least so many where `budget` seconds allow it, and then as long as these do, until the ratios of
            all pairs are known to NARROW; six at least
    """
    times: Times = {name: [] for name in calls}
    start, key = time.process_time(), 2
    while True:
        for name, more in interleaved(calls, 6, repeats=repeats, warm=0, key=key).items():
            times[name] += more
        done, spent, key = len(times[next(iter(calls))]), time.process_time() - start, key + 1
        narrow = all(ratio(times[a], times[b]).half_width <= NARROW for a, b in pairs)
        if (done >= rounds and narrow) or spent * (done + 6) / done > budget:
            return times


def _warmed(call: Callable[[], Any]) -> float:
    """Seconds of the third call: the first ones compile, and load libraries."""
    call()
    call()
    return seconds(call)


def spread(times: Sequence[float]) -> Spread:
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else 3 * [times[0]]
    return Spread(median, low, high, len(times))


def ratio(times: Sequence[float], others: Sequence[float]) -> Ratio:
    """The median of the ratios of rounds: a slow moment meets both of one round."""
    found = sorted(a / b for a, b in zip(times, others, strict=True))
    if not found:
        return UNKNOWN
    outside = _outside(len(found))
    return Ratio(statistics.median(found), found[outside], found[-1 - outside], len(found))


def _outside(n: int) -> int:
    """How many of n ordered numbers lie below the interval, and above it: so many of n coins fall alike one time in 40.

    By the normal distribution, rounded to the wide side.
    """
    return max(0, int((n - 1.96 * math.sqrt(n)) / 2) - 1)


def geometric_mean(ratios: Sequence[float]) -> float:
    return statistics.geometric_mean(ratios) if ratios else math.nan
