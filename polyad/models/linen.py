"""Flax Linen."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen

from polyad.errors import ArgumentError
from polyad.layers.layer import Train, Tree
from polyad.models.adopted import Adopted, Arguments, inputs, mode_arguments, same
from polyad.models.jax_leaves import kept, key_of, random_state

__all__ = ["Linen"]


class Linen(Adopted):
    """A flax.linen.Module with its variables.

    params  the collection "params"
    state   the other collections, such as batch_stats; key and count of the random
            numbers, which dropout and the like get in training mode; the mode
    source  Module.apply
    """

    backend = "jax"

    def __init__(
        self,
        module: linen.Module,
        variables: Any = None,
        *,
        example: Any = None,
        seed: int = 0,
        rngs: tuple[str, ...] = ("dropout",),
        train: Arguments | None = None,
        test: Arguments | None = None,
    ) -> None:
        super().__init__(module, *mode_arguments(type(module).__call__, train, test))
        self.seed, self.rngs = seed, rngs
        if variables is None and example is None:
            raise ArgumentError(
                f"adopt: {type(module).__name__} is a module of Linen, which holds no parameters. Type "
                f"adopt(module, variables), or adopt(module, example=x) to make them for inputs such as x"
            )
        if variables is None:
            args, kwargs = inputs(example)
            variables = module.init(jax.random.key(seed), *args, **{**self.options[False], **kwargs})
        self.variables = _plain(linen.meta.unbox(variables))

    def own(self) -> tuple[Tree, Tree]:
        rest = {name: collection for name, collection in self.variables.items() if name != "params"}
        state = {"variables": rest, "random": random_state(self.seed), "mode": Train()}
        return self.variables.get("params", {}), state

    def run(self, args: tuple[Any, ...], kwargs: Arguments, params: Tree, state: Tree, training: bool) -> Any:
        rest, random, options = state["variables"], state["random"], kwargs
        if training and self.rngs:
            keys = jax.random.split(key_of(random), len(self.rngs))
            options = {"rngs": dict(zip(self.rngs, keys, strict=True)), **kwargs}
        y = self.source.apply({"params": params, **rest}, *args, mutable=list(rest) or False, **options)
        y, after = y if rest else (y, {})
        moved: dict[str, Any] = {}
        if not same(rest, after := {**rest, **_plain(after)}):
            moved["variables"] = kept(rest, after)
        if training and self.rngs:
            moved["random"] = {**random, "count": random["count"] + 1}
        return y, moved

    def released(self, params: Tree, state: Tree) -> Any:
        """The variables."""
        return {"params": params, **state["variables"]}


def _plain(tree: Any) -> Any:
    """Mappings as dicts."""
    return {key: _plain(part) for key, part in tree.items()} if isinstance(tree, Mapping) else tree
