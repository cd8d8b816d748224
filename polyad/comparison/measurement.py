"""Time and memory of a call."""

import contextlib
import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Timing", "memory", "timing"]

FEWEST, MOST = 5, 200
LONG, LONGEST = 0.5, 3.0
"""Seconds after which no more calls are needed, and after which there is no further one."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a call by the clock on the wall.

    median, low, high  of the runs; the middle half of them lies between low and high
    first              the first call, which imports, traces and compiles
    """

    median: float
    low: float
    high: float
    runs: int
    first: float

    @property
    def spread(self) -> float:
        """Half of the distance from low to high, relative to the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def timing(call: Callable[[], Any], first: float) -> Timing:
    """Median and quartiles of calls after the first, which took so long."""
    seconds: list[float] = []
    while not seconds or (sum(seconds) < LONGEST and (len(seconds) < FEWEST or sum(seconds) < LONG)):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
        if len(seconds) == MOST:
            break
    low, median, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    return Timing(median, max(low, min(seconds)), min(high, max(seconds)), len(seconds), first)


def memory(call: Callable[[], Any]) -> int | None:
    """Bytes by which the process grows at its highest during a call; None where Linux does not tell.

    Freed memory is given back before, so that what the call takes is seen as
    growth. The process is counted in pages, its libraries included, so that
    100 KiB more or less mean nothing.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    if not _forget_peak():
        return None
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def _forget_peak() -> bool:
    if sys.platform != "linux":
        return False
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the peak of the resident memory, see proc(5)
    except OSError:
        return False
    return True


def _resident(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))
