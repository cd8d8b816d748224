"""Keras 3, on its torch and JAX backends."""

import contextlib
import copy
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from polyad import trees
from polyad.arrays import dtype_name, stop_gradient
from polyad.errors import ArgumentError
from polyad.layers.layer import Train, Tree
from polyad.models.adopted import Adopted, Arguments, refuse_options, same

__all__ = ["Keras"]


class Keras(Adopted):
    """A built Keras model or layer.

    params  its trainable variables by their paths, such as "dense/kernel"
    state   the other variables, those of BatchNormalization and of seed generators
            among them; on torch, whose dropout asks no seed generator, the seed and
            count of random numbers; the mode, which is the argument training=
    source  Layer.stateless_call
    """

    def __init__(
        self,
        model: Any,
        variables: None = None,
        *,
        seed: int = 0,
        train: Arguments | None = None,
        test: Arguments | None = None,
    ) -> None:
        refuse_options("Keras", variables=variables)
        self.backend = keras.backend.backend()
        if self.backend not in ("jax", "torch"):
            raise ArgumentError(
                f"adopt: Keras runs on {self.backend} here. Set KERAS_BACKEND=jax or KERAS_BACKEND=torch in the "
                f"environment before it is imported"
            )
        if not model.built:
            raise ArgumentError(
                f"adopt: {model.name!r} has no parameters yet; call model(x) once, or model.build(shape)"
            )
        super().__init__(model, {"training": True, **(train or {})}, {"training": False, **(test or {})})
        self.seed = seed
        self.names = _names(model, model.trainable_variables), _names(model, model.non_trainable_variables)

    def own(self) -> tuple[Tree, Tree]:
        variables = self.source.trainable_variables, self.source.non_trainable_variables
        params, rest = (
            dict(zip(names, map(_copy, group), strict=True)) for names, group in zip(self.names, variables, strict=True)
        )
        state = {"variables": rest, "mode": Train()}
        if self.backend == "torch":
            from polyad.models.torch_functions import random_state

            state["random"] = random_state(self.seed)
        return params, state

    def run(self, args: tuple[Any, ...], kwargs: Arguments, params: Tree, state: Tree, training: bool) -> Any:
        before, moved = state["variables"], {}
        groups = zip(self.names, (params, before), strict=True)
        given = [[values[name] for name in names] for names, values in groups]
        double = any(dtype_name(p.dtype) == "float64" for p in given[0])
        with self._inside(state) as inside, in_double() if double else contextlib.nullcontext():
            y, after = self.source.stateless_call(*given, *args, **kwargs)
        after = dict(zip(self.names[1], after, strict=True))
        if not same(before, after):
            moved["variables"] = trees.map(stop_gradient, after)
        if inside is not None and inside.drew:
            moved["random"] = inside.random_state_after()
        return y, moved

    def _inside(self, state: Tree) -> Any:
        """What a call runs in: on torch, norms in primitives and random numbers by a seed."""
        if self.backend != "torch":
            return contextlib.nullcontext()
        from polyad.models.torch_functions import Inside

        return Inside(state["random"])

    def released(self, params: Tree, state: Tree) -> Any:
        """A copy of the model with these variables."""
        model = copy.deepcopy(self.source)
        groups = (model.trainable_variables, params), (model.non_trainable_variables, state["variables"])
        for names, (variables, values) in zip(self.names, groups, strict=True):
            for name, variable in zip(names, variables, strict=True):
                variable.assign(values[name])
        return model


_ROUNDED = keras.src.backend.common.dtypes.BIT64_TO_BIT32_DTYPE
_lock, _running = threading.Lock(), [0]


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """A block in which Keras computes in float64 what is float64.

    On JAX and torch most of its layers take float64 for float32 (Keras 3.15), whatever
    floatx is: the error of 1e-7 hides what a second derivative is compared with.
    """
    with _lock:
        _running[0] += 1
        _ROUNDED["float64"] = "float64"
    try:
        yield
    finally:
        with _lock:
            _running[0] -= 1
            if not _running[0]:
                _ROUNDED["float64"] = "float32"


def _names(model: Any, variables: Sequence[Any]) -> list[str]:
    """Paths of variables inside of the model, with a number behind where one occurs twice."""
    seen: dict[str, int] = {}
    names = []
    for variable in variables:
        path = variable.path.removeprefix(f"{model.name}/")
        seen[path] = n = seen.get(path, 0) + 1
        names.append(path if n == 1 else f"{path}:{n}")
    return names


def _copy(variable: Any) -> Any:
    value = variable.value
    return value.detach().clone() if hasattr(value, "detach") else value
