"""Where a case runs: "cpu", or "gpu", the first accelerator that the backend has."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from polyad.backends.base import Backend

__all__ = ["DEVICES", "MissingDeviceError", "exact_and_quick", "place"]

DEVICES = ("cpu", "gpu")


class MissingDeviceError(RuntimeError):
    """The backend has no such device here."""


def place(adapter: Backend, device: str) -> Any:
    """The name of the device as the adapter takes it; MissingDeviceError where there is none."""
    names = adapter.devices()
    found = [name for name in names if (name == "cpu") == (device == "cpu")]
    if not found:
        raise MissingDeviceError(f"{adapter.name} has no {device} here; its devices are {', '.join(names) or 'none'}")
    # Hosts take no device, and where there is one alone nothing need be said.
    return None if len(names) == 1 else found[0]


@contextlib.contextmanager
def exact_and_quick(device: str) -> Iterator[None]:
    """A block in which float32 is float32 on any device, and compilers do not optimize.

    Accelerators multiply matrices in TF32 where they may. XLA takes longer to
    optimize a case than to run it: 50 s in place of 72 s for the nested ones (one
    CPU thread, 2026-11). Both are about frameworks, which hold them in global
    flags, and not about adapters: those that are not imported are not touched.
    """
    with contextlib.ExitStack() as stack:
        if "jax" in sys.modules:
            stack.enter_context(sys.modules["jax"].default_matmul_precision("highest"))
            stack.enter_context(_unoptimized(sys.modules["jax"].config))
        if device != "cpu" and "torch" in sys.modules:
            stack.enter_context(_without_tf32(sys.modules["torch"].backends))
        yield


@contextlib.contextmanager
def _unoptimized(config: Any) -> Iterator[None]:
    flag = "jax_disable_most_optimizations"
    before = config.read(flag)
    config.update(flag, True)
    try:
        yield
    finally:
        config.update(flag, before)


@contextlib.contextmanager
def _without_tf32(backends: Any) -> Iterator[None]:
    parts = (backends.cuda.matmul, backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = False
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.allow_tf32 = value
