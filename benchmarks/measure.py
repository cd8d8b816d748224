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

__all__ = ["Spread", "geometric_mean", "in_two_parts", "interleaved", "medians", "ratio", "seconds", "spread"]

Calls = Mapping[str, Callable[[], Any]]
Times = dict[str, list[float]]

SHORTEST = 2e-3
"""Seconds of a sample: a shorter call is repeated in it."""


@dataclass(frozen=True)
class Spread:
    """Of a sample of times in seconds: the median and the quartiles."""

    median: float
    low: float
    high: float
    count: int


def seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """CPU seconds of one call, the mean of so many in a row, which another one has led: it brings its arrays back."""
    if repeats > 1:
        call()
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def interleaved(
    calls: Calls, rounds: int, *, repeats: Mapping[str, int] | None = None, warm: int = 1, key: int = 0
) -> Times:
    """CPU seconds of each in each round, in another order each time; `warm` rounds more, which do not count.

    What a call leaves behind, such as garbage to collect, is paid by the next one.
    """
    times: Times = {name: [] for name in calls}
    order = random.Random(key)
    for turn in range(warm + rounds):
        for name in order.sample(list(calls), len(calls)):
            taken = seconds(calls[name], (repeats or {}).get(name, 1))
            if turn >= warm:
                times[name].append(taken)
    return times


def medians(calls: Calls, rounds: int, *, warm: int = 1, repeats: Mapping[str, int] | None = None) -> dict[str, float]:
    """Median CPU seconds of each call."""
    times = interleaved(calls, rounds, warm=warm, repeats=repeats)
    return {name: statistics.median(values) for name, values in times.items()}


def in_two_parts(calls: Calls, always: Sequence[str], rounds: int, budget: float) -> tuple[Times, Times]:
    """(times of all candidates in a few rounds, times of those that matter in many).

    always  take part in the second part
    rounds  of the second part; both parts have fewer where they would take much more than `budget` seconds
            together, and three at least

    Those that matter are the others within a quarter of the fastest of them.
    """
    once = {name: _warmed(call) for name, call in calls.items()}
    repeats = {name: max(1, min(1000, math.ceil(SHORTEST / max(taken, 1e-9)))) for name, taken in once.items()}
    sample = {name: once[name] * repeats[name] for name in calls}
    first = interleaved(
        calls, _affordable(sum(sample.values()), budget / 2, max(3, rounds // 4)), repeats=repeats, warm=1
    )
    typical = {name: statistics.median(values) for name, values in first.items()}
    others = [name for name in calls if name not in always]
    fastest = min((typical[name] for name in others), default=0.0)
    chosen = {name: call for name, call in calls.items() if name in always or typical[name] <= 1.25 * fastest}
    affordable = _affordable(sum(typical[name] * repeats[name] for name in chosen), budget / 2, rounds)
    return first, interleaved(chosen, affordable, repeats=repeats, warm=0, key=1)


def _warmed(call: Callable[[], Any]) -> float:
    """Seconds of the third call: the first ones compile, and load libraries."""
    call()
    call()
    return seconds(call)


def _affordable(cost: float, budget: float, rounds: int) -> int:
    """An even number of rounds, so that every other one may choose."""
    return max(4, 2 * (min(rounds, int(budget / cost)) // 2))


def spread(times: Sequence[float]) -> Spread:
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else 3 * [times[0]]
    return Spread(median, low, high, len(times))


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of rounds: a slow moment meets both of one round."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def geometric_mean(ratios: Sequence[float]) -> float:
    return statistics.geometric_mean(ratios) if ratios else math.nan
