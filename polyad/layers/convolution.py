"""Conv: convolution over one, two or three axes of space."""

import math
from typing import Any

from polyad.arrays import describe, operation, xp
from polyad.errors import ArgumentError
from polyad.layers.activations import Activation
from polyad.layers.activations import activation as as_activation
from polyad.layers.layer import Layer, Random, Tree, activation_name, check_weight, named_parameter
from polyad.layers.windows import Padding, Pairs, check_padding, pads, sizes, slices

__all__ = ["Conv", "convolution"]


@operation
def convolution(
    x: Any, weight: Any, *, stride: tuple[int, ...], padding: Pairs, dilation: tuple[int, ...], groups: int
) -> Any:
    """Cross-correlation of x (B, *space, channels) with weight (*window, channels / groups, outputs).

    One product of matrices: what all windows see, (B * out, window * channels), times the weight.
    """
    window, (channels, outputs) = tuple(weight.shape[:-2]), tuple(weight.shape[-2:])
    seen = slices(x, window, stride, dilation, padding)
    out = tuple(seen[0].shape[:-1])
    rows, count = math.prod(out), math.prod(window)
    if groups == 1:
        patches = xp.concat(seen, axis=-1) if count > 1 else seen[0]
        y = xp.reshape(patches, (rows, count * channels)) @ xp.reshape(weight, (count * channels, outputs))
        return xp.reshape(y, (*out, outputs))
    stacked = xp.reshape(xp.stack(seen, axis=-2), (rows, count, groups, channels))
    patches = xp.reshape(xp.permute_dims(stacked, (2, 0, 1, 3)), (groups, rows, count * channels))
    each = xp.reshape(weight, (count * channels, groups, outputs // groups))
    y = patches @ xp.permute_dims(each, (1, 0, 2))
    return xp.reshape(xp.permute_dims(y, (1, 0, 2)), (*out, outputs))


class Conv(Layer):
    """activation(x * weight + bias), x of shape (B, *space, inputs), channels last.

    kernel    an integer for one axis of space, or a tuple with one for each of one to three
    stride, dilation  an integer, or one for each axis
    padding   "valid" (none), "same" (ceil(size / stride) outputs, as in XLA), an
              integer, or for each axis an integer or a pair (before, after)
    groups    channels are split in so many groups that do not mix; inputs for one filter a channel
    weight    (*kernel, inputs / groups, outputs), Glorot uniform: within
              sqrt(6 / (window * (inputs + outputs) / groups)). As in all
              frameworks it is not flipped: this is a cross-correlation
    bias      (outputs,), uniform within 1 / sqrt(window * inputs / groups)
    source    Dumoulin & Visin (2016)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, ...],
        activation: str | Activation | None = None,
        *,
        stride: int | tuple[int, ...] = 1,
        padding: Padding = "valid",
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        if not all(isinstance(n, int) and n > 0 for n in (inputs, outputs, groups)):
            raise ArgumentError(f"Conv({inputs!r}, {outputs!r}, groups={groups!r}): sizes are positive integers")
        if inputs % groups or outputs % groups:
            raise ArgumentError(
                f"Conv({inputs}, {outputs}, groups={groups}): inputs and outputs are multiples of groups"
            )
        self.inputs, self.outputs, self.groups, self.bias = inputs, outputs, groups, bias
        self.kernel = sizes("Conv", "kernel", kernel)
        n = len(self.kernel)
        self.stride, self.dilation = sizes("Conv", "stride", stride, n), sizes("Conv", "dilation", dilation, n)
        self.padding = check_padding("Conv", padding, n)
        self.name, self.activation = activation, as_activation(activation)

    def __repr__(self) -> str:
        one = len(self.kernel) == 1
        ones = (1,) * len(self.kernel)
        parts = [str(self.inputs), str(self.outputs), str(self.kernel[0] if one else self.kernel)]
        parts += activation_name(self.name)
        for name, value, default in (
            ("stride", self.stride, ones),
            ("padding", self.padding, "valid"),
            ("dilation", self.dilation, ones),
            ("groups", self.groups, 1),
            ("bias", self.bias, True),
        ):
            if value != default:
                parts.append(f"{name}={value[0] if one and value in (self.stride, self.dilation) else value!r}")
        return f"Conv({', '.join(parts)})"

    @property
    def _shape(self) -> tuple[int, ...]:
        return (*self.kernel, self.inputs // self.groups, self.outputs)

    def init(self, random: Random) -> tuple[Tree, Tree]:
        window = math.prod(self.kernel)
        bound = math.sqrt(6 * self.groups / (window * (self.inputs + self.outputs)))
        params = {"weight": random.at("weight").uniform(bound, self._shape)}
        if self.bias:
            seen = window * self.inputs // self.groups
            params["bias"] = random.at("bias").uniform(1 / math.sqrt(seen), (self.outputs,))
        return params, {}

    def parameter_shapes(self) -> Tree:
        return {"weight": self._shape, "bias": (self.outputs,)} if self.bias else {"weight": self._shape}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        if x.ndim != len(self.kernel) + 2 or x.shape[-1] != self.inputs:
            space = ", ".join(f"n{i}" for i in range(len(self.kernel)))
            raise ArgumentError(f"{self!r}: its input is a {describe(x)}; it needs (B, {space}, {self.inputs})")
        weight = named_parameter(self, params, "weight")
        check_weight(self, x, weight, self._shape)
        padding = pads(self, x, self.kernel, self.stride, self.dilation, self.padding)
        y = convolution(x, weight, stride=self.stride, padding=padding, dilation=self.dilation, groups=self.groups)
        if self.bias:
            y = y + named_parameter(self, params, "bias")
        return self.activation(y), state
