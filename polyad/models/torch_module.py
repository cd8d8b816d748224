"""torch.nn.Module."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.func import functional_call

from polyad.errors import ArgumentError
from polyad.layers.layer import Test, Train, Tree
from polyad.models.adopted import Adopted, Arguments, refuse_options
from polyad.models.torch_functions import Inside, random_state

__all__ = ["TorchModule"]


class TorchModule(Adopted):
    """A torch.nn.Module.

    params  its parameters that require a gradient, by their names in state_dict()
    state   buffers and frozen parameters by name; seed and count of its random
            numbers; the mode
    source  torch.func.functional_call, on copies of the module without tensors of their own
    """

    backend = "torch"

    def __init__(
        self,
        module: torch.nn.Module,
        variables: None = None,
        *,
        seed: int = 0,
        train: Arguments | None = None,
        test: Arguments | None = None,
    ) -> None:
        refuse_options("torch", variables=variables)
        module = getattr(module, "_orig_mod", module)  # torch.compile has no second derivative
        if any(map(torch.nn.parameter.is_lazy, (*module.parameters(), *module.buffers()))):
            raise ArgumentError(f"adopt: {type(module).__name__} has lazy parameters; call module(x) once before")
        super().__init__(module, train, test)
        self.seed = seed
        self.tied = _tied(module)
        # In training mode parts that are frozen in a training module stay so.
        self.flags = [part.training or not module.training for part in module.modules()]
        self._copies = Copies(module, self.flags)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _copies=Copies(state["source"], state["flags"]))

    def own(self) -> tuple[Tree, Tree]:
        tensors = dict(self.source.named_parameters())
        params = {name: p.detach().clone() for name, p in tensors.items() if p.requires_grad}
        buffers = {name: p.detach().clone() for name, p in tensors.items() if not p.requires_grad}
        buffers |= {name: b.detach().clone() for name, b in self.source.named_buffers()}
        mode = Train() if self.source.training else Test()
        return params, {"buffers": buffers, "random": random_state(self.seed), "mode": mode}

    def run(self, args: tuple[Any, ...], kwargs: Arguments, params: Tree, state: Tree, training: bool) -> Any:
        with Inside(state["random"]) as inside, self._copies.one(training) as module:
            # A module may write to its buffers: to these copies of them.
            buffers = {name: buffer.clone() for name, buffer in state["buffers"].items()}
            versions = {name: buffer._version for name, buffer in buffers.items()}
            given = {**params, **buffers}
            given.update({alias: given[name] for alias, name in self.tied.items()})
            y = functional_call(module, given, args, kwargs, tie_weights=False)
            after = {name: inside.moved.get(id(buffer), given[name]) for name, buffer in buffers.items()}
        moved: dict[str, Any] = {}
        if any(new is not buffers[name] or new._version != versions[name] for name, new in after.items()):
            moved["buffers"] = {name: new.detach() for name, new in after.items()}
        if inside.drew:
            moved["random"] = inside.random_state_after()
        return y, moved

    def released(self, params: Tree, state: Tree) -> torch.nn.Module:
        """A copy of the module with these tensors, in this mode."""
        module = copy.deepcopy(self.source)
        _set_mode(module, self.flags, training=not isinstance(state["mode"], Test))
        tensors = {**params, **state["buffers"]}
        with torch.no_grad():
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                tensor.copy_(tensors[name])
        return module


class Copies:
    """Copies of a module that share its tensors, one for each call that is running.

    functional_call puts tensors into the module while it runs. Two threads, or a
    call inside of a call, must not do this to one module, and the user's own one
    stays untouched. What forward() sets on a copy is taken away after the call, so
    that the next one finds the module as it was.
    """

    def __init__(self, module: torch.nn.Module, flags: list[bool]) -> None:
        self.module, self.flags = module, flags
        self._free: dict[bool, list[Any]] = {True: [], False: []}
        with self.one(module.training):
            pass  # an error for a module that cannot be copied comes at once

    @contextmanager
    def one(self, training: bool) -> Iterator[torch.nn.Module]:
        """A copy in this mode."""
        try:
            module, parts = self._free[training].pop()
        except IndexError:
            module, parts = self._made(training)
        yield module  # after an exception the copy is not used again
        for part, known in parts:
            part.__dict__.clear()
            part.__dict__.update(known)
        self._free[training].append((module, parts))

    def _made(self, training: bool) -> Any:
        tensors = (*self.module.parameters(), *self.module.buffers())
        try:
            module = copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors})
        except Exception as error:
            raise ArgumentError(
                f"adopt: {type(self.module).__name__} cannot be copied ({type(error).__name__}: {error}). "
                f"copy.deepcopy(module) must work: keep locks, open files and tensors with a graph out of it"
            ) from error
        _set_mode(module, self.flags, training)
        return module, [(part, dict(part.__dict__)) for part in module.modules()]


def _set_mode(module: torch.nn.Module, flags: list[bool], training: bool) -> None:
    """module.eval(), or these flags of its parts."""
    for part, flag in zip(module.modules(), flags, strict=True):
        part.training = training and flag


def _tied(module: torch.nn.Module) -> dict[str, str]:
    """The first name of each tensor, by its other ones."""
    first: dict[int, str] = {}
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: first[id(x)] for name, x in named if first.setdefault(id(x), name) != name}
