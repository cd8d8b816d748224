"""adopt: a model of torch, Flax, Equinox or Keras as a StatefulLayer; release: the way back."""

import importlib
from typing import Any

from polyad.errors import ArgumentError
from polyad.models.adopted import Adopted
from polyad.stateful import StatefulLayer

__all__ = ["adopt", "release"]

# Where the class of a model comes from, and the file here that knows it. Keras
# stands before torch, whose Module its layers are on the torch backend.
_HOMES = {
    "equinox": "polyad.models.equinox:Equinox",
    "flax.linen": "polyad.models.linen:Linen",
    "flax.nnx": "polyad.models.nnx:NNX",
    "keras": "polyad.models.keras:Keras",
    "torch": "polyad.models.torch_module:TorchModule",
}


def adopt(model: Any, variables: Any = None, **options: Any) -> StatefulLayer:
    """A model of another framework as a StatefulLayer, with its parameters and buffers as dicts of arrays.

    model      a torch.nn.Module, a module of Flax Linen, Flax NNX or Equinox, or a
               built Keras 3 model. It is never changed; its parameters are copied
    variables  what the framework keeps beside the model: the variables of a Linen
               module, the State of an Equinox model
    example    for a Linen module without variables: an input to make them for
    seed       of dropout and other random numbers, a non-negative integer (0)
    train      keyword arguments of the model in training mode, such as
               {"train": True}; found by its signature where they are not given
    test       the same in test mode
    batch      for Equinox: True maps the model over the first axis of its inputs
    returns    net. net.model is the pure (x, params, state) -> (y, state); of x, a
               tuple holds positional and a dict keyword arguments. The state has
               the mode of the model, which train_mode and test_mode change
    raises     ArgumentError where the model is of none of these frameworks, or does
               not have its parameters yet
    """
    adopted = _home(model)(model, variables, **options)
    return StatefulLayer(adopted, *adopted.own())


def release(net: StatefulLayer) -> Any:
    """The framework's own model with the parameters and the state of an adopted one; a copy.

    returns  a module of torch, NNX or Keras; the variables of Linen; the model of
             Equinox, or (model, State) where it was adopted with one
    raises   ArgumentError for a net that was not adopted
    """
    model = getattr(net, "model", None)
    if not isinstance(model, Adopted):
        raise ArgumentError(f"release: {net!r} was not made by polyad.adopt; its parameters are net.params")
    return model.released(net.params, net.state)


def _home(model: Any) -> Any:
    for kind in type(model).__mro__:
        for package, path in _HOMES.items():
            if f"{kind.__module__}.".startswith(f"{package}."):
                module, _, name = path.partition(":")
                return getattr(importlib.import_module(module), name)
    raise ArgumentError(
        f"adopt: {type(model).__name__} is no model of {', '.join(_HOMES)}. A function "
        f"(x, params, state) -> (y, state) needs no adoption: StatefulLayer(f, params, state)"
    )
