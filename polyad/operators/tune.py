"""tune: measure for a problem of the user what costs.py can only predict, and remember it."""

import contextlib
import datetime
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from polyad import trees, tuned
from polyad.arrays import EPSILON, dtype_name, is_floating, stop_gradient, xp
from polyad.backends import get, is_array, owner
from polyad.backends.base import Arrays, Backend
from polyad.errors import ArgumentError, BackendError, ImpureFunctionError
from polyad.nested import policy
from polyad.operators.outer import compiles
from polyad.plans import LEANER_WITHIN, leanest
from polyad.steps import recording
from polyad.tuned import Choice, Level, Trial

__all__ = ["Measured", "Tuning", "tune"]

SECONDS = 0.5
"""That a candidate is measured for, at least once and at most 15 times."""

TOO_SLOW = 3.0
"""Candidates that take so many times as long as the fastest are run once."""

FEW, MANY = 8, 16
"""Directions in a chunk that is measured beside one and all, where there are more than MANY."""


@dataclass(frozen=True)
class Measured:
    """One candidate at one level: seconds of the fastest run of the whole call, or why there are none."""

    level: str
    candidate: Choice
    seconds: float | None
    note: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Tuning:
    """What `tune` found; str() is a table.

    before, after  seconds of the call as predicted, and as it is now remembered
    files          where it is remembered; none if it is clearly slower than predicted
    """

    operator: str
    backend: str
    before: float
    after: float
    rows: tuple[Measured, ...] = ()
    files: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        head = f"{self.operator} on {self.backend}: {_ms(self.before)} as predicted, {_ms(self.after)} tuned"
        if self.rows and not self.files:
            head += "; not remembered, since it is slower: something disturbed the measurements. Tune again"
        cells = [(row.level, str(row.candidate), row.note or _ms(row.seconds), "<" * row.chosen) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)] if cells else []
        lines, last = [head], None
        for cell in cells:
            shown = (cell[0] if cell[0] != last else "", *cell[1:])
            lines.append("  ".join(text.ljust(width) for text, width in zip(shown, widths, strict=True)).rstrip())
            last = cell[0]
        return "\n".join(lines if cells else [head, "there is nothing to choose"])


def tune(operator: Callable[..., Any], f: Callable[..., Any], *args: Any, **options: Any) -> Tuning:
    """Measure how operator(f, *args, **options) runs fastest, and do it that way from now on.

    operator  gradient, jacobian, hessian, ...: an operator of polyad
    returns   a Tuning, whose str() is a table: at each level of nested derivatives
              the pass, how many directions go through one sweep, and what it
              keeps for the pass around, with the time of the whole call
    raises    ArgumentError for something that is no operator of polyad,
              ImpureFunctionError where f gives other values each time

    The results of all candidates are compared; one that differs or raises is not
    chosen. The choice is remembered in the folder POLYAD_CACHE, else in that of the
    user for caches, and is used by every later call of this operator, here and in
    other processes, with an f of the same code, with arrays of the same shapes and
    dtypes, in the same versions on the same device; `explain` then says so. Nothing
    else that polyad does measures time. JAX is measured under jit.

        print(tune(gradient, loss, params, x))
    """
    with _as_it_was(f):
        problem = _Problem(operator, f, args, options)
        return _Search(problem).tuning()


@contextlib.contextmanager
def _as_it_was(f: Any) -> Iterator[None]:
    """The state of a StatefulLayer, which value_and_... of it writes, is not changed by measurements."""
    state = getattr(f, "state", None)
    try:
        yield
    finally:
        if hasattr(type(f), "value_and_state"):
            f.state = state


class _Problem:
    """The call as a function of arrays that returns arrays."""

    def __init__(self, operator: Any, f: Any, args: Any, options: dict[str, Any]) -> None:
        self.operator, self.f, self.options = operator, f, options
        self.name = getattr(operator, "__name__", repr(operator))
        with recording() as root:
            self.expected = _arrays(operator(f, *args, **options))
        if not root.inner:
            raise ArgumentError(
                f"tune: {self.name!r} took no derivative by polyad. "
                "Type tune(gradient, f, x), the operator first and not called"
            )
        self.backend: Backend = get(root.inner[0].backend)
        self.leaves, self.spec = trees.flatten(args)
        self.places = [i for i, leaf in enumerate(self.leaves) if is_array(leaf) and owner(leaf) is not None]
        self.arrays = [self.leaves[i] for i in self.places]

    def run(self, trial: Trial) -> Callable[[], Arrays]:
        """The call under this trial, compiled where the framework compiles whole functions; warm."""

        def flat(*arrays: Any) -> Arrays:
            leaves = list(self.leaves)
            for place, array in zip(self.places, arrays, strict=True):
                leaves[place] = array
            return _arrays(self.operator(self.f, *trees.unflatten(self.spec, leaves), **self.options))

        compiled = self.backend.compile(flat) if compiles(self.backend) else flat

        def call() -> Arrays:
            with tuned.trying(trial):
                out: Arrays = compiled(*self.arrays)
                self.backend.wait(out)
                return out

        return call


class _Search:
    """Level by level, each with what was best for those before it."""

    def __init__(self, problem: _Problem) -> None:
        self.problem, self.trial, self.rows = problem, Trial(), list[Measured]()
        self.forced: dict[str, Choice] = {}
        self.as_predicted = problem.run(Trial())
        self._refuse_impure(self.as_predicted(), self.as_predicted())

    def tuning(self) -> Tuning:
        """Measure, and remember."""
        self.problem.run(self.trial)()  # which meets the levels
        levels = list(self.trial.levels.values())
        date, found = str(datetime.date.today()), []
        with _progress() as progress:
            for level in levels:
                times = self._best_of(level, self._passes(level), progress, "pass")
                times |= self._best_of(level, self._strategies(level), progress, "keeps")
                if times:
                    chosen = replace(self.forced[level.key], date=date)
                    found.append((level, chosen, {str(c): t for c, t in times.items()}))
        tuned_call = self._forcing(self.forced)
        tuned_call()  # compiled, where the framework compiles
        before, after = self._times({"before": self.as_predicted, "after": tuned_call}).values()
        # Where all choices together take clearly longer than the plan did, something disturbed the measurements.
        files = [str(tuned.remember(*one)) for one in found] if after <= DISTURBED * before else []
        problem = self.problem
        return Tuning(problem.name, problem.backend.name, before, after, tuple(self.rows), tuple(files))

    # Candidates.

    def _passes(self, level: Level) -> list[Choice]:
        """Every mode with every number of directions in a sweep, where the user leaves them open."""
        found = []
        fewest = min((n for n in level.directions.values() if n), default=1)
        for mode in level.modes or (None,):
            n = level.directions.get(mode or "", 0)
            if mode is not None and n > TOO_MANY * fewest:
                continue
            for at_once in self._at_once(mode, n):
                found.append(Choice(mode, at_once))
        return found

    def _at_once(self, mode: str | None, n: int) -> Sequence[int | None]:
        together = self.problem.backend.takes_together(mode or "reverse")
        if n < 2 or not together or self.problem.options.get("chunk_size"):
            return (None,)
        return (0, 1, FEW) if n > MANY else (0, 1)

    def _strategies(self, level: Level) -> list[Choice]:
        backend = self.problem.backend
        if not level.nested or "reverse" not in backend.modes or policy() != "auto":
            return []
        base = self.forced.get(level.key, Choice())
        return [replace(base, keeps=name) for name in backend.strategies]

    # Measuring.

    def _best_of(self, level: Level, candidates: list[Choice], progress: Any, what: str) -> dict[Choice, float]:
        """Seconds of each candidate that works; the best one is what the level does from now on."""
        if len(candidates) < 2:
            return {}
        task = progress.add_task(f"{level}: {what}".strip(), total=len(candidates))
        calls, notes = {}, {}
        for candidate in candidates:
            call = self._forcing({**self.forced, level.key: candidate})
            try:
                note = self._difference(call())
            except (ArithmeticError, BackendError, MemoryError, NotImplementedError, RuntimeError, TypeError) as error:
                note = f"raises {type(error).__name__}"
            except ValueError as error:
                note = f"raises {type(error).__name__}"
            notes[candidate] = note
            if not note:
                calls[candidate] = call
            progress.advance(task)
        times: dict[Choice, float] = self._times(calls)
        chosen = _chosen(times)
        if chosen is not None:
            self.forced[level.key] = chosen
        for candidate in candidates:
            seconds = times.get(candidate)
            self.rows.append(Measured(str(level), candidate, seconds, notes[candidate], candidate == chosen))
        progress.remove_task(task)
        return times

    def _forcing(self, forced: dict[str, Choice]) -> Callable[[], Arrays]:
        return self.problem.run(Trial(dict(forced)))

    def _times(self, calls: dict[Any, Callable[[], Any]]) -> dict[Any, float]:
        """Seconds of the fastest run, in rounds of another order each: what disturbs a run makes it slower only."""
        times: dict[Any, list[float]] = {key: [] for key in calls}
        draw = random.Random(0)
        for turn in range(15):
            fastest = min((min(values) for values in times.values() if values), default=0.0)
            for key in draw.sample(list(calls), len(calls)):
                own = times[key]
                if turn > 0 and (min(own) > TOO_SLOW * fastest or sum(own) > SECONDS):
                    continue
                start = time.perf_counter()
                calls[key]()
                own.append(time.perf_counter() - start)
        return {key: min(values) for key, values in times.items()}

    def _difference(self, out: Arrays) -> str:
        """ "" where this is the result that was expected."""
        worst = _gap(out, self.problem.expected)
        return "" if worst is None else f"differs by {worst:.1g}"

    def _refuse_impure(self, first: Arrays, second: Arrays) -> None:
        gap = _gap(first, second) or _gap(first, self.problem.expected)
        if gap is not None:
            raise ImpureFunctionError(
                f"tune: two calls of {self.problem.name} differ by {gap:.1g} of the largest entry: f draws random "
                f"numbers, or reads something that changes. Draw the numbers outside and pass them in"
            )


DISTURBED = 1.2
"""What takes so many times as long as the plan did is not remembered."""

TOO_MANY = 64
"""A pass with so many times the directions of the other is not measured."""


def _chosen(times: dict[Choice, float]) -> Choice | None:
    """The fastest; of strategies one that keeps inputs alone where it is as fast."""
    if not times:
        return None
    by_strategy = {choice.keeps: choice for choice in times}
    if None in by_strategy:
        return min(times, key=lambda choice: times[choice])
    return by_strategy[leanest({choice.keeps or "": time for choice, time in times.items()}, LEANER_WITHIN)]


def _gap(found: Arrays, expected: Arrays) -> float | None:
    """The largest difference in that of the largest entry of its array, where it is more than rounding."""
    worst = 0.0
    for a, e in zip(found, expected, strict=True):
        if not is_floating(e) or 0 in tuple(e.shape):
            continue
        a, e = stop_gradient(a), stop_gradient(e)
        scale = float(xp.max(xp.abs(e)))
        gap = float(xp.max(xp.abs(a - e))) / (scale or 1.0)
        if not gap <= 10 * EPSILON[dtype_name(e.dtype)] ** 0.5:
            worst = max(worst, gap) if gap == gap else float("nan")
    return worst if worst else None


def _arrays(tree: Any) -> Arrays:
    return tuple(leaf for leaf in trees.leaves(tree) if is_array(leaf))


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3g} ms"


def _progress() -> Any:
    from rich.console import Console  # importing polyad imports no such thing
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
