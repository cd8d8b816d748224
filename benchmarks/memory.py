"""Bytes at the highest point of a call, as the allocators see them.

torch and JAX keep accounts of their own, which ways/torch.py and ways/jax.py read.
"""

import ctypes
import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

__all__ = ["growth", "resident", "traced"]


def traced(call: Callable[[], Any]) -> int:
    """Bytes that Python and NumPy hold more at the highest point of a call than before it."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def growth(call: Callable[[], Any]) -> int:
    """Bytes that this process needs more at the highest point of a call than before it.

    What earlier calls have freed is given back to the system first, where that is Linux with glibc; pages are counted.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest point begins here
    before = resident("VmRSS")
    call()
    return max(resident("VmHWM") - before, 0)


def resident(key: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the highest point."""
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(key))
