"""A problem on one backend: what it gave, how long it took, why it did not."""

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import polyad
from polyad.backends.base import Arrays, Backend
from polyad.comparison import agreement
from polyad.comparison.measurement import Timing, memory, timing
from polyad.comparison.problem import LeftOutError, Placed, Problem, Results
from polyad.comparison.stop import Line, is_of_the_user, line_of, one_line
from polyad.errors import DTypeError, NotScalarError, PolyadWarning

__all__ = ["STEPS", "Say", "Trial"]

STEPS = ("value and gradient", "finite differences", "time", "memory", "compilation")

AS_IT_IS = "Floating arguments are {} here; with dtype=None (--dtype given) they stay as they are"
DTYPE_ERROR = re.compile(r"dtype|scalar type", re.IGNORECASE)

Say = Callable[[str], None]


@dataclass
class Trial:
    """What a backend gave.

    results   the value and the gradient of each leaf, as ndarrays; None where it was left out
    checks    for each leaf how far its gradient is from finite differences; None: not to be seen
    changing  how far the values of two evaluations are from each other
    compiled_gap  (leaf, how far) the compiled gradient is from the other one
    reason    why it was left out, and the line of the user's code that stopped it
    """

    results: Results | None = None
    checks: dict[str, float | None] = field(default_factory=dict)
    changing: float = 0.0
    compiled_gap: tuple[str, float] = ("", 0.0)
    eager: Timing | None = None
    compiled: Timing | None = None
    memory: int | None = None
    compiled_memory: int | None = None
    reason: str = ""
    line: Line | None = None
    notes: list[str] = field(default_factory=list)

    def run(self, problem: Problem, backend: Backend, device: str, patient: bool, compiled: bool, say: Say) -> None:
        """Fill it in.

        patient   however long a gradient by forward mode takes
        compiled  measure that too
        raises    NotScalarError, which no backend is to blame for
        """
        with self._listening():
            try:
                with Placed(problem, backend, device) as placed:
                    if not patient:
                        placed.refuse_many_directions()
                    self._differentiate(placed, say)
                    if compiled and backend.compiles:
                        say("compilation")
                        self._compile(placed)
            except NotScalarError:
                raise
            except LeftOutError as why:
                self.reason = str(why)
            except Exception as error:  # the user's code and a framework may raise anything
                self.results = None
                self.reason, self.line = one_line(error), line_of(error, problem.file)
                if problem.dtype and (isinstance(error, DTypeError) or DTYPE_ERROR.search(str(error))):
                    self.reason = f"{self.reason.rstrip('.')}. {AS_IT_IS.format(problem.dtype)}"

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Warnings about the loss become notes."""
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield
        told = [w for w in heard if issubclass(w.category, PolyadWarning) or is_of_the_user(w.filename)]
        self.notes += dict.fromkeys(f"{w.category.__name__}: {' '.join(str(w.message).split())}" for w in told)

    def _differentiate(self, placed: Placed, say: Say) -> None:
        def run() -> Arrays:
            return placed.backend.wait(placed.gradient(*placed.arrays))

        say("value and gradient")
        found, first = _timed(run)
        self.results = results = placed.results(found)
        say("finite differences")
        again = {**results, "value": placed.value(*placed.arrays)}
        self.changing = placed.problem.differences(again, results)["value"]
        self.checks = placed.checked(results)
        say("time")
        self.eager = timing(run, first)
        say("memory")
        self.memory = memory(run) if placed.on_host else None

    def _compile(self, placed: Placed) -> None:
        call = getattr(polyad, "compile", placed.backend.compile)(placed.gradient)

        def run() -> Arrays:
            return placed.backend.wait(call(*placed.arrays))

        try:
            found, first = _timed(run)
            assert self.results is not None
            self.compiled_gap = agreement.worst(placed.problem.differences(placed.results(found), self.results))
            self.compiled = timing(run, first)
            self.compiled_memory = memory(run) if placed.on_host else None
        except Exception as error:  # f may look at values, and a compiler may raise anything
            line = line_of(error, placed.problem.file)
            self.notes.append(f"not compiled{f' at {line}' if line else ''}: {one_line(error)}")


def _timed(run: Callable[[], Arrays]) -> tuple[Arrays, float]:
    """(what it returns, seconds)."""
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start
