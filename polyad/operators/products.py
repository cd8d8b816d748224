"""jvp and vjp: products with the Jacobian, without the Jacobian."""

from collections.abc import Callable, Sequence
from typing import Any

from polyad import trees
from polyad.arrays import dtype_name, is_floating, single_owner, xp
from polyad.backends.base import Backend
from polyad.errors import ArgumentError, DTypeError
from polyad.operators.call import Call
from polyad.operators.curry import curried
from polyad.operators.passes import Passes, in_some_mode, nested, pulled
from polyad.plans import Plan, refuse_unknown

__all__ = ["along", "jvp", "vjp"]


@curried
def jvp(
    f: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """f(*primals) and its derivative in the direction of the tangents (pushforward).

    primals   a tuple of pytrees of floating arrays; without primals and tangents,
              a function of them is returned
    tangents  a tuple of the same trees and shapes; None in place of a tree is zero
    mode      "forward" is one forward pass; "reverse" the pullback of the pullback, which
              "auto" takes where f has no forward pass, and on torch, where it is faster
    returns   (y, dy), with has_aux (y, dy, aux); differentiable in both arguments;
              unit of dy [f] [v]/[x]
    raises    ArgumentError, LeafError, BackendError, ModeError
    source    Griewank & Walther (2008), ch. 3; "reverse": Townsend (2017), "A new trick
              for calculating Jacobian vector products"
    """
    call, _, dxs = along("jvp", f, primals, tangents, backend, has_aux, _kwargs)
    refuse_unknown(mode)
    n = len(call.xs)

    def sweep(mode: str, passes: Passes, *args: Any) -> tuple[Any, ...]:
        mode = call.backend.push_mode() if mode == "auto" else mode
        passes.plan = Plan(mode, 2 if mode == "reverse" else 1, "one direction")
        return passes.pushforward(args[:n], args[n:], mode)

    like = "gradient" if call.backend.pushed_by_jets else "forward"  # else that was measured of columns by jets
    ys, dys, aux = nested(call, in_some_mode(call, mode, sweep), dxs, mode=like)
    result = call.outputs(ys), call.outputs(dys)
    return (*result, call.aux(aux)) if has_aux else result


@curried
def vjp(
    f: Callable[..., Any],
    *primals: Any,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    _kwargs: dict[str, Any] | None = None,
) -> tuple[Any, ...]:
    """f(*primals) and its pullback: the map of cotangents of y to cotangents of the primals.

    primals  pytrees of floating arrays; without any, a function of them is returned
    argnums  which of them to differentiate, a position or a tuple of positions; None: all
    mode     "auto" and "reverse" are one reverse pass; "forward" and
             "finite_difference" make the Jacobian, column by column
    returns  (y, pull), with has_aux (y, pull, aux). pull(dy) is a tuple with a
             tree for each primal, for one position the tree alone; it may be
             called again, and is differentiable in dy and in the primals; unit
             [dy] [f]/[x]
    raises   ArgumentError, LeafError, BackendError, ModeError
    source   Griewank & Walther (2008), ch. 3
    """
    places = tuple(range(len(primals))) if argnums is None else argnums
    call = Call("vjp", f, primals, places, backend, has_aux, _kwargs)
    ys, pull, aux = pulled(call, mode)

    def pull_tree(cotangent: Any) -> Any:
        cotangents = _directions(call, cotangent, ys, call.out_spec, "the cotangent")
        return call.inputs(pull(cotangents))

    return (call.outputs(ys), pull_tree, call.aux(aux)) if has_aux else (call.outputs(ys), pull_tree)


def along(
    operator: str,
    f: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    backend: str | Backend | None,
    has_aux: bool,
    kwargs: dict[str, Any] | None = None,
) -> tuple[Call, tuple[int, ...], tuple[Any, ...]]:
    """(the Call in the arguments that have a tangent, their positions, the leaves of the tangents)."""
    if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
        raise ArgumentError(
            f"{operator}: primals and tangents are tuples, an entry for each argument. Type {operator}(f, (x,), (v,))"
        )
    if len(primals) != len(tangents):
        raise ArgumentError(
            f"{operator}: {len(primals)} primals and {len(tangents)} tangents; there must be one for each"
        )
    moving = tuple(i for i, t in enumerate(tangents) if t is not None)
    if not moving:
        raise ArgumentError(f"{operator}: every tangent is None; give at least one, such as ones like the primal")
    call = Call(operator, f, tuple(primals), moving, backend, has_aux, kwargs)
    expected = trees.flatten(tuple(call.args[i] for i in moving))[1]
    return call, moving, _directions(call, tuple(tangents[i] for i in moving), call.xs, expected, "tangents")


def _directions(call: Call, tree: Any, like: Sequence[Any], expected: Any, what: str) -> tuple[Any, ...]:
    """Leaves of a (co)tangent as arrays of the call, if they are what they must be."""
    leaves, spec = trees.flatten(tree)
    if spec != expected:
        raise ArgumentError(f"{call.operator}: {what} is the tree {spec}; it must be {expected}")
    return tuple(_direction(call, leaf, x, what) for leaf, x in zip(leaves, like, strict=True))


def _direction(call: Call, leaf: Any, x: Any, what: str) -> Any:
    if isinstance(leaf, float | int) and not isinstance(leaf, bool):
        leaf = call.backend.asarray(float(leaf), dtype_name(x.dtype))
    leaf = call.adopt(leaf)
    if not is_floating(leaf):
        raise DTypeError(f"{call.operator}: {what} has the leaf {leaf!r}; (co)tangents are real floating arrays")
    single_owner([leaf, x])
    if tuple(leaf.shape) != tuple(x.shape):
        raise ArgumentError(
            f"{call.operator}: {what} has a leaf of shape {tuple(leaf.shape)}; it must be {tuple(x.shape)}"
        )
    return leaf if leaf.dtype == x.dtype else xp.astype(leaf, x.dtype)
