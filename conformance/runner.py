"""Cases on backends: each cell is an Outcome, and nothing that a backend does ends the run.

A case is asked three times, once at another point and then twice at its own,
so that neither a value nor a derivative of yesterday can be the answer.
"""

import concurrent.futures
import fnmatch
import importlib
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from polyad import convert, register_backend, trees, use_backend
from polyad.arrays import dtype_name
from polyad.backends import backends as all_backends
from polyad.backends import get, is_array, is_host, owner
from polyad.backends.base import Backend
from polyad.errors import BackendNotInstalledError, PrecisionError

from .case import Case, UnlikeError
from .devices import DEVICES, MissingDeviceError, exact_and_quick, place
from .gaps import GAPS, Gap, against
from .groups import GROUPS, PROVIDERS, cases_of, listed
from .operations.gaps import OPERATION_GAPS
from .outcome import Outcome

__all__ = ["DEVICES", "DTYPES", "GROUPS", "Run", "adapter_at", "cases_of", "listed", "run", "run_case"]

DTYPES = ("float64", "float32")

FINITE_DIFFERENCES = 1e-6
"""Allowed between a gradient and central differences in float64, whose own error is near 1e-10."""

ON_OTHER_DEVICES = {"float64": 1e-9, "float32": 1e-3}
"""Allowed on other devices than the CPU, whose sums run in another order, TF32 off."""


# Many cells.

SHARES = 6
"""Into which a large group is cut for several processes, so that none is left with it alone."""


@dataclass(frozen=True)
class Run:
    """The outcomes of cases on backends, one after the other, and how many there will be.

    backends  names, adapters, or where an adapter is: "theirs.module:Adapter"
    groups    some of GROUPS
    device    "cpu" or "gpu"
    cases     patterns of names, with * and ?; without any, all
    gaps      what is known not to work
    jobs      processes; each takes a group of one backend, or a share of a large one
    """

    backends: tuple[str | Backend, ...]
    groups: tuple[str, ...]
    dtypes: tuple[str, ...] = DTYPES
    device: str = "cpu"
    cases: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = (*GAPS, *OPERATION_GAPS)
    jobs: int = 1

    def __len__(self) -> int:
        return sum(part.cells for part in self.parts())

    def __iter__(self) -> Iterator[Outcome]:
        parts = self.parts()
        if self.jobs < 2:
            for part in parts:
                yield from part.outcomes(self.gaps)
            return
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        with concurrent.futures.ProcessPoolExecutor(self.jobs, context) as pool:
            running = [pool.submit(_all, part, self.gaps) for part in sorted(parts, key=lambda p: -p.cells)]
            for done in concurrent.futures.as_completed(running):
                yield from done.result()

    def parts(self) -> list["Part"]:
        """What is run in one go: a group on a backend."""
        shares = {group: SHARES if group in PROVIDERS and self.jobs > 1 else 1 for group in self.groups}
        return [
            Part(backend, group, self.dtypes, self.device, self.cases, (i, shares[group]))
            for backend in self.backends
            for group in self.groups
            for i in range(shares[group])
        ]


@dataclass(frozen=True)
class Part:
    """A group on a backend."""

    backend: str | Backend
    group: str
    dtypes: tuple[str, ...]
    device: str
    cases: tuple[str, ...] = ()
    share: tuple[int, int] = (0, 1)

    @property
    def cells(self) -> int:
        """How many outcomes there will be."""
        provider = PROVIDERS.get(self.group)
        if provider is None:
            return len(list(self.questions()))
        return int(provider.count(self.dtypes, self.cases, self.share))

    def outcomes(self, gaps: tuple[Gap, ...]) -> Iterator[Outcome]:
        """One after the other."""
        provider = PROVIDERS.get(self.group)
        if provider is not None:
            for outcome in self._provided(provider):
                yield against(gaps, outcome)
            return
        for case, dtype in self.questions():
            yield run_case(case, self.backend, dtype, self.device, gaps)

    def _provided(self, provider: Any) -> Iterator[Outcome]:
        try:
            adapter = adapter_at(self.backend)
        except BackendNotInstalledError as error:
            yield from provider.missing(_label(self.backend), self.dtypes, self.cases, str(error))
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from provider.outcomes(adapter, self.dtypes, self.device, self.cases, self.share)

    def questions(self) -> Iterator[tuple[Case, str]]:
        """Each case with each of its dtypes."""
        for case in cases_of(self.group):
            if not self.cases or any(fnmatch.fnmatchcase(case.name, pattern) for pattern in self.cases):
                yield from ((case, dtype) for dtype in self.dtypes if dtype in case.dtypes)


def _all(part: Part, gaps: tuple[Gap, ...]) -> list[Outcome]:
    return list(part.outcomes(gaps))


def run(
    backends: Sequence[str | Backend] | None = None,
    groups: Sequence[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    device: str = "cpu",
    jobs: int = 1,
    cases: Sequence[str] = (),
) -> Run:
    """A Run, which is iterated over; without backends, those that are installed, without groups, all."""
    installed = [info.name for info in all_backends() if info.installed]
    return Run(tuple(backends or installed), tuple(groups or GROUPS), tuple(dtypes), device, tuple(cases), jobs=jobs)


def adapter_at(backend: str | Backend) -> Backend:
    """The adapter of this name, or at this place: "theirs.module:Adapter", which is registered under its name."""
    if not isinstance(backend, str) or ":" not in backend:
        return get(backend)
    module, _, attribute = backend.partition(":")
    adapter = getattr(importlib.import_module(module), attribute)
    kind = adapter if isinstance(adapter, type) else type(adapter)
    known = [info.name for info in all_backends()]
    if adapter.name not in known or not isinstance(get(adapter.name), kind):
        register_backend(adapter.name, adapter, module=module)
    return get(adapter.name)


def _label(backend: str | Backend) -> str:
    return (backend.rpartition(":")[2] if ":" in backend else backend) if isinstance(backend, str) else backend.name


# One cell.


def run_case(
    case: Case, backend: str | Backend, dtype: str, device: str = "cpu", gaps: Sequence[Gap] = GAPS
) -> Outcome:
    """The case on the backend, in "float64" or "float32", on "cpu" or "gpu"."""
    blank = Outcome(
        case.group,
        case.name,
        _label(backend),
        dtype,
        device,
        tolerance=_tolerance(case, dtype, device),
        witness=case.source,
        source=case.source,
        tags=tuple(sorted(case.tags)),
    )
    start = time.perf_counter()
    try:
        adapter = adapter_at(backend)
        blank = replace(blank, backend=adapter.name)
        outcome = _judged(case, adapter, blank)
    except BackendNotInstalledError as error:
        outcome = replace(blank, cell="skipped", reason=str(error))
    except (MissingDeviceError, PrecisionError) as error:
        outcome = replace(blank, cell="skipped", reason=str(error))
    except UnlikeError as error:
        outcome = replace(blank, cell="wrong", message=str(error))
    except Exception as error:  # a backend may raise anything, and all of it is an outcome
        outcome = replace(blank, cell="raises", message=f"{type(error).__name__}: {error}")
    return against(gaps, replace(outcome, seconds=time.perf_counter() - start))


def _tolerance(case: Case, dtype: str, device: str) -> float:
    allowed = case.tolerance[dtype]
    return allowed if device == "cpu" else max(allowed, ON_OTHER_DEVICES[dtype])


def _judged(case: Case, adapter: Backend, outcome: Outcome) -> Outcome:
    device = place(adapter, outcome.device)
    missing = sorted(case.needs - set(adapter.modes))
    if missing:
        return replace(outcome, cell="skipped", reason=f"{adapter.name} has no {' and no '.join(missing)} pass itself")
    with use_backend(adapter), exact_and_quick(outcome.device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # frameworks warn about what is asked on purpose
        inputs = _converted(case.inputs, adapter, outcome.dtype, device)
        ask = _compiled(case.ask, adapter, inputs) if case.compiled else case.ask
        ask(*_elsewhere(case.inputs, adapter, outcome.dtype, device))
        for _ in range(2):
            outcome = _compared(case, adapter, ask(*inputs), outcome, inputs)
            if outcome.cell != "ok":
                return outcome
        if case.loss is not None and outcome.dtype == "float64":
            outcome = _against_differences(case, case.loss, adapter, ask(*inputs), inputs, outcome)
    return outcome


def _converted(inputs: Any, adapter: Backend, dtype: str, device: Any) -> Any:
    return convert(inputs, adapter, dtype=dtype, device=device)


def _elsewhere(inputs: Any, adapter: Backend, dtype: str, device: Any) -> Any:
    """Other numbers in the same trees, for the first time that is not looked at."""
    moved = trees.map(lambda x: 0.75 * x + 0.125 if is_host(x) and x.dtype.kind == "f" else x, inputs)
    return _converted(moved, adapter, dtype, device)


def _compiled(ask: Callable[..., Any], adapter: Backend, inputs: tuple[Any, ...]) -> Callable[..., Any]:
    """ask through the compiler of the backend, which takes and returns flat tuples of arrays; ask where it is slow."""
    if adapter.eager:
        return ask
    leaves, spec = trees.flatten(inputs)
    places = [i for i, leaf in enumerate(leaves) if is_array(leaf)]
    made: list[Any] = []

    def flat(*arrays: Any) -> tuple[Any, ...]:
        given = dict(zip(places, arrays, strict=True))
        out = ask(*trees.unflatten(spec, [given.get(i, leaf) for i, leaf in enumerate(leaves)]))
        results, out_spec = trees.flatten(out)
        made[:] = [out_spec, [None if is_array(x) else x for x in results]]
        return tuple(x for x in results if is_array(x))

    fast = adapter.compile(flat)

    def call(*args: Any) -> Any:
        given = trees.leaves(args)
        results = iter(fast(*(given[i] for i in places)))
        out_spec, rest = made
        return trees.unflatten(out_spec, [next(results) if x is None else x for x in rest])

    return call


# The answer.


def _compared(case: Case, adapter: Backend, actual: Any, outcome: Outcome, inputs: Any) -> Outcome:
    """The outcome with the largest difference to the answer, or with what has gone wrong."""
    expected, spec = trees.flatten(case.answer)
    found, its_spec = trees.flatten(actual)
    if spec != its_spec:
        return replace(outcome, cell="wrong", message=f"the result is the tree {its_spec}; it must be {spec}")
    names = trees.names(case.answer, "result")
    worst, zero = (-1.0, ""), []
    for a, e, name in zip(found, expected, names, strict=True):
        if not isinstance(e, np.ndarray | np.generic | float | int) or isinstance(e, bool):
            if a != e:
                return replace(outcome, cell="wrong", worst=name, message=f"{name} is {a!r}; it must be {e!r}")
            continue
        flaw = _flaw(adapter, a, np.asarray(e), outcome, inputs)
        if flaw:
            return replace(outcome, cell="wrong", worst=name, message=f"{name} {flaw}")
        array = _host(a)
        difference = _difference(array, np.asarray(e))
        if np.any(e) and not np.any(array):
            zero.append(name)
        worst = max(worst, (difference, name), key=_size)
    return _measured(outcome, worst, zero, outcome.tolerance or 0.0, "the reference")


def _measured(outcome: Outcome, worst: tuple[float, str], zero: list[str], allowed: float, witness: str) -> Outcome:
    difference, name = worst
    if zero:
        text = f"{zero[0]} is zero in every entry" + (f", as are {len(zero) - 1} others" if zero[1:] else "")
        return replace(outcome, cell="silent zero", difference=difference, worst=zero[0], message=text)
    if not difference <= allowed:
        text = f"{name} differs from {witness} by {difference:.1e}; {allowed:.0e} is allowed"
        return replace(outcome, cell="wrong", difference=difference, worst=name, message=text)
    return replace(outcome, difference=max(difference, outcome.difference or 0.0), worst=name)


def _flaw(adapter: Backend, a: Any, e: np.ndarray, outcome: Outcome, inputs: Any) -> str:
    """What is wrong with a leaf, whatever its numbers."""
    if not is_array(a):
        return "" if isinstance(a, float | int) and not e.shape else f"is {type(a).__name__}, not an array"
    mine = owner(a)
    if not (mine is adapter or (mine is None and adapter.host)):
        return f"is an array of {mine.name if mine else 'numpy'}, not of {adapter.name}"
    if tuple(a.shape) != e.shape:
        return f"has shape {tuple(a.shape)}, not {e.shape}"
    if e.dtype.kind == "f" and dtype_name(a.dtype) != outcome.dtype:
        return f"is {dtype_name(a.dtype)}, not {outcome.dtype}"
    first = next((x for x in trees.leaves(inputs) if owner(x) is adapter), None)
    if first is not None and mine is adapter and adapter.device(a) != adapter.device(first):
        return f"is on {adapter.device(a)}, not on {adapter.device(first)}"
    return ""


def _size(found: tuple[float, str]) -> float:
    """A NaN counts as the largest."""
    return float("inf") if math.isnan(found[0]) else found[0]


def _host(a: Any) -> np.ndarray:
    return np.asarray(convert(a, "numpy") if is_array(a) else a)


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest one, relative to the largest expected entry; absolute where all of those are zero."""
    if not expected.size:
        return 0.0
    size = float(np.max(np.abs(expected)))
    return float(np.max(np.abs(actual - expected))) / (size or 1.0)


# The second witness.


def _against_differences(
    case: Case, loss: Callable[..., Any], adapter: Backend, actual: Any, inputs: tuple[Any, ...], outcome: Outcome
) -> Any:
    """Central differences of the loss on the backend itself, along one direction for each floating leaf."""
    gradients = [_host(leaf) for leaf in trees.leaves(actual[1])]
    names = trees.names(actual[1], "result[1]")
    leaves, spec = trees.flatten(case.inputs)
    places = [i for i, x in enumerate(leaves) if is_host(x) and x.dtype.kind == "f"][-len(gradients) :]
    fast = _compiled(loss, adapter, inputs)
    device = place(adapter, outcome.device)

    def value(i: int, moved: np.ndarray) -> float:
        here = [moved if j == i else x for j, x in enumerate(leaves)]
        return float(_host(fast(*_converted(trees.unflatten(spec, here), adapter, "float64", device))))

    worst = -1.0, ""
    for i, gradient, name in zip(places, gradients, names, strict=True):
        signs = np.where(np.arange(gradient.size) % 3 == 1, -1.0, 1.0).reshape(gradient.shape)
        slopes = [(value(i, leaves[i] + h * signs) - value(i, leaves[i] - h * signs)) / (2 * h) for h in (5e-4, 1e-3)]
        expected = (4 * slopes[0] - slopes[1]) / 3  # Richardson: the error of the second order in h cancels
        size = max(float(np.sum(np.abs(gradient))), abs(expected))
        difference = abs(float(np.sum(gradient * signs)) - expected) / (size or 1.0)
        worst = max(worst, (difference, name), key=_size)
    judged = _measured(outcome, worst, [], FINITE_DIFFERENCES, "central differences")
    if judged.failed:
        return judged
    return replace(outcome, witness=f"{outcome.witness}; central differences agree to {worst[0]:.0e}")
