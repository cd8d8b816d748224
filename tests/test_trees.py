"""Trees are flattened and built again as they were, also where one like them was met before."""

from collections import OrderedDict

import numpy as np
import pytest

from polyad import gradient, trees, xp

TREES = [
    {},
    {"a": {}},
    {"a": 1.0, "b": {"c": 2.0, "d": 3.0}},
    {"a": 1.0, "b": {"d": 2.0, "c": 3.0}},
    {"b": {"d": 2.0, "c": 3.0}, "a": 1.0},
    {"a": 1.0, "b": {"c": 2.0, "d": {"f": 3.0, "e": 4.0}}},
    {"a": 1.0, "b": {"c": 2.0, "d": {"e": 3.0, "f": 4.0}}},
    {"a": 1.0, "b": {"c": 2.0, "d": None}},
    {"a": 1.0, "b": {"c": 2.0, "d": (3.0, 4.0)}},
    {"a": 1.0, "b": {"c": 2.0, "d": []}},
    {"a": 1.0, "b": OrderedDict(d=2.0, c=3.0)},
    {"a": {"c": 1.0, "d": 2.0}, "b": 3.0},
    {"a": 1.0, "b": (2.0, {"d": 3.0, "c": 4.0})},
    {"a": 1.0, "b": (2.0, {"c": 4.0, "d": 3.0})},
    {2: 1.0, 1: {"c": 2.0, "d": 3.0}},
]


def numbers(tree):
    """All floats in a tree by the text that reaches them, written down without trees.py."""
    if isinstance(tree, dict):
        return {f"[{key!r}]{rest}": x for key, value in tree.items() for rest, x in numbers(value).items()}
    if isinstance(tree, (list, tuple)):
        return {f"[{i}]{rest}": x for i, value in enumerate(tree) for rest, x in numbers(value).items()}
    return {} if tree is None else {"": tree}


@pytest.mark.parametrize("first", range(len(TREES)))
def test_a_tree_comes_back_in_its_order_whatever_was_met_before(first):
    for tree in (*TREES[first:], *TREES[:first], *TREES):  # many of them have the same keys at the top
        leaves, spec = trees.flatten(tree)
        assert repr(trees.unflatten(spec, leaves)) == repr(tree)
        assert dict(zip(trees.names(tree, ""), leaves, strict=True)) == numbers(tree)


def test_what_has_become_a_subtree_is_no_leaf():
    for _ in range(2):
        assert trees.flatten({"w": 1.0, "b": 2.0})[0] == [2.0, 1.0]
        assert trees.flatten({"w": (1.0, 3.0), "b": None})[0] == [1.0, 3.0]
        assert trees.flatten({"w": {"w": 1.0}, "b": 2.0})[0] == [2.0, 1.0]


def test_a_node_that_is_made_known_late_is_one_from_then_on():
    class Pair:
        def __init__(self, a, b):
            self.a, self.b = a, b

    pair = Pair(1.0, 2.0)
    for _ in range(2):
        assert trees.flatten({"pair": pair})[0] == [pair]
    trees.register(Pair, lambda p: ((p.a, p.b), None, ("a", "b")), lambda _, ab: Pair(*ab))
    assert trees.flatten({"pair": pair})[0] == [1.0, 2.0]


def test_gradients_have_the_order_of_their_parameters():
    ab = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
    ba = {"b": np.array([3.0]), "a": np.array([1.0, 2.0])}
    for params in (ab, ba, {"net": ab}, {"net": ba}, {"net": ab}):

        def loss(params):
            p = params.get("net", params)
            return xp.sum(p["a"] ** 2) * xp.sum(p["b"])

        grads = gradient(loss, params)
        inner, given = grads.get("net", grads), params.get("net", params)
        assert list(inner) == list(given)
        np.testing.assert_allclose(inner["a"], 6 * given["a"], rtol=1e-12)  # 2 a b
        np.testing.assert_allclose(inner["b"], [5.0], rtol=1e-12)  # |a|^2
