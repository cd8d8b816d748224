"""A program of JAX for a batch of points that do not depend on each other, as one for a single point.

Of parameters p and captured arrays, f gives the outputs at all points, one behind
the other. Where its jaxpr shows that those of a point depend on p and on what is
captured of this point alone, the same equations are evaluated for one point: sizes
of axes that the points stand along are the only thing that changes. What does not
depend on p is evaluated once, for all points, whatever it is.

A Jacobian in p is then that of each point, by so many sweeps as one point has outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from polyad.backends.base import Array, Arrays, Function, Points
from polyad.backends.jax_rows import CALLS, MIXED, Rows, State, States, alone, of_equation, pushed
from polyad.backends.jax_single import evaluated, parted, shape_of_one, single
from polyad.errors import UnsupportedError

__all__ = ["points"]

Ref = Any
"""The number of a variable, or a Literal."""


def points(f: Function, xs: Arrays) -> Points | None:
    """f as a function of one of the points that it captures; None where that is not seen."""
    program = jax.make_jaxpr(f)(*xs)
    line = _Line(program.jaxpr)
    if any(step.equation.effects for step in line.steps):
        return None
    moving = line.behind(line.inputs)
    for batch in _batches(line, moving):
        placed = _placed(line, [None] * len(xs), moving, batch)
        # Without parts all points are the same one, of which nothing tells how many there are.
        if placed is not None and placed.parts and all(isinstance(s, Rows) and s.axis == 0 for s in placed.results):
            break
    else:
        return None
    values = line.values(program.consts, moving)
    parts = tuple(parted(values[ref], rows, batch) for ref, rows in placed.parts)

    def of_point(xs: Arrays, point: Arrays) -> Arrays:
        return placed.run(xs, values, dict(zip(placed.parts, point, strict=True)))

    one = tuple(jax.ShapeDtypeStruct(part.shape[1:], part.dtype) for part in parts)
    try:
        jax.eval_shape(of_point, xs, one)
    except (TypeError, ValueError):  # an array that is whole for each point has the size of all
        return None
    return Points(of_point, parts, program.out_avals)


@dataclass(frozen=True)
class _Step:
    """An equation, and the numbers of its variables."""

    equation: Any
    given: tuple[Ref, ...]
    results: tuple[int, ...]


class _Line:
    """The equations of a jaxpr one after the other, those of functions that it calls in their places.

    Variables are numbers, since a function that is called twice has the same ones in both places.
    """

    def __init__(self, jaxpr: Any) -> None:
        self.steps: list[_Step] = []
        self.shapes: list[tuple[int, ...]] = []
        self.jaxpr = jaxpr
        known: dict[Any, Ref] = {}
        self.constants = [self._new(known, v) for v in jaxpr.constvars]
        self.inputs = [self._new(known, v) for v in jaxpr.invars]
        self.outputs = self._through(jaxpr, known)

    def _new(self, known: dict[Any, Ref], variable: Any) -> int:
        known[variable] = len(self.shapes)
        self.shapes.append(tuple(variable.aval.shape))
        return len(self.shapes) - 1

    def _through(self, jaxpr: Any, known: dict[Any, Ref]) -> list[Ref]:
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            given = [self._ref(known, atom) for atom in equation.invars]
            inner = None if name.startswith("custom") or name not in CALLS else equation.params[CALLS[name]]
            if inner is None or (hasattr(inner, "consts") and inner.consts):
                step = _Step(equation, tuple(given), tuple([self._new(known, v) for v in equation.outvars]))
                self.steps.append(step)
            else:
                inner = getattr(inner, "jaxpr", inner)
                found = self._through(inner, dict(zip(inner.invars, given, strict=True)))
                known.update(zip(equation.outvars, found, strict=True))
        return [self._ref(known, atom) for atom in jaxpr.outvars]

    @staticmethod
    def _ref(known: Mapping[Any, Ref], atom: Any) -> Ref:
        return atom if isinstance(atom, Literal) else known[atom]

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """That of a variable or a literal."""
        return tuple(ref.aval.shape) if isinstance(ref, Literal) else self.shapes[ref]

    def behind(self, inputs: Sequence[int]) -> set[Ref]:
        """The variables that depend on these."""
        found: set[Ref] = set(inputs)
        for step in self.steps:
            if any(_is_in(ref, found) for ref in step.given):
                found.update(step.results)
        return found

    def values(self, constants: Sequence[Array], moving: set[Ref]) -> dict[int, Array]:
        """Of all variables that do not depend on the inputs."""
        known = dict(zip(self.constants, constants, strict=True))
        for step in self.steps:
            if moving.isdisjoint(step.results):
                found = evaluated(self.jaxpr, step.equation, [_value(known, ref) for ref in step.given])
                known.update(zip(step.results, found, strict=True))
        return known


def _is_in(ref: Ref, found: set[Ref]) -> bool:
    return not isinstance(ref, Literal) and ref in found


def _value(known: Mapping[int, Array], ref: Ref) -> Array:
    return ref.val if isinstance(ref, Literal) else known[ref]


def _batches(line: _Line, moving: set[Ref]) -> list[int]:
    """How many points there may be: the length of what is captured, which divides that of all outputs."""
    used = [ref for step in line.steps if not moving.isdisjoint(step.results) for ref in step.given] + line.constants
    lengths = {line.shape(ref)[0] for ref in used if not _is_in(ref, moving) and line.shape(ref)}
    whole = [line.shape(ref)[:1] for ref in line.outputs]
    fitting = {n for n in lengths if n > 1 and all(shape and shape[0] % n == 0 for shape in whole)}
    return sorted(fitting, reverse=True)[:FEW]


FEW = 4
"""Lengths that are tried: those of other captured arrays may divide that of the outputs too."""


@dataclass
class _Placed:
    """The steps of a line for one point.

    moves    each step that depends on the inputs, and the function of its arguments that it is
    given    of each step, and of the outputs, each argument and whether a part of it is meant
    parts    what does not depend on the inputs and is taken in parts
    results  of each output, where the points stand
    """

    line: _Line
    moves: list[tuple[_Step, Function]]
    given: list[list[tuple[Ref, State]]]
    parts: list[tuple[int, Rows]]
    fills: dict[tuple[int, Rows], Function]
    results: States

    def run(self, xs: Sequence[Array], values: Mapping[int, Array], parts: Mapping[tuple[int, Rows], Array]) -> Arrays:
        """The outputs at one point."""
        moved = dict(zip(self.line.inputs, xs, strict=True))

        def value(ref: Ref, state: State) -> Array:
            if isinstance(ref, Literal):
                return ref.val
            if ref in moved:
                return moved[ref]
            if not isinstance(state, Rows):
                return values[ref]
            fill = self.fills.get((ref, state))
            return parts[ref, state] if fill is None else fill(values)

        for (step, move), given in zip(self.moves, self.given, strict=False):
            moved.update(zip(step.results, move(*(value(*use) for use in given)), strict=True))
        return tuple(value(*use) for use in self.given[-1])


RULES = 2
"""One in the other, that are looked at: the derivatives of a Jacobian, and of a loss with it."""

Above = tuple[str, ...]
"""The functions with custom derivatives in whose rules a program stands."""


def _placed(line: _Line, states: Sequence[State], moving: set[Ref], batch: int, above: Above = ()) -> _Placed | None:
    """The line for one point of so many, with the states of its inputs; None where points may depend on each other."""
    known: dict[int, State] = dict(zip(line.inputs, states, strict=True))
    fills: dict[int, _Step] = {}
    placed = _Placed(line, [], [], [], {}, [])

    def note(uses: list[tuple[Ref, State]]) -> None:
        placed.given.append(uses)
        for ref, state in uses:
            if isinstance(state, Rows) and ref not in moving:
                if ref in fills:
                    placed.fills[ref, state] = _filled(line, fills[ref], state)
                elif (ref, state) not in placed.parts:
                    placed.parts.append((ref, state))

    def assumed(ref: Ref) -> State:
        """Where the points stand: in front, where nothing else is known of what does not depend on the inputs."""
        if isinstance(ref, Literal) or ref in known or ref in moving:
            return None if isinstance(ref, Literal) else known.get(ref)
        return Rows(0) if line.shape(ref)[:1] == (batch,) else None

    for step in line.steps:
        given = [assumed(ref) for ref in step.given]
        if moving.isdisjoint(step.results):
            if any(isinstance(s, Rows) for s in given):
                found = of_equation(line.jaxpr, step.equation, given, batch)
                known.update((ref, s) for ref, s in zip(step.results, found, strict=True) if isinstance(s, Rows))
            elif step.equation.primitive.name == "broadcast_in_dim" and not line.shape(step.given[0]):
                fills[step.results[0]] = step
            continue
        # What does not depend on the inputs may be meant whole, whatever its length is: a matrix behind the layers.
        whole = [s if _is_in(ref, moving) else None for ref, s in zip(step.given, given, strict=True)]
        for chosen in (given, whole):
            move, found = _moved(line, step, chosen, batch, above)
            if MIXED not in found:
                break
        else:
            return None
        known.update(zip(step.results, found, strict=True))
        placed.moves.append((step, move))
        note([*zip(step.given, chosen, strict=True)])
    placed.results = [assumed(ref) for ref in line.outputs]
    note([*zip(line.outputs, placed.results, strict=True)])
    return placed


def _filled(line: _Line, step: _Step, rows: Rows) -> Function:
    """An array of one number, for one point."""
    shape = shape_of_one(line.shape(step.results[0]), rows)
    return lambda values: jnp.broadcast_to(_value(values, step.given[0]), shape)


def _moved(line: _Line, step: _Step, given: States, batch: int, above: Above) -> tuple[Function, States]:
    """A step for one point, as a function of its arguments, and where the points stand in its results."""
    equation, n = step.equation, len(step.results)
    if _repeated(line, step, given, batch):
        return single(line.jaxpr, equation, given, [Rows(0)]), [Rows(0)]
    if not any(isinstance(s, Rows) for s in given):  # whatever it is
        return lambda *values: evaluated(line.jaxpr, equation, values), [None] * n
    if equation.primitive.name == "custom_jvp_call":
        return _custom(line, step, given, batch, above) or (tuple, [MIXED] * n)
    found = of_equation(line.jaxpr, equation, given, batch)
    return (tuple, found) if MIXED in found else (single(line.jaxpr, equation, given, found), found)


def _repeated(line: _Line, step: _Step, given: States, batch: int) -> bool:
    """Whether it gives each point the same."""
    if step.equation.primitive.name != "broadcast_in_dim" or isinstance(given[0], Rows):
        return False
    shape, places = line.shape(step.given[0]), step.equation.params["broadcast_dimensions"]
    new = 0 not in places or shape[list(places).index(0)] == 1
    return new and line.shape(step.results[0])[:1] == (batch,)


def _custom(line: _Line, step: _Step, given: States, batch: int, above: Above) -> tuple[Function, States] | None:
    """A function with a custom_jvp rule, and the rule, for one point.

    A rule that calls the function again is not looked at again: it is once more the same.
    """
    equation, n = step.equation, len(step.results)
    if equation.params["symbolic_zeros"]:  # such a rule may be another one where an argument stands still
        return None
    value = _whole(equation.params["call_jaxpr"], given, batch, above)
    one, places = alone(line.jaxpr, equation)
    # All, also those that do not depend on the inputs: they may depend on what a pass around differentiates in.
    moved = [i for i in places if jnp.issubdtype(equation.invars[i].aval.dtype, jnp.inexact)]

    if value is None:
        return None

    def rule(above: Above) -> Function | None:
        program = pushed(one, equation, places, moved)
        seen = _whole(program, [given[i] for i in (*places, *moved)], batch, above)
        return None if seen is None or seen[1] != [*value[1], *value[1]] else seen[0]

    name = str(equation.params["call_jaxpr"])
    if len(above) < RULES and name not in above and rule((*above, name)) is None:
        return None

    def push(args: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        seen = rule(()) or rule((name,) * RULES)
        if seen is None:
            raise UnsupportedError(f"the rule of {equation.params['call_jaxpr']} mixes points. Choose mode='forward'")
        found = seen([*(args[i] for i in places), *(tangents[i] for i in moved)])
        return found[:n], found[n:]

    custom = jax.custom_jvp(lambda *args: value[0](args))
    custom.defjvp(push)
    return custom, value[1]


def _whole(program: Any, states: Sequence[State], batch: int, above: Above) -> Any:
    """(a function of arguments that all move for one point, where the points stand in its results); None: not seen."""
    line = _Line(program.jaxpr)
    moving = line.behind(line.inputs)
    placed = _placed(line, states, moving, batch, above)
    if placed is None or placed.parts:
        return None
    values = line.values(program.consts, moving)
    return lambda args: placed.run(args, values, {}), placed.results
