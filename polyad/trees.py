"""Pytrees, on optree: flatten, rebuild, and name every leaf.

None is an empty tree, as in JAX: it has no leaves and comes back as None.
"""

from collections.abc import Callable, Sequence
from typing import Any

import optree

Tree = Any
TreeSpec = optree.PyTreeSpec

NAMESPACE = "polyad"  # nodes registered here are seen by polyad alone; global ones are seen too
LEAF = optree.treespec_leaf(namespace=NAMESPACE)  # of a tree that is one leaf

__all__ = ["LEAF", "Tree", "TreeSpec", "flatten", "leaves", "map", "names", "register", "unflatten"]


def flatten(tree: Tree) -> tuple[list[Any], TreeSpec]:
    """Leaves of the tree, in order, and what is needed to build it again."""
    return optree.tree_flatten(tree, namespace=NAMESPACE)


def unflatten(spec: TreeSpec, leaves: Sequence[Any]) -> Tree:
    """The tree of this structure with these leaves."""
    return leaves[0] if spec is LEAF else spec.unflatten(leaves)


def leaves(tree: Tree) -> list[Any]:
    """Leaves of the tree, in order."""
    return optree.tree_leaves(tree, namespace=NAMESPACE)


def map(f: Callable[..., Any], tree: Tree, *rest: Tree, is_leaf: Callable[[Any], bool] | None = None) -> Tree:
    """f applied to each leaf, or to the leaves of equal trees at equal places."""
    return optree.tree_map(f, tree, *rest, is_leaf=is_leaf, namespace=NAMESPACE)


def names(tree: Tree, root: str) -> list[str]:
    """What a person would type to reach each leaf: "params['layer_0']['weight']"."""
    return [accessor.codify(root) for accessor in optree.tree_accessors(tree, namespace=NAMESPACE)]


def register(node: type, flatten: Callable[[Any], Any], unflatten: Callable[[Any, Any], Any]) -> None:
    """Make a container known: flatten gives (children, metadata, keys), unflatten takes (metadata, children)."""
    optree.register_pytree_node(node, flatten, unflatten, namespace=NAMESPACE)
