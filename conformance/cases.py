"""The documented examples 1 to 3 as data: loss, model, numbers, reference, tolerance."""

import functools
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polyad import BatchNorm, Chain, Dense, Layer, StatefulLayer, batched_jacobian, gradient, jacobian, xp

from . import reference

__all__ = ["CASES", "FINITE_DIFFERENCES", "Case"]

TOLERANCE: Mapping[str, float] = {"float64": 1e-10, "float32": 1e-4}
FINITE_DIFFERENCES = 1e-6
"""Allowed between a gradient and central differences in float64, whose own error is near 1e-10."""


@dataclass(frozen=True)
class Case:
    """A loss of a network and of inputs, with an independent reference.

    loss        (net, *inputs) -> one number, in polyad; net is a StatefulLayer
    parameters  of the model, float64, a nested dict
    inputs      by name, float64; every one is differentiated
    reference   (parameters, *inputs) -> one number, in plain NumPy, analytic
    tolerance   by dtype: largest difference to the reference, relative to the
                largest entry of the leaf
    """

    name: str
    loss: Callable[..., Any]
    model: Layer
    parameters: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    reference: Callable[..., Any]
    source: str
    tags: frozenset[str] = frozenset()
    tolerance: Mapping[str, float] = field(default_factory=lambda: TOLERANCE)

    @functools.cached_property
    def expected(self) -> tuple[float, tuple[Any, ...]]:
        """(value, gradients in the parameters and in each input) of the reference."""
        return reference.complex_step(self.reference, self.parameters, *self.inputs.values())


def numbers(case: str, place: str, shape: tuple[int, ...]) -> np.ndarray:
    """Between 0.2 and 1.2 in size, of either sign, the same on every machine.

    No entry is so small that a wrong gradient could hide in it, and each one is
    a float32, so that both precisions see the same point.
    """
    key = np.random.SeedSequence(1, spawn_key=(zlib.crc32(f"{case}/{place}".encode()),))
    uniform = 2 * np.random.Generator(np.random.Philox(key)).random(shape, dtype=np.float32) - 1
    return np.copysign(np.abs(uniform) + np.float32(0.2), uniform).astype(np.float64)


def parameters(case: str, model: Layer) -> Any:
    """Numbers for every parameter, the scale and bias of a BatchNorm too, so that each one acts."""

    def fill(shapes: Any, place: str) -> Any:
        if isinstance(shapes, Mapping):
            return {key: fill(part, f"{place}/{key}") for key, part in shapes.items()}
        fan_in = shapes[0] if len(shapes) == 2 else 1  # keeps tanh away from its flat ends
        return (numbers(case, place, shapes) / np.sqrt(fan_in)).astype(np.float32).astype(np.float64)

    return fill(model.parameter_shapes(), "parameters")


def case(name: str, shapes: Mapping[str, tuple[int, ...]], model: Layer, **rest: Any) -> Case:
    """A Case with numbers for inputs of these shapes."""
    inputs = {key: numbers(name, key, shape) for key, shape in shapes.items()}
    return Case(name, model=model, parameters=parameters(name, model), inputs=inputs, **rest)


def jacobian_loss(net: StatefulLayer, x: Any, y: Any) -> Any:
    """J of shape (B, out, B, in)."""
    J = jacobian(net, x)
    return xp.sum((net(x) - y) ** 2) + xp.sum(J**2)


def gradient_loss(net: StatefulLayer, t: Any) -> Any:
    """The slope has the shape of t."""
    slope = gradient(lambda t: xp.sum(net(t) ** 2), t)
    return xp.sum((slope - xp.cos(t)) ** 2)


def batched_jacobian_loss(net: StatefulLayer, x: Any, y: Any) -> Any:
    """J of shape (B, out, in)."""
    J = batched_jacobian(net, x)
    return xp.sum((net(x) - y) ** 2) + xp.sum((0.01 * J) ** 2)


CASES: tuple[Case, ...] = (
    case(
        "jacobian_in_loss",
        {"x": (10, 2), "y": (10, 2)},
        Chain(Dense(2, 4, "tanh"), BatchNorm(4), Dense(4, 2)),
        loss=jacobian_loss,
        reference=reference.jacobian_loss,
        source="documented example 1",
        tags=frozenset({"jacobian", "batch_norm"}),
    ),
    case(
        "gradient_in_loss",
        {"t": (16, 1)},
        Chain(Dense(1, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 1)),
        loss=gradient_loss,
        reference=reference.gradient_loss,
        source="documented example 2",
        tags=frozenset({"gradient"}),
    ),
    case(
        "batched_jacobian_in_loss",
        {"x": (10, 2), "y": (10, 2)},
        Chain(Dense(2, 4, "tanh"), Dense(4, 2)),
        loss=batched_jacobian_loss,
        reference=reference.batched_jacobian_loss,
        source="documented example 3",
        tags=frozenset({"batched_jacobian"}),
        # Its 0.01 squared makes a Jacobian without any derivative a difference of
        # 3.1e-5 only, which the usual tolerance would let pass in float32.
        tolerance={**TOLERANCE, "float32": 1e-5},
    ),
)
