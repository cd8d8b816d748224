"""The functions of CuPy, computed by NumPy.

Arguments are bound to the parameters that CuPy has, must be its arrays or numbers, and must lie
on the current device; each result is an array of CuPy, that of a reduction too.

source  cupy/_core/_kernel.pyx, cupy/linalg, cupy/_sorting, cupy/_indexing
"""

import inspect

import numpy as np

from tests.stand_in.array import SCALARS, current, ndarray

# Names that NumPy 2 lacks, or has in another way.
_NUMPY = {"product": np.prod, "bool": np.bool_, "float_": np.float64, "alltrue": np.all, "sometrue": np.any}


class ufunc:  # noqa: N801  # its name
    """An elementwise function: anything but an array of CuPy or a number raises."""

    def __init__(self, name, nin, version):
        self.__name__, self.nin, self._version = f"cupy_{name}", nin, version
        self._compute = getattr(np, name)

    def __call__(self, *args, **options):
        if len(args) != self.nin or not options.keys() <= {"out", "dtype", "casting"}:
            raise TypeError(f"Wrong arguments for {self.__name__!r}")
        for x in args:
            if isinstance(x, list | tuple | str) or x is None:
                raise TypeError(f"Unsupported type {type(x)}")
        return wrapped(self._compute(*(plain(x, self._version) for x in args), **options))


def function(name, signature, version, module=np):
    """The function of this name, with these parameters; of NumPy, or what stands for it below."""
    compute = _OWN.get((module.__name__, name)) or getattr(module, name, None) or _NUMPY.get(name)

    def call(*args, **kwargs):
        if signature is not None:
            signature.bind(*args, **kwargs)
        if compute is None:
            raise NotImplementedError(f"the stand-in has no cupy.{name}")
        args = [plain(x, version) for x in args]
        return wrapped(compute(*args, **{key: plain(x, version) for key, x in kwargs.items()}))

    call.__name__ = call.__qualname__ = name
    return call


def parameters(text):
    """The signature that "(a, axis=0)" says."""
    scope = {}
    exec(f"def f{text}: pass", scope)
    return inspect.signature(scope["f"])


def plain(x, version):
    """What NumPy gets for an argument. TypeError for what CuPy does not take."""
    if isinstance(x, ndarray):
        if x._device != current():
            raise ValueError(
                f"Array device must be same as the current device: array device = {x._device} "
                f"while current = {current()}"
            )
        return x.held
    if isinstance(x, list | tuple):
        return type(x)(plain(part, version) for part in x)
    if isinstance(x, np.generic) and version.startswith("13"):
        return x.item()  # its numbers count as Python's: the rules of NumPy 1
    if x is None or isinstance(x, (*SCALARS, str, slice, range, type, np.dtype)) or x is Ellipsis:
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def wrapped(y):
    """What CuPy gives where NumPy gives this."""
    if isinstance(y, np.ndarray | np.generic):
        return ndarray(np.asarray(y))
    if isinstance(y, list | tuple):
        return type(y)(*map(wrapped, y)) if hasattr(y, "_fields") else type(y)(map(wrapped, y))
    return y


# Into CuPy: the one place for ndarrays and lists.


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, ndarray):
        held = obj.held.astype(dtype or obj.dtype, copy=copy or obj._device != current())
        return obj if held is obj.held else ndarray(held)
    parts = obj if isinstance(obj, list | tuple) else ()
    if parts and all(isinstance(x, ndarray) for x in parts) and len({x.shape for x in parts}) == 1:
        return ndarray(np.stack([x.held for x in parts]).astype(dtype, copy=False) if dtype else np.stack(
            [x.held for x in parts]))  # fmt: skip
    held = np.array(obj, dtype=dtype, ndmin=ndmin)  # asks a jet, and an array of CuPy in a list, for __array__
    if held.dtype.char not in "?bhilqBHILQefdFD":
        raise ValueError(f"Unsupported dtype {held.dtype}")
    return ndarray(held)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy=bool(copy))


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


# What CuPy refuses and NumPy does not.


def where(condition, x=None, y=None):
    if not isinstance(condition, np.ndarray):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    return np.nonzero(condition) if x is None and y is None else np.where(condition, x, y)


def clip(a, a_min=None, a_max=None, out=None):
    if a_min is None and a_max is None:
        raise ValueError("array_clip: must set either max or min")
    return np.clip(a, a_min, a_max)


def repeat(a, repeats, axis=None):
    if isinstance(repeats, np.ndarray):
        raise ValueError("cupy.ndaray cannot be specified as `repeats` argument.")
    return np.repeat(a, repeats, axis)


def take_along_axis(a, indices, axis):
    if indices.ndim != a.ndim:
        raise ValueError("`indices` and `a` must have the same number of dimensions")
    return np.take_along_axis(a, indices, axis)


def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    if not all(isinstance(x, np.ndarray) for x in tup):
        raise TypeError("Only cupy arrays can be concatenated")
    return np.concatenate(tup, axis, dtype=dtype, casting=casting)


def solve(a, b):
    _matrices(a)
    if not isinstance(b, np.ndarray):
        raise np.linalg.LinAlgError("cupy.linalg only supports cupy.ndarray")
    if b.ndim == 1:
        b = np.broadcast_to(b, a.shape[:-1])
        return np.linalg.solve(a, b[..., None])[..., 0]
    if a.shape[:-1] != b.shape[:-1]:
        raise ValueError("a must have (..., M, M) shape and b must have (..., M, K) for multidimensional b")
    return np.linalg.solve(a, b)


def tensordot(a, b, axes=2):
    if not a.ndim or not b.ndim:
        if axes not in (0, ((), ())):
            raise ValueError("An input is zero-dim while axes has dimensions")
        return a * b
    return np.tensordot(a, b, axes)


def _matrices(*arrays):
    for a in arrays:
        if not isinstance(a, np.ndarray):
            raise np.linalg.LinAlgError("cupy.linalg only supports cupy.ndarray")


def pinv(a, rcond=1e-15):
    _matrices(a)
    return np.linalg.pinv(a, rcond)


def matrix_rank(M, tol=None):
    return np.linalg.matrix_rank(M, tol)


_OWN = {
    ("numpy", "clip"): clip,
    ("numpy", "concat"): concatenate,
    ("numpy", "concatenate"): concatenate,
    ("numpy", "repeat"): repeat,
    ("numpy", "take_along_axis"): take_along_axis,
    ("numpy", "tensordot"): tensordot,
    ("numpy", "where"): where,
    ("numpy.linalg", "matrix_rank"): matrix_rank,
    ("numpy.linalg", "pinv"): pinv,
    ("numpy.linalg", "solve"): solve,
}
TAKES_ANYTHING = {"array": array, "asanyarray": asarray, "asarray": asarray, "asnumpy": asnumpy}
