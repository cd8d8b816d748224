"""One case on one backend in one precision: value, gradients, two witnesses, time.

A run never raises: whatever goes wrong, an exception of the backend included,
is a failure in the Result, with its text.
"""

import functools
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from polyad import StatefulLayer, convert, setup, trees, value_and_gradient
from polyad.backends import get

from .cases import FINITE_DIFFERENCES, Case

__all__ = ["DTYPES", "Result", "run"]

DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Result:
    """What one run found. Differences are relative to the largest entry of their leaf.

    difference          largest one between the gradients, or the value, and the
                        reference; worst names its leaf
    finite_differences  largest one between the gradients and central
                        differences; None in float32, where those see too little
    seconds             value and gradients: median of five calls after the first
    failures            empty where the backend conforms
    trace               of the last exception
    """

    case: str
    backend: str
    dtype: str
    difference: float | None = None
    worst: str = ""
    finite_differences: float | None = None
    seconds: float | None = None
    failures: tuple[str, ...] = ()
    trace: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing failed and the reference was compared with."""
        return not self.failures and self.difference is not None


Leaves = list[np.ndarray]


def run(case: Case, backend: str, dtype: str) -> Result:
    """The case on the backend of this name, in "float64" or "float32"."""
    result = Result(case.name, backend, dtype)
    witnesses = (against_reference, against_finite_differences) if dtype == "float64" else (against_reference,)
    for witness in witnesses:
        try:
            result = witness(case, result)
        except Exception as error:  # a backend may raise anything, and all of it is a result
            raised = f"{type(error).__name__}: {error}"
            return replace(result, failures=(*result.failures, raised), trace=traceback.format_exc())
    return result


def against_reference(case: Case, result: Result) -> Result:
    """The result with difference, worst leaf and time."""
    call = _call(case, result)
    actual = _host(call())
    seconds = statistics.median(_seconds(call) for _ in range(5))
    value, gradients = case.expected
    expected = [np.asarray(value), *trees.leaves(gradients)]
    difference, worst = largest_difference(actual, expected, leaf_names(case))
    failures = [
        *malformed(actual, expected, leaf_names(case), result.dtype),
        *_too_large(difference, case.tolerance[result.dtype], worst, "the reference"),
    ]
    return replace(result, difference=difference, worst=worst, seconds=seconds, failures=tuple(failures))


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    _host(call())
    return time.perf_counter() - start


def against_finite_differences(case: Case, result: Result) -> Result:
    """The result with finite_differences: of the same loss on the same backend."""
    actual = _host(_call(case, result)())
    expected = _host(_call(case, result, mode="finite_difference")())
    difference, worst = largest_difference(actual, expected, leaf_names(case))
    failures = _too_large(difference, FINITE_DIFFERENCES, worst, "central differences")
    return replace(result, finite_differences=difference, failures=(*result.failures, *failures))


def _too_large(difference: float, allowed: float, leaf: str, witness: str) -> list[str]:
    if difference <= allowed:  # false for NaN, which is thus reported
        return []
    return [f"{leaf} differs from {witness} by {difference:.1e}; {allowed:.0e} is allowed"]


def _call(case: Case, result: Result, mode: str = "auto") -> Callable[[], Any]:
    """A function without arguments: (value, (gradient in the parameters, in each input, ...))."""
    backend, dtype = result.backend, result.dtype
    _, state = setup(0, case.model, backend=backend, dtype=dtype)
    args = convert((case.parameters, *case.inputs.values()), backend, dtype=dtype)

    def loss(params: Any, *inputs: Any) -> Any:
        return case.loss(StatefulLayer(case.model, params, state), *inputs)

    # Differences evaluate the loss hundreds of times, which JAX does fast only when compiled.
    f = _compiled(loss, backend, args) if mode == "finite_difference" else loss
    return functools.partial(value_and_gradient, f, *args, argnums=tuple(range(len(args))), backend=backend, mode=mode)


def _compiled(loss: Callable[..., Any], backend: str, args: tuple[Any, ...]) -> Callable[..., Any]:
    """The loss through the compiler of the backend, which takes and returns flat tuples."""
    _, spec = trees.flatten(args)
    fast = get(backend).compile(lambda *leaves: (loss(*trees.unflatten(spec, leaves)),))
    return lambda *moved: fast(*trees.leaves(moved))[0]


def _host(result: Any) -> Leaves:
    """Leaves as ndarrays, and so a wait for backends that return before they are done."""
    return [np.asarray(leaf) for leaf in trees.leaves(convert(result, "numpy"))]


def leaf_names(case: Case) -> list[str]:
    """The value, then the gradient in each parameter and input, as a person would type them."""
    names = [f"d/d {name}" for name in trees.names(case.parameters, "params")]
    return ["value", *names, *(f"d/d {name}" for name in case.inputs)]


def largest_difference(actual: Leaves, expected: Leaves, names: Sequence[str]) -> tuple[float, str]:
    """(difference, name of its leaf), relative to the largest expected entry; infinite for other shapes or zero."""
    if len(actual) != len(expected):
        return float("inf"), f"{len(actual)} leaves in place of {len(expected)}:"
    found = [_difference(a, e) for a, e in zip(actual, expected, strict=True)]
    worst = int(np.argmax(found))  # a NaN counts as the largest
    return found[worst], names[worst]


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    size = np.max(np.abs(expected))
    if actual.shape != expected.shape or size == 0:  # against zero nothing can be measured
        return float("inf")
    return float(np.max(np.abs(actual - expected)) / size)


def malformed(actual: Leaves, expected: Leaves, names: Sequence[str], dtype: str) -> Iterator[str]:
    """What is wrong with the leaves, whatever their difference."""
    for a, e, name in zip(actual, expected, names, strict=False):
        if a.dtype != dtype:
            yield f"{name} is {a.dtype}, not {dtype}"
        if a.shape != e.shape:
            yield f"{name} has shape {a.shape}, not {e.shape}"
        elif not np.any(a):
            yield f"{name} is zero in every entry"
