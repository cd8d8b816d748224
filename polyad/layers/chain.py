"""Chain: one layer after the other."""

from collections.abc import Callable
from typing import Any

from polyad.errors import ArgumentError
from polyad.layers.activations import activation
from polyad.layers.layer import Layer, Random, Tree, named_parameter

__all__ = ["Chain", "Function"]


class Function(Layer):
    """A function of x as a layer, without parameters."""

    def __init__(self, f: str | Callable[[Any], Any]) -> None:
        self.f = activation(f)

    def __repr__(self) -> str:
        return getattr(self.f, "__name__", repr(self.f))

    def parameter_shapes(self) -> Tree:
        return {}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        return self.f(x), state


class Chain(Layer):
    """Layers in a row; functions and names of activations are layers too.

    Parameters and states are dicts with the keys 'layer_0', 'layer_1', ...
    """

    def __init__(self, *layers: Any) -> None:
        self.layers = tuple(self._layer(layer) for layer in layers)
        self.keys = tuple(f"layer_{i}" for i in range(len(layers)))

    @staticmethod
    def _layer(given: Any) -> Layer:
        if isinstance(given, Layer):
            return given
        if callable(given) or isinstance(given, str):
            return Function(given)
        raise ArgumentError(f"Chain: {given!r} is no layer; give a Layer, a function, or the name of an activation")

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.layers))})"

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> Layer:
        return self.layers[i]

    def init(self, random: Random) -> tuple[Tree, Tree]:
        parts = {key: layer.init(random.at(key)) for key, layer in zip(self.keys, self.layers, strict=True)}
        return {key: p for key, (p, _) in parts.items()}, {key: s for key, (_, s) in parts.items()}

    def parameter_shapes(self) -> Tree:
        return {key: layer.parameter_shapes() for key, layer in zip(self.keys, self.layers, strict=True)}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        moved = {}
        for key, layer in zip(self.keys, self.layers, strict=True):
            before = named_parameter(self, state, key)
            x, after = layer(x, named_parameter(self, params, key), before)
            if after is not before:
                moved[key] = after
        return x, {**state, **moved} if moved else state
