"""A derivative of a Call in a given mode, on flat tuples."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from polyad import trees
from polyad.arrays import EPSILON, dtype_name, xp
from polyad.backends import evaluates
from polyad.backends.base import Arrays, contract, no_rows, push_by_pullbacks, with_aux
from polyad.backends.directions import at_once, basis
from polyad.captures import captured_arrays, pinned
from polyad.errors import PolyadError, UnsupportedError
from polyad.nested import run, strategy, switched
from polyad.operators.call import Call
from polyad.plans import Plan, choose, refuse_unknown
from polyad.steps import recorded, step
from polyad.tuned import choice, seen, watched

__all__ = ["Passes", "captured", "differences", "evaluating", "expected_mode", "in_some_mode", "nested", "pulled"]


def chosen(
    call: Call, mode: str, columns: int, rows: int | None, known: Arrays = (), points: int | None = None
) -> Plan:
    """The plan for so many columns and rows, at the place where the call runs.

    known   arrays that f has returned
    points  at how many; None: as many as the columns of the call tell
    """
    backend = call.backend
    batch = points or (call.columns // columns if columns else 1)
    nested = evaluates() or backend.differentiates_here(known or call.xs)
    place = batch, backend.compiles_here(), nested
    tuned = choice(call)
    if tuned is None:
        return choose(backend, mode, columns, rows, *place)
    asked = tuned.mode if mode == "auto" and tuned.mode in backend.modes else mode
    plan = choose(backend, asked, columns, rows, *place)
    at_once = plan.at_once if tuned.at_once is None else tuned.at_once or None
    return replace(plan, at_once=at_once, why=tuned.why if mode == "auto" else plan.why)


ONE_ROW = Plan("reverse", 1, "one row")


class Passes:
    """The passes of a call, on the backend and the function that the switching rule gives to it.

    plan   the one that was chosen last
    alone  whether nobody tunes, tries or records: then nobody hears of a plan that leaves no choice
    """

    def __init__(self, call: Call, backend: Any, f: Callable[..., Any], alone: bool = False) -> None:
        self.call, self.backend, self.f, self.alone = call, backend, f, alone
        self.plan: Plan | None = None

    def choose(self, mode: str, columns: int, rows: int | None, known: Arrays = (), points: int | None = None) -> Plan:
        """The plan for so many columns and rows, which `explain` shows; known and points as in `chosen`."""
        self.plan = chosen(self.call, mode, columns, rows, known, points)
        seen(self.call, mode, columns, rows)
        return self.plan

    def choose_for_one_row(self, mode: str) -> Plan:
        """The plan for one row, which is one sweep in reverse wherever nobody says, measures or asks for anything."""
        if self.alone and mode == "auto" and "reverse" in self.call.backend.modes:
            self.plan = ONE_ROW
            return ONE_ROW
        return self.choose(mode, self.call.columns, 1)

    def at_once(self, n: int, entries: int) -> int:
        """How many of n directions go through one sweep: as the user says, or as planned; at least 1."""
        return at_once(n, entries, self._chunk())

    def _chunk(self) -> int | None:
        planned = self.plan.at_once if self.plan is not None and self.backend.takes_together("reverse") else None
        return self.call.chunk_size or planned

    def evaluate(self, xs: Arrays) -> tuple[Arrays, Arrays]:
        """(ys, aux); aux is empty without has_aux."""
        out = self.f(*xs)
        return out if self.call.has_aux else (out, ())

    def pullback(self, xs: Arrays) -> tuple[Arrays, Callable[..., Arrays], Arrays]:
        """(ys, pull, aux)."""
        if not xs:
            ys, rest = self.evaluate(xs)
            return ys, lambda cotangents: (), rest
        if not self.call.has_aux:
            ys, pull = self.backend.pullback(self.f, xs)
            return ys, pull, ()
        ys, pull, aux = with_aux(self.backend.pullback, True)(self.f, xs)
        return ys, pull, aux

    def pushforward(self, xs: Arrays, dxs: Sequence[Any], mode: str = "forward") -> tuple[Arrays, Arrays, Arrays]:
        """(ys, dys, aux); in reverse by the pullback of the pullback, which is linear."""
        if mode == "finite_difference":
            return difference_along(self, xs, dxs)
        has_aux = self.call.has_aux
        if mode == "reverse":
            ys, dys, *aux = push_by_pullbacks(self.backend, self.f, xs, dxs, has_aux)
        else:
            ys, dys, *aux = with_aux(self.backend.pushforward, has_aux)(self.f, xs, dxs)
        return ys, dys, aux[0] if aux else ()

    def pushforwards(self, xs: Arrays, dxs: Sequence[Any]) -> tuple[Arrays, Arrays, Arrays]:
        """(ys, dys, aux) for k directions."""
        ys, dys, *aux = with_aux(self.backend.pushforwards, self.call.has_aux)(self.f, xs, dxs)
        return ys, dys, aux[0] if aux else ()

    def columns(self, xs: Arrays, mode: str) -> tuple[Arrays, list[Arrays], Arrays]:
        """(ys, Jacobian by columns, aux): for each x a tuple of (x.size, *y.shape)."""
        if mode == "finite_difference":
            return differences(self, xs)
        (ys, *aux), by_input = self.backend.columns(self.f, xs, self.call.has_aux, self._chunk())
        return ys, by_input, aux[0] if aux else ()

    def output_rows(self, xs: Arrays) -> int | None:
        """Number of output entries, where the framework tells without running f."""
        shapes = self.backend.output_shapes(lambda *xs: self.evaluate(xs)[0], xs)
        return None if shapes is None else sum(math.prod(shape) for shape in shapes)


def nested(
    call: Call,
    sweep: Callable[..., tuple[Arrays, ...]],
    beside: Arrays = (),
    first_order: bool = True,
    mode: str = "gradient",
) -> tuple[Arrays, ...]:
    """sweep(passes, *xs, *beside) of the call, keeping what the switching rule says.

    first_order  whether its passes stand side by side, not inside each other
    mode         of its pass, as far as it is known: "gradient" for one sweep, else as the user says
    """
    alone = not (watched() or recorded())
    tuned = None if alone else choice(call)
    name, why = strategy(call.backend, mode, tuned)
    passes = Passes(call, call.backend, call.flat, alone)
    if name == "taped":
        if alone:
            return call.backend.shielded(sweep, passes, *call.xs, *beside)
        with step(call.operator, call.backend.name, name, why) as this:
            taped: tuple[Arrays, ...] = call.backend.shielded(sweep, passes, *call.xs, *beside)
            this.plan = passes.plan
        return taped
    made = [passes]

    def on(backend: Any, f: Callable[..., Any], *args: Any) -> tuple[Arrays, ...]:
        made.append(Passes(call, backend, f, alone))
        return sweep(made[-1], *args)

    with _pinned(call), step(call.operator, call.backend.name, name, why) as this:
        options = call.flat, call.xs, functools.partial(captured, call), beside, first_order, name
        groups: tuple[Arrays, ...] = call.backend.shielded(run, call.backend, on, *options)
        this.plan = made[1].plan
    return groups


def pulled(call: Call, mode: str = "auto") -> tuple[Arrays, Callable[..., Arrays], Arrays]:
    """(ys, pull, aux) of the call, where pull keeps what the switching rule says.

    In another mode than reverse the columns of the Jacobian are kept.
    """
    refuse_unknown(mode)
    reverse = mode == "reverse" or (mode == "auto" and "reverse" in call.backend.modes)
    alone = not (watched() or recorded())
    tuned = None if alone else choice(call)
    name, why = strategy(call.backend, tuned=tuned)
    if alone and reverse and name == "taped":
        return call.backend.shielded(Passes(call, call.backend, call.flat, alone).pullback, call.xs)
    held = contextlib.nullcontext() if name == "taped" else _pinned(call)
    with held, step(call.operator, call.backend.name, name, why) as this:
        this.plan = Plan("reverse", 1, "for each cotangent") if reverse else chosen(call, mode, call.columns, 1)
        passes = Passes(call, switched(call.backend, functools.partial(captured, call), tuned), call.flat)
        if reverse or not call.xs:
            return call.backend.shielded(passes.pullback, call.xs)
        ys, by_input, aux = call.backend.shielded(passes.columns, call.xs, this.plan.mode)
        return ys, functools.partial(contract, call.xs, by_input), aux


@contextlib.contextmanager
def _pinned(call: Call) -> Iterator[None]:
    """f as it is now, which a strategy may evaluate again later."""
    with pinned(call.f) as call.f:
        yield


def expected_mode(call: Call, mode: str, columns: int, rows: Callable[[int], int]) -> str:
    """The mode of a Jacobian of so many columns and of rows(entries of f) rows, where it is known without running f.

    Not asked, since a trace of f is not free, where the switching rule does the same for both.
    """
    tuned = choice(call)
    if mode != "auto" or strategy(call.backend, "forward", tuned)[0] == strategy(call.backend, "reverse", tuned)[0]:
        return mode
    entries = Passes(call, call.backend, call.flat).output_rows(call.xs)
    return chosen(call, mode, columns, None if entries is None else rows(entries)).mode


def captured(call: Call) -> list[Any]:
    """The arrays that f captures, as far as they can be found without running it, and its other arguments."""
    return [*captured_arrays(call.f), *trees.leaves((call.constants, call.kwargs))]


def evaluating(f: Callable[..., Any], has_aux: bool) -> tuple[Callable[..., Any], Callable[..., None] | None]:
    """(f, None), or for a StatefulLayer its value with the state as aux, and what writes that state."""
    if has_aux or not hasattr(type(f), "value_and_state"):
        return f, None
    return f.value_and_state, f.write  # type: ignore[attr-defined]


def in_some_mode(call: Call, mode: str, sweep: Callable[..., Any]) -> Callable[..., Any]:
    """sweep(mode, passes, *xs) without the mode; in "auto", the other pass where f does not have the one chosen.

    A custom rule or a loop may have only one of the two. The first error is
    raised if no pass works.
    """
    if mode != "auto" or len(call.backend.modes) < 2:
        return functools.partial(sweep, mode)

    def either(*args: Any) -> Any:
        try:
            return sweep(mode, *args)
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, PolyadError) and not isinstance(error, UnsupportedError):
                raise
            for other in call.backend.modes:
                with contextlib.suppress(NotImplementedError, RuntimeError, TypeError, ValueError):
                    return sweep(other, *args)
            raise

    return either


def differences(passes: Passes, xs: Arrays) -> tuple[Arrays, list[Arrays], Arrays]:
    """Columns by central differences with one step of Richardson: error about eps^(4/5) of the largest entry.

    source  Nocedal & Wright (2006), section 8.1; Richardson (1911)
    """
    ys, aux = passes.evaluate(xs)
    by_input = []
    for i, x in enumerate(xs):
        found = [_difference(passes, xs, i, k) for k in range(math.prod(x.shape))]
        if found:
            by_input.append(tuple(xp.stack(list(dys)) for dys in zip(*found, strict=True)))
        else:
            by_input.append(tuple(no_rows(y) for y in ys))
    return ys, by_input, aux


def _difference(passes: Passes, xs: Arrays, i: int, k: int) -> Arrays:
    x = xs[i]
    unit = basis(passes.backend, x, k, 1)[0]
    step = EPSILON[dtype_name(x.dtype)] ** (1 / 5) * _scale(x, unit)
    return _slope(passes, xs, [unit if j == i else None for j in range(len(xs))], step)


def difference_along(passes: Passes, xs: Arrays, dxs: Sequence[Any]) -> tuple[Arrays, Arrays, Arrays]:
    """(ys, dys, aux): central differences in one direction, as `differences` for a column."""
    ys, aux = passes.evaluate(xs)
    moving = [(x, dx) for x, dx in zip(xs, dxs, strict=True) if dx is not None and math.prod(x.shape)]
    if not moving:
        return ys, tuple(map(xp.zeros_like, ys)), aux
    length = functools.reduce(xp.maximum, [xp.max(xp.abs(dx)) for _, dx in moving])
    length = xp.where(length > 0, length, xp.ones_like(length))
    units = [None if dx is None else dx / length for dx in dxs]
    coarsest = max(EPSILON[dtype_name(x.dtype)] for x, _ in moving)
    scale = functools.reduce(xp.minimum, [_scale(x, xp.abs(dx) / length) for x, dx in moving])
    dys = _slope(passes, xs, units, coarsest ** (1 / 5) * scale)
    return ys, tuple(dy * xp.astype(length, dy.dtype) for dy in dys), aux


def _slope(passes: Passes, xs: Arrays, units: Sequence[Any], step: Any) -> Arrays:
    """Central differences along these units with this step; where a unit is None, x stands still."""

    def slope(step: Any) -> Arrays:
        moved = [
            tuple(x if u is None else x + sign * xp.astype(step, x.dtype) * u for x, u in zip(xs, units, strict=True))
            for sign in (1.0, -1.0)
        ]
        above, below = (passes.evaluate(zs)[0] for zs in moved)
        return tuple((a - b) / (2 * xp.astype(step, a.dtype)) for a, b in zip(above, below, strict=True))

    # Richardson: the error of the second order in the step cancels.
    return tuple((4 * near - far) / 3 for near, far in zip(slope(step / 2), slope(step), strict=True))


def _scale(x: Any, unit: Any) -> Any:
    """How far an entry may be moved: 1, less where the whole leaf is small, more where the entry is huge."""
    size = xp.max(xp.abs(x))
    usual = xp.where((size > 0) & (size < 1), size, xp.ones_like(size))
    return xp.maximum(usual, 1e-3 * xp.sum(xp.abs(x) * unit))
