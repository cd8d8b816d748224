"""The documented examples 1 to 6: losses of networks with derivatives inside, against formulas derived by hand."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import polyad
from polyad import BatchNorm, Chain, Dense, Layer, StatefulLayer, batched_jacobian, gradient, jacobian, xp
from polyad.layers.layer import Random

from . import reference, reference_fields
from .case import Case, numbers, roughly

__all__ = ["CASES"]

GROUP = "documented examples"
DOUBLE = ("float64",)


def fill(model: Layer, place: str) -> Any:
    """Numbers for every parameter, the scale and bias of a BatchNorm too, so that each one acts."""

    def filled(shapes: Any, place: str) -> Any:
        if isinstance(shapes, Mapping):
            return {key: filled(part, f"{place}/{key}") for key, part in shapes.items()}
        fan_in = shapes[0] if len(shapes) == 2 else 1  # keeps tanh away from its flat ends
        return (numbers(place, *shapes) / np.sqrt(fan_in)).astype(np.float32).astype(np.float64)

    return filled(model.parameter_shapes(), place)


def example(
    name: str,
    models: Mapping[str, Layer],
    inputs: Mapping[str, np.ndarray],
    loss: Callable[..., Any],
    formula: Callable[..., Any],
    number: int,
    **options: Any,
) -> Case:
    """A case of loss(nets by name, *inputs), which formula(parameters by name, *inputs) is in NumPy."""
    params = {key: fill(model, f"{name}/parameters/{key}") for key, model in models.items()}
    states = {key: model.init(Random(0))[1] for key, model in models.items()}

    def of_parameters(states: Any, params: Any, *inputs: Any) -> Any:
        nets = {key: StatefulLayer(model, params[key], states[key]) for key, model in models.items()}
        return loss(nets, *inputs)

    def ask(states: Any, params: Any, *inputs: Any) -> Any:
        f = functools.partial(of_parameters, states)
        return polyad.value_and_gradient(f, params, *inputs, argnums=tuple(range(1 + len(inputs))))

    def expected(states: Any, params: Any, *inputs: Any) -> Any:
        value, gradients = reference.complex_step(formula, params, *inputs)
        return np.asarray(value), gradients

    return Case(
        GROUP,
        name,
        ask,
        (states, params, *inputs.values()),
        expected,
        loss=of_parameters,
        source=f"documented example {number}, derived by hand",
        **options,
    )


# 1 to 3: a Jacobian, a gradient and a batched Jacobian in the loss.


def jacobian_loss(nets: Any, x: Any, y: Any) -> Any:
    """J of shape (B, out, B, in): BatchNorm couples the rows."""
    net = nets["net"]
    J = jacobian(net, x)
    return xp.sum((net(x) - y) ** 2) + xp.sum(J**2)


def gradient_loss(nets: Any, t: Any) -> Any:
    """The slope has the shape of t."""
    net = nets["net"]
    slope = gradient(lambda t: xp.sum(net(t) ** 2), t)
    return xp.sum((slope - xp.cos(t)) ** 2)


def batched_jacobian_loss(nets: Any, x: Any, y: Any) -> Any:
    """J of shape (B, out, in)."""
    net = nets["net"]
    J = batched_jacobian(net, x)
    return xp.sum((net(x) - y) ** 2) + xp.sum((0.01 * J) ** 2)


def of_net(formula: Callable[..., Any]) -> Callable[..., Any]:
    """A formula in the parameters of one net, of a dict of nets."""
    return lambda params, *inputs: formula(params["net"], *inputs)


# 4: the Jacobian in the parameters, flat.

FIELD = Chain(Dense(1, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 1))


def parameter_jacobian_loss(nets: Any, t: Any) -> Any:
    """J of shape (B, 1, number of parameters)."""
    net = nets["net"]
    flat, unravel = polyad.ravel(net.params)
    J = jacobian(lambda flat: net(t, unravel(flat)), flat)
    return xp.sum(J**2)


# 5: Hutchinson's trace, v^T J v with signs v, three ways.


def trace_by_vjp(nets: Any, x: Any, v: Any) -> Any:
    _, pull = polyad.vjp(nets["net"], x)
    return xp.sum(pull(v)[0] * v)


def trace_by_jvp(nets: Any, x: Any, v: Any) -> Any:
    _, dy = polyad.jvp(nets["net"], (x,), (v,))
    return xp.sum(dy * v)


def trace_by_jacobian(nets: Any, x: Any, v: Any) -> Any:
    J = jacobian(nets["net"], x)
    n = x.shape[0] * x.shape[1]
    flat = xp.reshape(v, (n,))
    return xp.sum(flat * (xp.reshape(J, (n, n)) @ flat))


SIGNS = np.where(numbers("hutchinson/v", 12, 4) > 0, 1.0, -1.0)

# 6: the heat equation u_t = u_xx + u_yy + source on [0, 2]^3, points (x, y, t). With s = x + y and
# r = s + 4 t, u = exp(s) cos(r) has u_t = -4 exp(s) sin(r), and u_xx = u_yy = -2 exp(s) sin(r): the source
# that makes it exact is zero.

POINTS = np.abs(numbers("pinn/points", 8, 3)) * 1.5
OF_SPACE_AND_TIME = Chain(Dense(3, 8, "tanh"), Dense(8, 8, "tanh"), Dense(8, 1))


def exact(points: Any) -> Any:
    """(B, 3) to (B,)."""
    s = points[:, 0] + points[:, 1]
    return xp.exp(s) * xp.cos(s + 4.0 * points[:, 2])


def in_space(f: Callable[..., Any], points: Any) -> Any:
    """f of (x, y) alone, at these times."""
    times = points[:, 2:]
    return lambda places: f(xp.concat([places, times], axis=1))


def heat(f: Callable[..., Any], points: Any) -> tuple[Any, Any]:
    """(u_t, u_xx + u_yy) of f: (B, 3) to (B, out)."""
    u_t = batched_jacobian(f, points)[:, :, 2]
    return u_t, polyad.laplacian(in_space(f, points), points[:, :2])


def closed_form(points: Any) -> Any:
    """What both sides of the equation are for the exact u, and u itself."""
    s = points[:, 0] + points[:, 1]
    r = s + 4 * points[:, 2]
    rate = -4 * np.exp(s) * np.sin(r)
    return np.exp(s) * np.cos(r), rate[:, None], rate[:, None]


def ask_closed_form(points: Any) -> Any:
    u_t, bend = heat(lambda points: exact(points)[:, None], points)
    return exact(points), u_t, bend


def second_order_loss(nets: Any, points: Any) -> Any:
    """One net u: the residual of u_t = u_xx + u_yy, and the exact u as data."""
    net = nets["u"]
    u_t, bend = heat(net, points)
    return xp.sum((u_t - bend) ** 2) + xp.sum((net(points)[:, 0] - exact(points)) ** 2)


def first_order_loss(nets: Any, points: Any) -> Any:
    """Three nets: u_t = v_x + w_y, v = u_x, w = u_y, and the exact u as data."""
    u, v, w = nets["u"], nets["v"], nets["w"]
    du = batched_jacobian(u, points)[:, 0, :]
    v_x, w_y = batched_jacobian(v, points)[:, 0, 0], batched_jacobian(w, points)[:, 0, 1]
    return (
        xp.sum((du[:, 2] - v_x - w_y) ** 2)
        + xp.sum((du[:, 0] - v(points)[:, 0]) ** 2)
        + xp.sum((du[:, 1] - w(points)[:, 0]) ** 2)
        + xp.sum((u(points)[:, 0] - exact(points)) ** 2)
    )


COUPLED = Chain(Dense(2, 4, "tanh"), BatchNorm(4), Dense(4, 2))
SMALL = Chain(Dense(2, 4, "tanh"), Dense(4, 2))
SQUARE = Chain(Dense(4, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 4))


def points_of(name: str, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {key: numbers(f"{name}/{key}", *shape) for key, shape in shapes.items()}


TRACES = {"vjp": trace_by_vjp, "jvp": trace_by_jvp, "the Jacobian": trace_by_jacobian}

CASES: tuple[Case, ...] = (
    example(
        "1: a Jacobian in the loss, with BatchNorm",
        {"net": COUPLED},
        points_of("jacobian_in_loss", x=(10, 2), y=(10, 2)),
        jacobian_loss,
        of_net(reference.jacobian_loss),
        1,
        tags=frozenset({"jacobian", "batch_norm", "parameters"}),
    ),
    example(
        "2: a gradient in the loss",
        {"net": FIELD},
        points_of("gradient_in_loss", t=(16, 1)),
        gradient_loss,
        of_net(reference.gradient_loss),
        2,
        tags=frozenset({"gradient", "parameters"}),
    ),
    example(
        "3: a batched Jacobian in the loss",
        {"net": SMALL},
        points_of("batched_jacobian_in_loss", x=(10, 2), y=(10, 2)),
        batched_jacobian_loss,
        of_net(reference.batched_jacobian_loss),
        3,
        tags=frozenset({"batched_jacobian", "parameters"}),
        # Its 0.01 squared makes a Jacobian without any derivative a difference of
        # 3.1e-5 only, which the usual tolerance would let pass in float32.
        tolerance=roughly(1e-10, 1e-5),
    ),
    example(
        "4: a Jacobian in the parameters",
        {"net": FIELD},
        points_of("parameter_jacobian_in_loss", t=(16, 1)),
        parameter_jacobian_loss,
        of_net(reference_fields.parameter_jacobian_loss),
        4,
        tags=frozenset({"jacobian", "parameters", "ravel"}),
        dtypes=DOUBLE,
    ),
    *(
        example(
            f"5: Hutchinson's trace by {name}",
            {"net": SQUARE},
            {"x": numbers("hutchinson/x", 12, 4), "v": SIGNS},
            loss,
            of_net(reference_fields.trace),
            5,
            tags=frozenset({"parameters", name}),
            dtypes=("float64", "float32") if name == "vjp" else DOUBLE,
        )
        for name, loss in TRACES.items()
    ),
    Case(
        GROUP,
        "6: the closed form solves the heat equation without a source",
        ask_closed_form,
        (POINTS,),
        closed_form,
        source="documented example 6, differentiated by hand",
        tags=frozenset({"laplacian", "batched_jacobian"}),
    ),
    example(
        "6: a PINN of second order",
        {"u": OF_SPACE_AND_TIME},
        {"points": POINTS},
        second_order_loss,
        reference_fields.second_order_loss,
        6,
        tags=frozenset({"laplacian", "batched_jacobian", "parameters"}),
    ),
    example(
        "6: a PINN in first-order form",
        {"u": OF_SPACE_AND_TIME, "v": OF_SPACE_AND_TIME, "w": OF_SPACE_AND_TIME},
        {"points": POINTS},
        first_order_loss,
        reference_fields.first_order_loss,
        6,
        dtypes=DOUBLE,
        tags=frozenset({"batched_jacobian", "parameters"}),
    ),
)
