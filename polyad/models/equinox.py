"""Equinox."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox
import jax

from polyad.layers.layer import Test, Train, Tree
from polyad.models.adopted import Adopted, Arguments
from polyad.models.jax_leaves import Leaves, kept, key_of, random_state, strong

__all__ = ["Equinox"]

AXIS = "batch"


class Equinox(Adopted):
    """An equinox.Module, and its State if it has one.

    params  its inexact arrays by name; every other field is part of the model
    state   the arrays of the State by place; key and count of the random numbers,
            which the model gets as key= in training mode if it takes one; the mode
    batch   Equinox writes models for one example. True maps it over the first axis
            of its inputs (jax.vmap), each row with a key of its own; the axis has
            the name that the BatchNorms of the model give it
    source  equinox.partition and combine
    """

    backend = "jax"

    def __init__(
        self,
        model: Any,
        state: Any = None,
        *,
        batch: bool = False,
        seed: int = 0,
        train: Arguments | None = None,
        test: Arguments | None = None,
    ) -> None:
        super().__init__(model, train, test)
        self.state = jax.tree.map(lambda x: x, state)  # a State may be used once: this is another one
        self.batch, self.seed = batch, seed
        self.takes_key = _takes_key(model)
        flags = [part.inference for part in _parts(model, _knows_mode)]
        self.training = not flags or not all(flags)
        self._look()

    def _look(self) -> None:
        params, _ = equinox.partition(self.source, equinox.is_inexact_array)
        self.leaves, self.state_leaves = Leaves(params), Leaves(self.state)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.endswith("leaves")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._look()  # its structures do not survive pickling

    def own(self) -> tuple[Tree, Tree]:
        params, _ = equinox.partition(self.source, equinox.is_inexact_array)
        state = {
            "variables": strong(self.state_leaves.dict(self.state)),
            "random": random_state(self.seed),
            "mode": Train() if self.training else Test(),
        }
        return self.leaves.dict(params), state

    def run(self, args: tuple[Any, ...], kwargs: Arguments, params: Tree, state: Tree, training: bool) -> Any:
        model, random = self._model(params, training), state["random"]
        draws = training and self.takes_key
        key = key_of(random) if draws else None
        if self.batch:
            y, after = self._mapped(model, args, kwargs, state, key)
        else:
            y, after = self._called(model, args, kwargs, state, key)
        moved: dict[str, Any] = {}
        if training and after:
            moved["variables"] = kept(state["variables"], after)
        if draws:
            moved["random"] = {**random, "count": random["count"] + 1}
        return y, moved

    def _called(self, model: Any, args: tuple[Any, ...], kwargs: Arguments, state: Tree, key: Any) -> Any:
        """(y, the variables of the State after it)."""
        if key is not None:
            kwargs = {"key": key, **kwargs}
        if self.state is None:
            return model(*args, **kwargs), {}
        y, after = model(*args, self.state_leaves.tree(state["variables"]), **kwargs)
        return y, self.state_leaves.dict(after)

    def _mapped(self, model: Any, args: tuple[Any, ...], kwargs: Arguments, state: Tree, key: Any) -> Any:
        rows = len(jax.tree.leaves((args, kwargs))[0])
        keys = None if key is None else jax.random.split(key, rows)

        def one(args: tuple[Any, ...], kwargs: Arguments, key: Any) -> Any:
            return self._called(model, args, kwargs, state, key)

        names = {part.axis_name for part in _parts(model, lambda node: isinstance(node, equinox.nn.BatchNorm))}
        flat = [axis for name in names for axis in (name if isinstance(name, tuple) else (name,))]
        axis = flat[0] if flat else AXIS
        return jax.vmap(one, in_axes=(0, 0, None if keys is None else 0), out_axes=(0, None), axis_name=axis)(
            args, kwargs, keys
        )

    def _model(self, params: Tree, training: bool) -> Any:
        _, static = equinox.partition(self.source, equinox.is_inexact_array)
        model = equinox.combine(self.leaves.tree(params), static)
        if training and self.training:
            return model  # parts that are frozen in a training model stay so
        return equinox.nn.inference_mode(model, value=not training)

    def released(self, params: Tree, state: Tree) -> Any:
        """The model, or (model, State)."""
        model = self._model(params, not isinstance(state["mode"], Test))
        return model if self.state is None else (model, self.state_leaves.tree(state["variables"]))


def _knows_mode(node: Any) -> bool:
    return hasattr(node, "inference")


def _parts(model: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """The outermost parts of this kind."""
    return [part for part in jax.tree.leaves(model, is_leaf=wanted) if wanted(part)]


def _takes_key(model: Any) -> bool:
    parameters = inspect.signature(type(model).__call__).parameters.values()
    return any(p.name == "key" or p.kind is p.VAR_KEYWORD for p in parameters)
