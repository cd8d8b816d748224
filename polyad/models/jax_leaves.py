"""Pytrees of JAX as dicts from the dotted name of a leaf to the leaf; keys as numbers."""

from typing import Any

import jax

from polyad.models.adopted import Arguments

__all__ = ["Leaves", "kept", "key_of", "random_state", "strong"]


class Leaves:
    """The structure of a pytree, whose leaves have names such as "layers.0.weight".

    Typed keys of jax.random are taken apart into their numbers, which pass
    through every array library, and put together again.
    """

    def __init__(self, tree: Any) -> None:
        found, self.structure = jax.tree_util.tree_flatten_with_path(tree)
        self.names = [_name(path) for path, _ in found]
        self.keys = {i: jax.random.key_impl(leaf) for i, (_, leaf) in enumerate(found) if _is_key(leaf)}

    def dict(self, tree: Any) -> Arguments:
        """The leaves of a tree of this structure by their names."""
        leaves = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
        return dict(zip(self.names, leaves, strict=True))

    def tree(self, named: Arguments) -> Any:
        """The tree with these leaves."""
        leaves = [named[name] for name in self.names]
        for i, impl in self.keys.items():
            leaves[i] = jax.random.wrap_key_data(leaves[i], impl=impl)
        return jax.tree.unflatten(self.structure, leaves)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def kept(before: Any, after: Any) -> Any:
    """after, as constants of the dtypes that they had before: a state of another type would be compiled again."""
    return jax.tree.map(lambda old, new: jax.lax.stop_gradient(new).astype(old.dtype), before, after)


def strong(tree: Any) -> Any:
    """The arrays with dtypes that are their own, whatever they meet."""
    return kept(tree, tree)


def random_state(seed: int) -> Arguments:
    """The part of a state that random numbers come from: a key, and how many calls have drawn from it."""
    return {"key": jax.random.key_data(jax.random.key(seed)), "count": jax.numpy.uint32(0)}


def key_of(random: Arguments) -> Any:
    """The key of the next call."""
    return jax.random.fold_in(jax.random.wrap_key_data(random["key"]), random["count"])
