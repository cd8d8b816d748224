"""The laws of an adapter (polyad/backends/base.py): two primitives on flat tuples of arrays.

f(x, w) = (tanh(x w), a sum_j x_j^2) has two inputs, two outputs and a captured
array; sin(a . x) has closed derivatives of any order, in which all entries meet.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import polyad
from polyad import stop_gradient, trees, xp
from polyad.backends import current, use_backend
from polyad.backends.base import Backend, with_aux
from polyad.backends.directions import basis

from .case import Case, numbers

__all__ = ["CASES"]

GROUP = "adapter laws"
PASSES = ("forward", "reverse")

X, W, A = numbers("laws/x", 3, 2), numbers("laws/w", 2, 4), numbers("laws/a", 3)
DX, DW = numbers("laws/dx", 3, 2), numbers("laws/dw", 2, 4)
EX, EW = numbers("laws/ex", 3, 2), numbers("laws/ew", 2, 4)
C1, C2 = numbers("laws/c1", 3, 4), numbers("laws/c2", 3)
D1, D2 = numbers("laws/d1", 3, 4), numbers("laws/d2", 3)

_cases: list[Case] = []
CASES = _cases


def law(expected: Callable[..., Any], *inputs: Any, name: str = "", **options: Any) -> Callable[..., Any]:
    """The function below as the question of a case; its name is that of the case."""

    def register(ask: Callable[..., Any]) -> Callable[..., Any]:
        called = name or ask.__name__.replace("_", " ")
        _cases.append(Case(GROUP, called, ask, inputs, expected, **options))
        return ask

    return register


# The function and what its derivatives are.


def two(a: Any) -> Callable[..., Any]:
    """f of x (3, 2) and w (2, 4), which captures a (3,)."""
    return lambda x, w: (xp.tanh(x @ w), a * xp.sum(x * x, axis=1))


def values(x: Any, w: Any, a: Any) -> Any:
    return np.tanh(x @ w), a * np.sum(x * x, axis=1)


def pushed(x: Any, w: Any, a: Any, dx: Any, dw: Any) -> Any:
    """By the product rule; None is zero."""
    dx, dw = np.zeros_like(x) if dx is None else dx, np.zeros_like(w) if dw is None else dw
    return (1 - np.tanh(x @ w) ** 2) * (dx @ w + x @ dw), 2 * a * np.sum(x * dx, axis=1)


def pulled(x: Any, w: Any, a: Any, c1: Any, c2: Any) -> Any:
    """The transpose of that."""
    s = np.zeros((3, 4)) if c1 is None else (1 - np.tanh(x @ w) ** 2) * c1
    t = np.zeros(3) if c2 is None else c2
    return s @ w.T + 2 * (a * t)[:, None] * x, x.T @ s


def push(f: Any, xs: Any, dxs: Any) -> Any:
    return current().pushforward(f, xs, dxs)[1]


def pull(f: Any, xs: Any, cotangents: Any) -> Any:
    return current().pullback(f, xs)[1](cotangents)


def dot(us: Any, vs: Any) -> Any:
    return sum(xp.sum(u * v) for u, v in zip(us, vs, strict=True))


# Value and adjoint.


@law(lambda x, w, a, dx, dw: (values(x, w, a), pushed(x, w, a, dx, dw)), X, W, A, DX, DW)
def pushforward_gives_value_and_derivative(x, w, a, dx, dw):
    return current().pushforward(two(a), (x, w), (dx, dw))


@law(lambda x, w, a, c1, c2: (values(x, w, a), pulled(x, w, a, c1, c2)), X, W, A, C1, C2)
def pullback_gives_value_and_gradient(x, w, a, c1, c2):
    ys, back = current().pullback(two(a), (x, w))
    return ys, back((c1, c2))


def both_sides(x: Any, w: Any, a: Any, dx: Any, dw: Any, c1: Any, c2: Any) -> Any:
    u, v = pushed(x, w, a, dx, dw)
    return (np.sum(u * c1) + np.sum(v * c2),) * 2


@law(both_sides, X, W, A, DX, DW, C1, C2)
def pullback_is_the_adjoint_of_the_pushforward(x, w, a, dx, dw, c1, c2):
    f = two(a)
    return dot((c1, c2), push(f, (x, w), (dx, dw))), dot(pull(f, (x, w), (c1, c2)), (dx, dw))


@law(lambda x, w, a, dx, dw, ex, ew: (pushed(x, w, a, 2 * dx - 3 * ex, 2 * dw - 3 * ew),) * 2, X, W, A, DX, DW, EX, EW)
def pushforward_is_linear_in_the_direction(x, w, a, dx, dw, ex, ew):
    f = two(a)
    once = push(f, (x, w), (2 * dx - 3 * ex, 2 * dw - 3 * ew))
    pairs = zip(push(f, (x, w), (dx, dw)), push(f, (x, w), (ex, ew)), strict=True)
    return once, tuple(2 * u - 3 * v for u, v in pairs)


@law(lambda x, w, a, c1, c2, d1, d2: (pulled(x, w, a, 2 * c1 - 3 * d1, 2 * c2 - 3 * d2),) * 2, X, W, A, C1, C2, D1, D2)
def pullback_is_linear_in_the_cotangent(x, w, a, c1, c2, d1, d2):
    _, back = current().pullback(two(a), (x, w))
    pairs = zip(back((c1, c2)), back((d1, d2)), strict=True)
    return back((2 * c1 - 3 * d1, 2 * c2 - 3 * d2)), tuple(2 * u - 3 * v for u, v in pairs)


@law(lambda x, w, a, c1, c2, d1, d2: (pulled(x, w, a, c1, c2), pulled(x, w, a, d1, d2)), X, W, A, C1, C2, D1, D2)
def a_pullback_may_be_called_again(x, w, a, c1, c2, d1, d2):
    _, back = current().pullback(two(a), (x, w))
    first, second = back((c1, c2)), back((d1, d2))
    back((c2[:, None] * c1, c2))
    return first, second


@law(lambda x, w, a, c1, c2: pulled(x, w, a, c1, c2), X, W, A, C1, C2)
def the_last_call_of_a_pullback_is_a_call_of_it(x, w, a, c1, c2):
    adapter = current()
    return adapter.last_pull(adapter.pullback(two(a), (x, w))[1], (c1, c2))


# None and zero.


@law(
    lambda x, w, a, dx, dw: (pushed(x, w, a, dx, None), pushed(x, w, a, None, dw), pushed(x, w, a, dx, 0 * w)),
    *(X, W, A, DX, DW),
)
def none_is_a_zero_tangent(x, w, a, dx, dw):
    f = two(a)
    return push(f, (x, w), (dx, None)), push(f, (x, w), (None, dw)), push(f, (x, w), (dx, xp.zeros_like(w)))


@law(
    lambda x, w, a, c1, c2: (pulled(x, w, a, c1, None), pulled(x, w, a, None, c2), pulled(x, w, a, 0 * c1, c2)),
    *(X, W, A, C1, C2),
)
def none_is_a_zero_cotangent(x, w, a, c1, c2):
    f = two(a)
    _, back = current().pullback(f, (x, w))
    return back((c1, None)), back((None, c2)), back((xp.zeros_like(c1), c2))


@law(lambda x, w, a, c1, c2: (pulled(x, w, a, None, None), pulled(x, w, a, c1, c2)), X, W, A, C1, C2)
def without_any_cotangent_the_gradient_is_zero(x, w, a, c1, c2):
    _, back = current().pullback(two(a), (x, w))
    return back((None, None)), back((c1, c2))


# What f returns.


@law(lambda x, dx: ((2 * x * dx, 0 * x, dx), 2 * x * dx + 0 * dx + dx), X, DX)
def outputs_may_be_constants_and_inputs(x, dx):
    def f(x):
        return x * x, xp.ones_like(x), x

    return push(f, (x,), (dx,)), pull(f, (x,), (dx, dx, dx))[0]


@law(lambda x, a, c2: (2 * x, 0 * a), X, A, C2)
def an_input_without_use_has_gradient_zero(x, a, c2):
    return pull(lambda x, a: (xp.sum(x * x),), (x, a), (xp.sum(0 * c2) + 1.0,))


@law(lambda x, c: (2 * x * c, 3 * x * x * c, 5 * x**4 * c + c), X, DX)
def one_output_in_two_places_gets_both_cotangents(x, c):
    def f(x):
        y = x * x
        return y, y * x, y * y * x, x

    zero = xp.zeros_like(c)
    _, back = current().pullback(f, (x,))
    return back((c, None, zero, None))[0], back((None, c, None, None))[0], back((None, None, c, c))[0]


@law(lambda x, dx: (x**3, 3 * x * x * dx, np.cos(x), x.shape[0] + 0 * np.sum(x)), X, DX)
def pushforward_puts_aux_aside(x, dx):
    def f(x):
        return (x**3,), (xp.cos(x), x.shape[0] + 0 * xp.sum(x))

    ys, dys, aux = with_aux(current().pushforward, True)(f, (x,), (dx,))
    return *ys, *dys, *aux


@law(lambda x, c: (x**3, 3 * x * x * c, np.cos(x)), X, DX)
def pullback_puts_aux_aside(x, c):
    ys, back, aux = with_aux(current().pullback, True)(lambda x: ((x**3,), (xp.cos(x),)), (x,))
    return *ys, *back((c,)), *aux


@law(lambda x, v: (np.cos(x) * v, np.cos(x), -np.sin(x)), np.asarray(0.7), np.asarray(1.25))
def numbers_are_arrays_without_axes(x, v):
    def f(x):
        return (xp.sin(x),)

    def slope(x):
        return pull(f, (x,), (xp.ones_like(x),))

    return *push(f, (x,), (v,)), *pull(f, (x,), (xp.ones_like(x),)), *push(slope, (x,), (xp.ones_like(x),))


@law(lambda e, x: (e, e, 2 * x), np.zeros((0, 3)), X)
def empty_arrays_have_empty_derivatives(e, x):
    def f(e, x):
        return e * 2, xp.sum(x * x) + xp.sum(e)

    one = xp.sum(0 * x) + 1.0
    grads = pull(f, (e, x), (None, one))
    return push(f, (e, x), (e, None))[0], *grads


S, M, T = numbers("laws/s", 3, 3), numbers("laws/m", 3, 3), numbers("laws/t", 3, 3)


@law(lambda x, m, t: (3 * (m @ x) ** 2 * (m @ t), m.T @ (3 * (m @ x) ** 2 * t), 3 * (m @ x) ** 2 * t @ x.T), S, M, T)
def square_matrices_are_not_transposed(x, m, t):
    """Where all shapes are alike, no shape tells a Jacobian from its transpose."""

    def cubed(x, m):
        return ((m @ x) ** 3,)

    return *push(cubed, (x, m), (t, None)), *pull(cubed, (x, m), (t,))


@law(lambda x, dx: (2 * x.T * dx.T, 2 * x[::-1, 1:], np.cos(x[:, ::-1]) * dx[:, ::-1]), X, DX)
def views_are_arrays(x, dx):
    def square(x):
        return (x * x,)

    turned, cut = xp.matrix_transpose(x), xp.flip(x, axis=0)[:, 1:]
    flipped = push(lambda x: (xp.sin(x),), (xp.flip(x, axis=1),), (xp.flip(dx, axis=1),))
    return *push(square, (turned,), (xp.matrix_transpose(dx),)), *pull(square, (cut,), (xp.ones_like(cut),)), *flipped


# What f captures, and what the directions depend on.


def captured(x: Any, a: Any, dx: Any) -> Any:
    """d/da of tanh(a)^2 sum_ij (cos(x) dx)_ij^2, a by rows."""
    t = np.tanh(a)
    each = np.sum((np.cos(x) * dx) ** 2, axis=1)
    return 2 * t * (1 - t * t) * each


def _around(outer: str, f: Callable[..., Any], x: Any) -> Any:
    """The gradient of a function of one array that returns one number, by one pullback or by pushforwards."""
    if outer == "reverse":
        return pull(f, (x,), (xp.ones_like(xp.sum(x)),))[0]
    return current().pushforwards(f, (x,), (basis(current(), x, 0, x.shape[0]),))[1][0]


for inner, outer in itertools.product(PASSES, PASSES):

    @law(captured, X, A, DX, name=f"captured arrays: {outer} of {inner}")
    def _(x, a, dx, inner=inner, outer=outer):
        def loss(a):
            t = xp.tanh(a)  # neither an argument of the inner pass nor a leaf

            def f(x):
                return (t[:, None] * xp.sin(x),)

            return (xp.sum((push if inner == "forward" else pull)(f, (x,), (dx,))[0] ** 2),)

        return _around(outer, loss, a)


def direction(x: Any, v: Any) -> Any:
    """d/dv of |cos(x) v^2|^2 = 4 cos(x)^2 v^3."""
    return 4 * np.cos(x) ** 2 * v**3


for inner, outer in itertools.product(PASSES, PASSES):

    @law(direction, A, C2, name=f"differentiable in the direction: {outer} of {inner}")
    def _(x, v, inner=inner, outer=outer):
        def loss(v):
            return (xp.sum((push if inner == "forward" else pull)(lambda x: (xp.sin(x),), (x,), (v * v,))[0] ** 2),)

        return _around(outer, loss, v)


# Nesting.


def towers(order: int) -> Iterator[tuple[str, ...]]:
    """Every mix of passes, the outermost first."""
    return itertools.product(PASSES, repeat=order)


def sines(a: Any, x: Any, v: Any, order: int) -> Any:
    """Derivatives of sin(a . x) along v: (order - 1 of them and a gradient)."""
    u, slope = a @ x, a @ v
    derivative = (np.sin(u), np.cos(u), -np.sin(u), -np.cos(u))[order % 4]
    return derivative * slope ** (order - 1) * a


for order in (2, 3):
    for modes in towers(order):

        @law(
            lambda a, x, v, order=order: sines(a, x, v, order),
            *(A, C2, A),
            name=f"order {order}: {' of '.join(modes)}",
        )
        def _(a, x, v, modes=modes):
            def along(f: Any, mode: str) -> Any:
                if mode == "forward":
                    return lambda x: push(f, (x,), (v,))
                return lambda x: (dot(pull(f, (x,), (xp.ones_like(xp.sum(x)),)), (v,)),)

            def f(x):
                return (xp.sin(xp.sum(a * x)),)

            for mode in reversed(modes[1:]):
                f = along(f, mode)
            return _around(modes[0], lambda x: f(x), x)


for inner, outer in itertools.product(PASSES, PASSES):

    @law(lambda x, y: np.asarray(1.0), np.asarray(2.0), np.asarray(1.0), name=f"perturbations: {outer} of {inner}")
    def _(x, y, inner=inner, outer=outer):
        """d/dx (x d/dy (x + y)) = 1 (Siskind & Pearlmutter 2008)."""

        def slope(mode: str, f: Any, x: Any) -> Any:
            return (push if mode == "forward" else pull)(f, (x,), (xp.ones_like(x),))[0]

        return slope(outer, lambda x: (x * slope(inner, lambda y: (x + y,), y),), x)


# Many directions, batches, compilers.


def many_pushed(x: Any, w: Any, a: Any, dx: Any) -> Any:
    rows = [pushed(x, w, a, d, None) for d in (dx, 2 * dx, dx * dx)]
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


@law(many_pushed, X, W, A, DX)
def many_directions_are_a_loop_over_them(x, w, a, dx):
    many = xp.stack([dx, 2 * dx, dx * dx])
    return current().pushforwards(two(a), (x, w), (many, None))[1]


def many_pulled(x: Any, w: Any, a: Any, c1: Any, c2: Any) -> Any:
    rows = [pulled(x, w, a, c, None) for c in (c1, 2 * c1, c1 * c1)]
    both = [pulled(x, w, a, c, d) for c, d in ((c1, c2), (-c1, c2 * c2))]
    return tuple(tuple(np.stack(column) for column in zip(*some, strict=True)) for some in (rows, both))


@law(many_pulled, X, W, A, C1, C2)
def many_cotangents_are_a_loop_over_them(x, w, a, c1, c2):
    adapter = current()
    _, back = adapter.pullback(two(a), (x, w))
    some = adapter.pullbacks(back, (xp.stack([c1, 2 * c1, c1 * c1]), None))
    return some, adapter.pullbacks(back, (xp.stack([c1, -c1]), xp.stack([c2, c2 * c2])))


@law(lambda x: (np.zeros((0, 3, 2)), 3 * x * x), X)
def no_direction_gives_no_derivative(x):
    def f(x):
        return (x**3,)

    none = xp.stack([x])[:0]
    return current().pushforwards(f, (x,), (none,))[1][0], pull(f, (x,), (xp.ones_like(x),))[0]


@law(lambda x, a: (a * x**3, 3 * a * x**2, 6 * a * x, 6 * x * a), C2, A)
def a_batch_is_a_loop(x, a):
    """Rows through `batch`, with derivatives inside of it and around it."""
    adapter = current()

    def one(x, a):
        def cube(x):
            return (a * x**3,)

        def slope(x):
            return pull(cube, (x,), (xp.ones_like(x),))

        bend = pull(slope, (x,), (xp.ones_like(x),))[0]
        return *cube(x), *slope(x), bend, *push(slope, (x,), (xp.ones_like(x),))

    return adapter.batch(one)(x, a)


@law(lambda x, a: (3 * a * x**2, 3 * a * x**2), C2, A)
def derivatives_go_around_a_batch(x, a):
    def f(x):
        return current().batch(lambda x, a: (a * x**3,))(x, a)

    return push(f, (x,), (xp.ones_like(x),))[0], pull(f, (x,), (xp.ones_like(x),))[0]


@law(lambda x, w, a, c1, c2: (pulled(x, w, a, c1, c2), pulled(x, w, a, c1, c2)), X, W, A, C1, C2, compiled=False)
def compiled_is_eager(x, w, a, c1, c2):
    def f(x, w, a, c1, c2):
        return pull(two(a), (x, w), (c1, c2))

    fast = current().compile(f)
    fast(2 * x, w, a, c1, c2)
    return f(x, w, a, c1, c2), fast(x, w, a, c1, c2)


@law(lambda a, x: (np.cos(a @ x) * a, -np.sin(a @ x) * a * np.sum(a)), A, C2, compiled=False)
def derivatives_go_around_what_is_compiled(a, x):
    def f(x, a):
        return (xp.sin(xp.sum(a * x)),)

    fast = current().compile(f)
    one = xp.ones_like(xp.sum(x))

    def slope(x):
        return pull(lambda x: fast(x, a), (x,), (one,))

    return *slope(x), *pull(slope, (x,), (xp.ones_like(x),))


# What one primitive says about the other.


@law(lambda x, w, a, dx, dw: pushed(x, w, a, dx, dw), X, W, A, DX, DW, needs=frozenset({"reverse"}))
def a_pushforward_can_be_derived_from_the_pullback(x, w, a, dx, dw):
    return Backend.pushforward(current(), two(a), (x, w), (dx, dw))[1]


@law(lambda x, w, a, c1, c2: pulled(x, w, a, c1, c2), X, W, A, C1, C2)
def a_pullback_can_be_derived_from_the_pushforward(x, w, a, c1, c2):
    return Backend.pullback(current(), two(a), (x, w))[1]((c1, c2))


# Constants, dtypes, exceptions, threads.


@law(lambda x: (x, 2 * x + np.sin(x), 2 + 0 * x, 0 * x, np.sin(x) + 2 * x), X)
def stop_gradient_makes_constants_in_every_pass(x):
    def f(x):
        still = stop_gradient(xp.sin(x))
        return (still * x + x * x,)

    def bend(x):
        return pull(lambda x: (stop_gradient(x) * xp.ones_like(x),), (x,), (xp.ones_like(x),))

    ones = xp.ones_like(x)
    twice = pull(lambda x: push(f, (x,), (ones,)), (x,), (ones,))[0]
    return stop_gradient(x), pull(f, (x,), (ones,))[0], twice, bend(x)[0], push(f, (x,), (ones,))[0]


@law(lambda x: (3 * x * x, 6 * x), X, compiled=False)
def an_exception_leaves_the_framework_as_it_was(x):
    class OwnError(Exception):
        """Of the user, in f."""

    def bad(x):
        xp.sum(x * x)
        raise OwnError

    ones = xp.ones_like(x)
    for call in (
        lambda: push(bad, (x,), (ones,)),
        lambda: pull(bad, (x,), (ones,)),
        lambda: pull(lambda x: push(bad, (x,), (ones,)), (x,), (ones,)),
        lambda: push(lambda x: pull(bad, (x,), (ones,)), (x,), (ones,)),
    ):
        try:
            call()
        except OwnError:
            continue
        raise AssertionError("an exception inside f was swallowed")

    def slope(x):
        return pull(lambda x: (x**3,), (x,), (ones,))

    return *slope(x), *push(slope, (x,), (ones,))


@law(lambda x, w, a, c1, c2: tuple(pulled(k * x, w, a, c1, c2) for k in range(1, 5)), X, W, A, C1, C2, compiled=False)
def threads_do_not_meet(x, w, a, c1, c2):
    """Four threads pull and push at once."""
    adapter, found = current(), {}

    def work(k):
        try:
            with use_backend(adapter):
                for _ in range(3):
                    push(two(a), (k * x, w), (x, None))
                    found[k] = pull(two(a), (k * x, w), (c1, c2))
        except Exception as error:  # of a thread, which nobody would see
            found[k] = error

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in found.values():
        if isinstance(result, Exception):
            raise result
    return tuple(found[k] for k in range(1, 5))


@law(lambda x, w, a, c1, c2: (x, w, pulled(x, w, a, c1, c2)), X, W, A, C1, C2, compiled=False)
def arrays_go_to_the_host_and_come_back(x, w, a, c1, c2):
    adapter = current()
    there = polyad.convert((x, w), "numpy")
    if not all(type(leaf) is np.ndarray for leaf in trees.leaves(there)):
        raise AssertionError(f"convert(x, 'numpy') gave {[type(leaf).__name__ for leaf in trees.leaves(there)]}")
    device = adapter.device(x)
    back = polyad.convert(there, adapter, device=device)
    return *back, pull(two(a), back, (c1, c2))


def once(a: Any) -> Callable[..., Any]:
    """A function that is another one at each evaluation, as with a random mask or a running mean."""
    calls: list[int] = []

    def f(x: Any, w: Any) -> Any:
        calls.append(1)
        return tuple(float(len(calls)) * y for y in two(a)(x, w))

    return f


@law(lambda x, w, a, dx: (values(x, w, a), pushed(x, w, a, dx, None)), X, W, A, DX)
def f_runs_once_in_a_pushforward(x, w, a, dx):
    return current().pushforward(once(a), (x, w), (dx, None))


@law(lambda x, w, a, c1, c2: (values(x, w, a), pulled(x, w, a, c1, c2)), X, W, A, C1, C2, needs=frozenset({"reverse"}))
def f_runs_once_in_a_pullback(x, w, a, c1, c2):
    ys, back = current().pullback(once(a), (x, w))
    return ys, back((c1, c2))
