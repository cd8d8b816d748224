"""What a layer is: a description, with its parameters and state held outside."""

import zlib
from operator import attrgetter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from polyad import trees
from polyad.arrays import describe, dtype_name
from polyad.backends import is_array
from polyad.errors import ArgumentError, DTypeError, ParameterError

Tree = Any

__all__ = [
    "Layer",
    "Random",
    "Test",
    "Train",
    "activation_name",
    "check_features",
    "check_sizes",
    "check_weight",
    "named_parameter",
]


class Train(NamedTuple):
    """The mark of training mode in a state: part of its structure, not a value.

    A tuple without fields has no leaves in any pytree library, so that a state
    passes through jit, scan and vmap and its mode is known there.
    """


class Test(NamedTuple):
    """The mark of test mode in a state."""


class Random:
    """Random numbers for each place in a model: the same on every machine and backend.

    A counter-based generator keyed by seed and place, so that adding a layer
    changes no other one. Numbers are drawn as float32 and are therefore equal in
    float32 and float64.
    """

    def __init__(self, seed: int, place: str = "") -> None:
        self.seed, self.place = seed, place

    def at(self, name: str) -> "Random":
        """The stream of a part."""
        return Random(self.seed, f"{self.place}/{name}")

    def uniform(self, bound: float, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform in [-bound, bound), float32."""
        return (2 * self._generator().random(shape, dtype=np.float32) - 1) * np.float32(bound)

    def normal(self, deviation: float, shape: tuple[int, ...]) -> np.ndarray:
        """Normal with mean 0 and this standard deviation, float32."""
        return self._generator().standard_normal(shape, dtype=np.float32) * np.float32(deviation)

    def words(self, shape: tuple[int, ...]) -> np.ndarray:
        """Random int32, as the key of a generator in a state."""
        return self._generator().integers(-(2**31), 2**31, shape, dtype=np.int32)

    def _generator(self) -> np.random.Generator:
        key = np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(self.place.encode()),))
        return np.random.Generator(np.random.Philox(key))


class Layer:
    """(x, params, state) -> (y, state), a pure function.

    Subclasses give `__call__`, and `init` and `parameter_shapes` if they have
    parameters or a state.
    """

    def init(self, random: Random) -> tuple[Tree, Tree]:
        """(params, state) as ndarrays."""
        return {}, {}

    def parameter_shapes(self) -> Tree:
        """The tree of params with shapes in place of arrays; None where they are not checked."""
        return None

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(x, params, state)")

    def check_parameters(self, params: Tree, root: str = "params") -> None:
        """ParameterError where params are not those of this model; names the leaf."""
        hashed = type(self).__hash__ is not None  # a dataclass may have no hash
        if not (hashed and _fits(_right.get(self), params)):
            _check(self.parameter_shapes(), params, root, repr(self))
            if hashed:
                _right[self] = _form(params)


_shape = attrgetter("shape")
_right: WeakKeyDictionary[Layer, Any] = WeakKeyDictionary()
"""By layer, the structure and the shapes of parameters that were found right: a net is made in every step."""


def _form(params: Tree) -> tuple[Any, list[Any]] | None:
    """(structure, shapes of the leaves); None where not all of them are arrays."""
    leaves, structure = trees.flatten(params)
    return (structure, [tuple(leaf.shape) for leaf in leaves]) if all(map(is_array, leaves)) else None


def _fits(form: Any, params: Tree) -> bool:
    """Whether these parameters have that form; what else may be right is for `_check`."""
    try:
        return form is not None and [*map(_shape, form[0].flatten_up_to(params))] == form[1]
    except (ValueError, AttributeError):  # another structure; a leaf that is no array
        return False


def _check(shapes: Any, params: Any, place: str, model: str) -> None:
    if shapes is None:
        return
    if isinstance(shapes, dict):
        if not isinstance(params, dict):
            raise ParameterError(
                f"{place} is {type(params).__name__}, but {model} has {_keys(shapes)} there. "
                f"Make parameters with params, state = polyad.setup(0, model)"
            )
        if shapes.keys() != params.keys():
            raise ParameterError(
                f"{place} has {_keys(params)}, but {model} needs {_keys(shapes)}. "
                f"Make parameters with params, state = polyad.setup(0, model)"
            )
        for key, inner in shapes.items():
            _check(inner, params[key], f"{place}[{key!r}]", model)
    elif isinstance(shapes, list) or not all(isinstance(n, int) for n in shapes):
        if not isinstance(params, list | tuple) or len(params) != len(shapes):
            raise ParameterError(f"{place} is {type(params).__name__}, but {model} has {len(shapes)} entries there")
        for i, inner in enumerate(shapes):
            _check(inner, params[i], f"{place}[{i}]", model)
    elif not is_array(params):
        raise ParameterError(f"{place} is {params!r}, but {model} needs an array of shape {shapes} there")
    elif tuple(params.shape) != shapes:
        raise ParameterError(f"{place} is a {describe(params)}, but {model} needs shape {shapes} there")


def _keys(tree: dict[str, Any]) -> str:
    return f"the keys {', '.join(map(repr, tree))}" if tree else "no keys"


def named_parameter(layer: Layer, params: Tree, name: str) -> Any:
    """params[name], or a ParameterError that says what is missing."""
    try:
        return params[name]
    except (KeyError, TypeError, IndexError):
        found = _keys(params) if isinstance(params, dict) else type(params).__name__
        raise ParameterError(
            f"{layer!r} needs params[{name!r}] and got {found}. Make parameters with "
            f"params, state = polyad.setup(0, model)"
        ) from None


def check_sizes(layer: str, **given: Any) -> None:
    """ArgumentError where one is no positive integer."""
    for name, n in given.items():
        if type(n) is not int or n <= 0:
            raise ArgumentError(f"{layer}: {name}={n!r}; it is a positive integer")


def check_features(layer: Layer, x: Any, features: int, least: int = 1) -> None:
    """ArgumentError where the last axis of x has another size, or x fewer axes than it needs."""
    if x.ndim < least or tuple(x.shape[-1:]) != (features,):
        needed = f"(B, ..., {features})" if least > 1 else f"(..., {features})"
        raise ArgumentError(f"{layer!r}: its input is a {describe(x)}; it needs {needed}")


def check_weight(layer: Layer, x: Any, weight: Any, shape: tuple[int, ...], name: str = "params['weight']") -> None:
    """ParameterError where the weight has another shape; DTypeError where its dtype is not that of x."""
    if tuple(weight.shape) != shape:
        raise ParameterError(f"{layer!r}: {name} is a {describe(weight)}; it needs shape {shape}")
    if weight.dtype != x.dtype:
        raise DTypeError(
            f"{layer!r}: {name} is {dtype_name(weight.dtype)}, its input x is {dtype_name(x.dtype)}. Type "
            f"polyad.convert(x, backend, dtype={dtype_name(weight.dtype)!r}), or setup(..., "
            f"dtype={dtype_name(x.dtype)!r})"
        )


def activation_name(name: Any) -> list[str]:
    """An activation as an argument, for repr()."""
    return [] if name is None else [repr(getattr(name, "__name__", name))]
