"""Operations that a framework does not differentiate, or not in every mode, and what to type instead."""

import glob
from collections.abc import Sequence

from ..gaps import Gap
from ..outcome import Cell

__all__ = ["OPERATION_GAPS"]


def gap(
    backend: str,
    operations: Sequence[str],
    reason: str,
    link: str,
    modes: Sequence[str] = ("*",),
    versions: str = "",
    found: Cell = "raises",
) -> Gap:
    """A Gap of operations by their names."""
    cases = tuple(f"operations/{glob.escape(name)}/{mode}" for name in operations for mode in modes)
    return Gap(backend, versions, cases, reason, link, found)


OPERATION_GAPS: tuple[Gap, ...] = (
    gap(
        "autograd",
        ("x // y * x²", "5 // x * x"),
        "autograd's boxes have no operator //; type xp.floor_divide(x, y)",
        "https://github.com/HIPS/autograd/blob/master/autograd/numpy/numpy_boxes.py",
    ),
    gap(
        "autograd",
        ("+x",),
        "autograd's boxes have no unary +; type xp.positive(x), or x",
        "https://github.com/HIPS/autograd/blob/master/autograd/numpy/numpy_boxes.py",
    ),
    gap(
        "autograd",
        ("x.mT",),
        "autograd's boxes have no attribute mT; type xp.matrix_transpose(x)",
        "https://github.com/HIPS/autograd/blob/master/autograd/numpy/numpy_boxes.py",
    ),
    gap(
        "torch",
        ("x // y * x²", "5 // x * x"),
        "torch has no derivative of the operator //; type xp.floor_divide(x, y)",
        "https://github.com/pytorch/pytorch/issues/43327",
    ),
    gap(
        "torch",
        ("5 % x",),
        "torch has no derivative of a number % a tensor; type xp.remainder(5.0, x)",
        "https://github.com/pytorch/pytorch/blob/main/tools/autograd/derivatives.yaml",
    ),
    gap(
        "torch",
        ("x[1:, ::-1]", "x[::-2]", "x[0, ..., ::-1]"),
        "torch has no slices with a negative step; type xp.flip(x, axis=...)",
        "https://github.com/pytorch/pytorch/blob/main/torch/csrc/autograd/python_variable_indexing.cpp",
    ),
)
