"""What an adopted model is: a Layer over a model of another framework."""

import inspect
from abc import abstractmethod
from typing import Any

from polyad import trees
from polyad.arrays import asarray
from polyad.backends import get, is_host, use_backend
from polyad.errors import ArgumentError, ParameterError
from polyad.layers.layer import Layer, Random, Test, Tree

__all__ = ["Adopted", "inputs", "mode_arguments", "refuse_options", "same"]

Arguments = dict[str, Any]


class Adopted(Layer):
    """A model of a framework as (x, params, state) -> (y, state).

    source   the model as it was given
    shapes   of its parameters, by which they are checked
    options  keyword arguments of the model by mode: {True: in training, False: in test}

    Subclasses give `own`, `run` and `released`.
    """

    backend: str
    """The name of the backend whose arrays the parameters are."""

    def __init__(self, source: Any, train: Arguments | None, test: Arguments | None) -> None:
        self.source = source
        self.options = {True: train or {}, False: test or {}}

    def __repr__(self) -> str:
        return f"adopted {type(self.source).__name__}"

    @abstractmethod
    def own(self) -> tuple[Tree, Tree]:
        """(params, state): copies of what the model has itself."""

    @abstractmethod
    def run(self, args: tuple[Any, ...], kwargs: Arguments, params: Tree, state: Tree, training: bool) -> Any:
        """(y, the entries of the state that have moved)."""

    @abstractmethod
    def released(self, params: Tree, state: Tree) -> Any:
        """The framework's own model with these parameters and state."""

    def init(self, random: Random) -> tuple[Tree, Tree]:
        """Its own parameters and state, whatever the seed: so it can be a layer of a Chain."""
        return self.own()

    def check_parameters(self, params: Tree, root: str = "params") -> None:
        try:
            super().check_parameters(params, root)
        except ParameterError as error:
            found = str(error).split(". Make parameters")[0]
            raise ParameterError(f"{found}. Its own parameters are those of polyad.adopt(...).params") from None

    def parameter_shapes(self) -> Tree:
        return self.shapes

    @property
    def shapes(self) -> Tree:
        """The shapes of the parameters that it has itself."""
        if "_shapes" not in self.__dict__:
            self._shapes = trees.map(lambda leaf: tuple(leaf.shape), self.own()[0])
        return self._shapes

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        training = not isinstance(state["mode"], Test)
        args, kwargs = inputs(self._lifted(x))
        y, moved = self.run(args, {**self.options[training], **kwargs}, params, state, training)
        return y, {**state, **moved} if moved else state

    def _lifted(self, x: Any) -> Any:
        """ndarrays as arrays of the framework."""
        if not any(map(is_host, trees.leaves(x))):
            return x
        with use_backend(get(self.backend)):
            return trees.map(lambda leaf: asarray(leaf) if is_host(leaf) else leaf, x)


def inputs(x: Any) -> tuple[tuple[Any, ...], Arguments]:
    """(positional, keyword) arguments of the model."""
    if isinstance(x, dict) and all(isinstance(key, str) for key in x):
        return (), x
    return (x, {}) if type(x) is tuple else ((x,), {})


# How models are told their mode where the mode is an argument, as Flax models do.
_CONVENTIONS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "inference": False,
    "use_running_average": False,
}


def mode_arguments(call: Any, train: Arguments | None, test: Arguments | None) -> tuple[Arguments, Arguments]:
    """(train, test), found by the names of the arguments where neither is given."""
    if train is not None or test is not None:
        return train or {}, test or {}
    known = [name for name in inspect.signature(call).parameters if name in _CONVENTIONS]
    return {name: _CONVENTIONS[name] for name in known}, {name: not _CONVENTIONS[name] for name in known}


def same(before: Tree, after: Tree) -> bool:
    """Whether these are the very same arrays at the same places."""
    a, b = trees.leaves(before), trees.leaves(after)
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def refuse_options(kind: str, **options: Any) -> None:
    """raises  ArgumentError for an option that a framework does not have"""
    for name, value in options.items():
        if value:
            raise ArgumentError(f"adopt: a model of {kind} has no {name}; leave it out")
