"""What a program of JAX proves about the rows of a batch, without evaluating anything.

A function is row by row if every equation of its jaxpr is. Of each array it is
known along which axis the rows stand, if along any: Rows(axis, length) says that
so many entries of that axis in a row depend on one row of x alone. Primitives are
known by their names; what is not in the tables mixes rows, as far as is known here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.extend.core import Literal

from polyad.backends.base import Array, Function, of_some

__all__ = ["CALLS", "MIXED", "Rows", "State", "States", "alone", "is_entrywise", "of_equation", "pushed", "rows_apart"]


@dataclass(frozen=True)
class Rows:
    """Block number r of so many entries of this axis depends on row r of x alone."""

    axis: int
    length: int = 1


@dataclass(frozen=True)
class Mixed:
    """An array of which that is not known."""


State = Rows | Mixed | None
"""None: the array does not depend on x."""

States = list[State]
Shapes = Sequence[tuple[int, ...]]
MIXED = Mixed()


def rows_apart(f: Function, x: Array) -> bool:
    """Whether the jaxpr of f shows that each row of each of its results depends on the same row of x alone.

    So do its derivatives: those of custom_jvp rules are looked at too, and
    custom_vjp rules prove nothing. False means that it is not seen.
    """
    if x.shape[0] < 2:
        return True
    program = jax.make_jaxpr(f)(x)
    return all(state in (None, Rows(0)) for state in _through(program.jaxpr, [Rows(0)], x.shape[0], rules=True))


def _through(jaxpr: Any, states: States, batch: int, rules: bool) -> States:
    """The states of what a jaxpr returns, from those of its arguments; rules: whether derivatives count, too."""
    known: dict[Any, State] = dict(zip(jaxpr.invars, states, strict=True))

    def state(atom: Any) -> State:
        return None if isinstance(atom, Literal) else known.get(atom)

    for equation in jaxpr.eqns:
        given = [state(atom) for atom in equation.invars]
        if equation.effects:  # what is written to a Ref is read again where no variable says so
            known.update(dict.fromkeys(equation.outvars, MIXED))
        elif any(s is not None for s in given):
            found = of_equation(jaxpr, equation, given, batch, rules)
            known.update(zip(equation.outvars, found, strict=True))
    return [state(atom) for atom in jaxpr.outvars]


def of_equation(jaxpr: Any, equation: Any, given: States, batch: int, rules: bool = True) -> States:
    """The states of the results of one equation of a jaxpr, from those of its arguments."""
    name, n = equation.primitive.name, len(equation.outvars)
    if name in CALLS:
        inner = equation.params[CALLS[name]]
        found = _through(getattr(inner, "jaxpr", inner), given, batch, rules)
        if name.startswith("custom") and rules and MIXED in _derivative(jaxpr, equation, given, batch):
            return [MIXED] * n
        return found
    rule = RULES.get(name)
    if rule is None or MIXED in given:
        return [MIXED] * n
    shapes = [tuple(atom.aval.shape) for atom in equation.invars]
    out = tuple(equation.outvars[0].aval.shape)
    found_one = rule(given, shapes, out, equation.params, batch)
    aligned = isinstance(found_one, Rows) and out[found_one.axis] == batch * found_one.length
    return [found_one if aligned else MIXED] * n


def _derivative(jaxpr: Any, equation: Any, given: States, batch: int) -> States:
    """The states of what a custom_jvp rule returns, (values, tangents); rules within it are values here.

    jaxpr  which the equation is of
    """
    if equation.params["symbolic_zeros"]:  # such a rule may be another one where an argument stands still
        return [MIXED]
    one, places = alone(jaxpr, equation)
    moving = [i for i in places if given[i] is not None]
    program = pushed(one, equation, places, moving)
    return _through(program.jaxpr, [given[i] for i in (*places, *moving)], batch, rules=False)


def alone(jaxpr: Any, equation: Any) -> tuple[Any, list[int]]:
    """(one equation of a jaxpr as a program, which of the equation's arguments it takes: each variable once)."""
    places = {atom: i for i, atom in reversed([*enumerate(equation.invars)]) if not isinstance(atom, Literal)}
    parts = {"constvars": [], "invars": [*places], "outvars": equation.outvars, "eqns": [equation]}
    return jaxpr.replace(**parts, debug_info=jaxpr.debug_info.with_unknown_names()), [*places.values()]


def pushed(one: Any, equation: Any, places: Sequence[int], moving: Sequence[int]) -> Any:
    """The pushforward of what alone() gave, (arguments, tangents of those at moving places) -> (values, tangents)."""
    structs = [jax.ShapeDtypeStruct(equation.invars[i].aval.shape, equation.invars[i].aval.dtype) for i in places]
    moved = [places.index(i) for i in moving]

    def push(xs: Sequence[Array], dxs: Sequence[Array]) -> Any:
        run = of_some(lambda *args: jax.core.eval_jaxpr(one, (), *args), xs, moved)
        return jax.jvp(run, [xs[i] for i in moved], list(dxs))

    return jax.make_jaxpr(push)(structs, [structs[i] for i in moved])


# Rules: (states, shapes, shape of the result, parameters, rows) -> the state of all results. None is no answer.

Params = Mapping[str, Any]


def _entries(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    """Entry by entry; axes of length 1 may be broadcast."""
    moving = [(s, shape) for s, shape in zip(given, shapes, strict=True) if isinstance(s, Rows)]
    rows = moving[0][0]
    same = all(s == rows and len(shape) == len(out) and shape[s.axis] == out[s.axis] for s, shape in moving)
    return rows if same else MIXED


def _one(given: States) -> Rows | None:
    """The state of the first argument, where the others do not depend on x."""
    first, *rest = given
    return first if isinstance(first, Rows) and not any(rest) else None


def _without(rows: Rows | None, axes: Sequence[int]) -> State:
    """After these axes are gone."""
    if rows is None or rows.axis in axes:
        return MIXED
    return replace(rows, axis=rows.axis - sum(axis < rows.axis for axis in axes))


def _reduced(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    return _without(_one(given), params["axes"])


def _squeezed(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    return _without(_one(given), params["dimensions"])


def _along(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    """Along one axis, as a sum of all before or a sort; or one behind the other."""
    moving = [s for s in given if s is not None]
    axis = next(params[key] for key in ("axis", "dimension") if key in params)
    same = all(s == moving[0] for s in moving)
    return moving[0] if same and isinstance(moving[0], Rows) and moving[0].axis != axis else MIXED


def _broadcast(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    rows = _one(given)
    return MIXED if rows is None else replace(rows, axis=params["broadcast_dimensions"][rows.axis])


def _stacked(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    """Along a new axis."""
    rows = _entries(given, shapes, shapes[0], params, batch)
    return replace(rows, axis=rows.axis + (params["axis"] <= rows.axis)) if isinstance(rows, Rows) else MIXED


def _transposed(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    rows = _one(given)
    return MIXED if rows is None else replace(rows, axis=params["permutation"].index(rows.axis))


def _reshaped(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    """The same entries in the same order: the rows stand where as many entries lie before them."""
    rows = _one(given)
    if rows is None or params.get("dimensions") is not None:
        return MIXED
    before = math.prod(shapes[0][: rows.axis])
    places = [i for i, n in enumerate(out) if math.prod(out[:i]) == before and n and n % batch == 0]
    return Rows(places[0], out[places[0]] // batch) if places else MIXED


def _sliced(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    """Of other axes alone: one that stays as long as it was is whole, since no slice reads past an end."""
    rows = _one(given)
    return rows if rows is not None and out[rows.axis] == shapes[0][rows.axis] else MIXED


def _padded(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    rows = _one(given)
    return rows if rows is not None and tuple(params["padding_config"][rows.axis]) == (0, 0, 0) else MIXED


def _gathered(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    """Entries of other axes, whole along that of the rows."""
    rows, numbers = _one(given), params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    if rows is None or rows.axis in (*gone, *numbers.start_index_map):
        return MIXED
    left = [axis for axis in range(len(shapes[0])) if axis not in gone]
    return replace(rows, axis=numbers.offset_dims[left.index(rows.axis)])


def _product(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    contracting, batched = params["dimension_numbers"]
    places = []
    for i, rows in enumerate(given):
        if isinstance(rows, Rows):
            if rows.axis in contracting[i]:
                return MIXED
            if rows.axis in batched[i]:
                place = list(batched[i]).index(rows.axis)
            else:
                free = [a for a in range(len(shapes[i])) if a not in (*contracting[i], *batched[i])]
                others = len(shapes[0]) - len(contracting[0]) if i else len(batched[0])
                place = others + free.index(rows.axis)
            places.append(replace(rows, axis=place))
    apart = len(places) == 1 or (places[0] == places[1] and places[0].axis < len(batched[0]))
    return places[0] if apart else MIXED


def _convolved(given: States, shapes: Shapes, out: tuple[int, ...], params: Params, batch: int) -> State:
    rows, numbers = _one(given), params["dimension_numbers"]
    if rows is None or rows.axis != numbers.lhs_spec[0] or params["batch_group_count"] != 1:
        return MIXED
    return replace(rows, axis=numbers.out_spec[0])


Rule = Callable[[States, Shapes, tuple[int, ...], Params, int], State]
NAMES: dict[Rule, str] = {
    _along: "concatenate cumlogsumexp cummax cummin cumprod cumsum sort split",
    _broadcast: "broadcast_in_dim",
    _convolved: "conv_general_dilated",
    _entries: (
        "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp "
        "convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow "
        "is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow reduce_precision rem round "
        "rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor"
    ),
    _gathered: "gather",
    _padded: "pad",
    _product: "dot_general",
    _reduced: "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum",
    _reshaped: "reshape",
    _sliced: "dynamic_slice slice",
    _squeezed: "squeeze",
    _stacked: "stack",
    _transposed: "transpose",
}
RULES = {name: rule for rule, names in NAMES.items() for name in names.split()}


def is_entrywise(equation: Any) -> bool:
    """Whether an equation is the same for each entry of its arguments, which have the same shape but for length 1."""
    return RULES.get(equation.primitive.name) is _entries


CALLS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that run another jaxpr on their arguments, and the parameter that holds it."""
