"""compare: one loss on every backend."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from polyad.backends import backends as all_backends
from polyad.backends import get
from polyad.backends.base import Backend
from polyad.comparison import agreement
from polyad.comparison.arguments import Arguments
from polyad.comparison.problem import Problem
from polyad.comparison.result import Comparison, Row
from polyad.comparison.stop import one_line
from polyad.comparison.trial import STEPS, Say, Trial
from polyad.errors import ArgumentError, BackendNotInstalledError

__all__ = ["compare"]

DTYPES = ("float64", "float32", None)


def compare(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    backends: Sequence[str | Backend] | None = None,
    device: str | None = None,
    dtype: str | None = "float64",
    has_aux: bool = False,
    compiled: bool = True,
    progress: bool = True,
) -> Comparison:
    """Run the loss f on every backend: do value and gradient agree, how long do they take, how much memory?

    args      pytrees of arrays of any backend and of Python numbers, and
              StatefulLayers; each backend gets them as arrays of its own
    argnums   whose floating leaves are differentiated; None: those of all
              arguments. Integers, strings and states of nets are constants
    backends  names; None: all that are installed
    device    "cpu", "gpu", or as the framework names it; None: the CPU
    dtype     "float64" or "float32": of floating arguments, and meanwhile of
              arrays that f makes without a dtype; None: all as it is
    has_aux   f returns (value, aux)
    compiled  also compile the gradient, where the backend does that
    progress  a bar on stderr where a person looks at it
    returns   Comparison: a row for each backend. Of each leaf the gradient is
              compared with that of the backend most others agree with, and with
              central differences in 2 random directions
    raises    NotScalarError; ArgumentError, DTypeError, UnknownBackendError

    A backend on which f raises is left out, and its row names the line of f.
    """
    if not callable(f):
        raise ArgumentError(f"compare: the first argument is {f!r}, not a function. Type compare(loss, params, x)")
    if dtype not in DTYPES:
        raise ArgumentError(f"compare: dtype={dtype!r}; write 'float64', 'float32', or None to keep what is there")
    problem = Problem(f, Arguments(f, args, argnums), dtype, has_aux)
    chosen = _chosen(backends)
    trials = {}
    with _bar(len(chosen) * len(STEPS), progress) as at:
        for i, (name, backend) in enumerate(chosen.items()):

            def say(step: str, i: int = i, name: str = name) -> None:
                at(i * len(STEPS) + STEPS.index(step), f"{name}: {step}")

            trials[name] = _tried(problem, backend, device or "cpu", backends is not None, compiled, say)
    return _compared(problem, trials, device or "cpu")


def _chosen(given: Sequence[str | Backend] | None) -> dict[str, str | Backend]:
    """By name; raises UnknownBackendError before any work is done."""
    known: dict[str | Backend, bool] = {info.name: info.installed or not info.accelerator for info in all_backends()}
    for backend in given or ():
        if backend not in known:
            get(backend)
    everywhere = [name for name, wanted in known.items() if wanted]  # not what nobody installed for want of a GPU
    return {x if isinstance(x, str) else x.name: x for x in (everywhere if given is None else given)}


def _tried(problem: Problem, backend: str | Backend, device: str, patient: bool, compiled: bool, say: Say) -> Trial:
    trial = Trial()
    try:
        adapter = get(backend)
    except BackendNotInstalledError as error:
        trial.reason = f"it is not installed. Type: {str(error).rpartition('Type: ')[2]}"
    except Exception as error:  # an adapter or its framework may raise anything
        trial.reason = f"it does not load. {one_line(error)}"
    else:
        trial.run(problem, adapter, device, patient, compiled, say)
    return trial


def _compared(problem: Problem, trials: dict[str, Trial], device: str) -> Comparison:
    versions = {info.name: info.version for info in all_backends()}
    reference = _reference(problem, trials)
    return Comparison(
        function=problem.name,
        leaves={leaf.name: tuple(np.shape(leaf.value)) for leaf in problem.arguments.moving},
        precision=problem.precision,
        device=device,
        reference=reference,
        allowed=problem.limit,
        allowed_check=problem.slope_limit,
        rows=tuple(_row(problem, name, versions.get(name), trial, reference, trials) for name, trial in trials.items()),
    )


def _reference(problem: Problem, trials: dict[str, Trial]) -> str:
    """The backend that most others agree with; "" where none ran."""
    ran = {name: trial.results for name, trial in trials.items() if trial.results is not None}
    if not ran:
        return ""
    agree = [
        [agreement.worst(problem.differences(other, mine))[1] <= problem.limit for other in ran.values()]
        for mine in ran.values()
    ]
    checks = [_worst_check(trials[name]) for name in ran]
    confirmed = [bool(leaf) and error <= problem.slope_limit for leaf, error in checks]
    return list(ran)[agreement.most_agreed(agree, confirmed)]


def _row(
    problem: Problem, name: str, version: str | None, trial: Trial, reference: str, trials: dict[str, Trial]
) -> Row:
    if trial.results is None:
        return Row(name, version, "left out", trial.reason, trial.line, notes=tuple(trial.notes))
    expected = trials[reference].results
    assert expected is not None
    differences = problem.differences(trial.results, expected)
    (leaf, difference), (check_leaf, check) = agreement.worst(differences), _worst_check(trial)
    reason = "; ".join(_complaints(problem, trial, reference, (leaf, difference), (check_leaf, check)))
    return Row(
        backend=name,
        version=version,
        status="differs" if reason else "ok",
        reason=reason,
        value=float(trial.results["value"]),
        leaf=leaf,
        difference=difference,
        differences=differences,
        check_leaf=check_leaf,
        check=check if check_leaf else None,
        checks=trial.checks,
        eager=trial.eager,
        compiled=trial.compiled,
        memory=trial.memory,
        compiled_memory=trial.compiled_memory,
        notes=tuple(trial.notes),
    )


def _worst_check(trial: Trial) -> tuple[str, float]:
    return agreement.worst({leaf: error for leaf, error in trial.checks.items() if error is not None})


def _complaints(
    problem: Problem, trial: Trial, reference: str, worst: tuple[str, float], check: tuple[str, float]
) -> Iterator[str]:
    """What is wrong with the results of a backend."""
    allowed, allowed_check = f"{problem.limit:.0e} is allowed", f"{problem.slope_limit:.0e} is allowed"
    if not trial.changing <= problem.limit:
        yield (
            f"its value changes by {trial.changing:.1e} from one evaluation to the next: "
            f"does {problem.name} draw random numbers, or keep a state?"
        )
    if not worst[1] <= problem.limit:
        yield f"its {_called(worst[0])} differs from that of {reference} by {worst[1]:.1e} ({allowed})"
    if not check[1] <= problem.slope_limit:
        yield f"its {_called(check[0])} differs from finite differences by {check[1]:.1e} ({allowed_check})"
    if not trial.compiled_gap[1] <= problem.limit:
        yield f"compiled, its {_called(trial.compiled_gap[0])} differs by {trial.compiled_gap[1]:.1e} ({allowed})"


def _called(name: str) -> str:
    return "value" if name == "value" else f"gradient in {name}"


@contextmanager
def _bar(total: int, wanted: bool) -> Iterator[Callable[[int, str], None]]:
    """at(step, text) moves a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not (wanted and console.is_terminal)) as bar:
        task = bar.add_task("", total=total)
        yield lambda step, text: bar.update(task, completed=step, description=text)
