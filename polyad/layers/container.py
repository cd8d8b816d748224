"""Containers: layers that hold layers, their parameters and states by the same keys."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from polyad.arrays import xp
from polyad.errors import ArgumentError
from polyad.layers.function import Lambda
from polyad.layers.layer import Layer, Random, Tree, named_parameter

Join = Callable[..., Any]

__all__ = ["Container", "as_join", "as_layer", "observer"]

observer: ContextVar[Callable[[str, Any, Any], None] | None] = ContextVar("polyad_observer", default=None)
"""Called with (place, layer, output) of each layer in a container, for `summary`."""
_place: ContextVar[str] = ContextVar("polyad_place", default="")


def as_layer(given: Any, container: str) -> Layer:
    """A layer; a function and the name of an activation are layers too."""
    if isinstance(given, Layer):
        return given
    if callable(given) or isinstance(given, str):
        return Lambda(given)
    raise ArgumentError(f"{container}: {given!r} is no layer; give a Layer, a function, or the name of an activation")


def _add(*ys: Any) -> Any:
    return sum(ys[1:], ys[0])


def _multiply(*ys: Any) -> Any:
    y = ys[0]
    for other in ys[1:]:
        y = y * other
    return y


def _concat(*ys: Any) -> Any:
    return xp.concat(list(ys), axis=-1)


JOINS: dict[str, Join] = {"add": _add, "concat": _concat, "multiply": _multiply}


def as_join(given: str | Join, container: str) -> Join:
    """The function ys -> y of this name; "concat" is along the channels, the last axis."""
    if callable(given):
        return given
    if given not in JOINS:
        raise ArgumentError(
            f"{container}: there is no join={given!r}. Known are {', '.join(JOINS)}; or give a function"
        )
    return JOINS[given]


class Container(Layer):
    """Layers by the keys 'layer_0', 'layer_1', ...; subclasses give `__call__`."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = tuple(as_layer(layer, type(self).__name__) for layer in layers)
        self.keys = tuple(f"layer_{i}" for i in range(len(layers)))

    def options(self) -> Sequence[str]:
        """What else the container was made with, for repr()."""
        return ()

    def __repr__(self) -> str:
        parts = [*map(repr, self.layers), *self.options()]
        line = f"{type(self).__name__}({', '.join(parts)})"
        if len(line) <= 100 and "\n" not in line:
            return line
        inner = "".join(f"    {part},\n".replace("\n", "\n    ")[:-4] for part in parts)
        return f"{type(self).__name__}(\n{inner})"

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> Layer:
        return self.layers[i]

    def init(self, random: Random) -> tuple[Tree, Tree]:
        parts = {key: layer.init(random.at(key)) for key, layer in zip(self.keys, self.layers, strict=True)}
        return {key: p for key, (p, _) in parts.items()}, {key: s for key, (_, s) in parts.items()}

    def parameter_shapes(self) -> Tree:
        return {key: layer.parameter_shapes() for key, layer in zip(self.keys, self.layers, strict=True)}

    def run(self, i: int, x: Any, params: Tree, state: Tree, moved: Tree) -> Any:
        """The output of layer i; where its state has moved, the new one is put into `moved`."""
        return self.in_a_row(x, params, state, moved, slice(i, i + 1))

    def in_a_row(self, x: Any, params: Tree, state: Tree, moved: Tree, some: slice = slice(None)) -> Any:
        """The output of the layers, or of some of them, one after the other; states as in `run`.

        One loop without calls but those of the layers: it is paid for each of them in each evaluation.
        """
        seen = observer.get()
        for key, layer in zip(self.keys[some], self.layers[some], strict=True):
            try:
                own, before = params[key], state[key]
            except (KeyError, TypeError, IndexError):
                own, before = named_parameter(self, params, key), named_parameter(self, state, key)
            x, after = layer(x, own, before) if seen is None else self._observed(seen, layer, key, x, own, before)
            if after is not before:
                moved[key] = after
        return x

    @staticmethod
    def _observed(seen: Callable[[str, Any, Any], None], layer: Layer, key: str, *args: Any) -> Any:
        place = f"{_place.get()}[{key!r}]"
        token = _place.set(place)
        try:
            y, after = layer(*args)
        finally:
            _place.reset(token)
        seen(place, layer, y)
        return y, after
