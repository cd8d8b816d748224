"""cupy.ndarray over an ndarray.

source  cupy/_core/core.pyx, _kernel.pyx and _routines_indexing.pyx
"""

import threading

import numpy as np

COUNT = 2
"""Devices that there are."""
SCALARS = (bool, int, float, complex, np.generic)
_here = threading.local()


class Device:
    """cupy.cuda.Device: a number, and a `with` block in which it is the current one."""

    def __init__(self, device=None):
        self.id = current() if device is None else int(device)
        if not 0 <= self.id < COUNT:
            raise RuntimeError(f"cudaErrorInvalidDevice: invalid device ordinal {self.id}")

    def __enter__(self):
        _here.stack = [*getattr(_here, "stack", [0]), self.id]
        return self

    def __exit__(self, *error):
        _here.stack = _here.stack[:-1]

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return f"<CUDA Device {self.id}>"


def current():
    """The number of the current device."""
    return getattr(_here, "stack", [0])[-1]


class ndarray:  # noqa: N801  # its name
    """As cupy.ndarray; `held` is what cupy.ndarray has not, the ndarray on the "GPU"."""

    __slots__ = ("_device", "held")
    __array_priority__ = 100
    __hash__ = None
    cupy = None  # the module of the version that is installed

    def __init__(self, held, device=None):
        assert type(held) is np.ndarray
        assert held.dtype.char in "?bhilqBHILQefdFD", f"Unsupported dtype {held.dtype}"
        self.held, self._device = held, current() if device is None else device

    shape = property(lambda self: self.held.shape)
    dtype = property(lambda self: self.held.dtype)
    ndim = property(lambda self: self.held.ndim)
    size = property(lambda self: self.held.size)
    itemsize = property(lambda self: self.held.itemsize)
    nbytes = property(lambda self: self.held.nbytes)
    strides = property(lambda self: self.held.strides)
    device = property(lambda self: Device(self._device))
    T = property(lambda self: ndarray(self.held.T, self._device))
    real = property(lambda self: ndarray(np.asarray(self.held.real), self._device))
    imag = property(lambda self: ndarray(np.asarray(self.held.imag), self._device))

    def get(self, stream=None, order="C", out=None, blocking=True):
        return np.array(self.held, order=order)

    # What becomes of it where NumPy or Python asks.

    def __array__(self, dtype=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        function = getattr(self.cupy, ufunc.__name__, None)
        if method != "__call__" or function is None or not all(_is_known(x) for x in inputs):
            return NotImplemented
        return function(*inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        found = self.cupy
        for name in (*function.__module__.split(".")[1:], function.__name__):
            found = getattr(found, name, None)
        if found is None or not all(issubclass(t, ndarray | np.ndarray) for t in types):
            return NotImplemented
        return found(*args, **kwargs)

    def __dlpack_device__(self):
        return 2, self._device

    def __dlpack__(self, **options):
        raise BufferError("the stand-in has no memory on a GPU")

    def __bool__(self):
        if self.size != 1:
            raise ValueError("The truth value of an array with more than one element is ambiguous.")
        return bool(self.held.reshape(()))

    def __int__(self):
        return int(self.held)

    def __float__(self):
        return float(self.held)

    def __complex__(self):
        return complex(self.held)

    def __len__(self):
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return len(self.held)

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return repr(self.held)

    def __format__(self, spec):
        return format(self.held, spec)

    # Indexing: an int makes a view, anything else that is no slice becomes an array of CuPy first.

    def __getitem__(self, index):
        return ndarray(np.asarray(self.held[_index(index)]), self._device)

    def __setitem__(self, index, value):
        if type(value) is np.ndarray:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        self.held[_index(index)] = value.held if isinstance(value, ndarray) else value

    def take(self, indices, axis=None, out=None):
        indices = indices.held if isinstance(indices, ndarray) else np.asarray(indices)
        return ndarray(np.asarray(self.held.take(indices, axis)), self._device)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        return ndarray(self.held.astype(dtype, order=order, copy=copy), self._device)

    def tolist(self):
        return self.held.tolist()

    def item(self, *args):
        return self.held.item(*args)


def _is_known(x):
    """Whether __array_ufunc__ goes on with it; an ndarray is refused by the function itself."""
    return hasattr(x, "__cuda_array_interface__") or isinstance(x, (ndarray, np.ndarray, *SCALARS))


def _index(index):
    parts = list(index) if isinstance(index, tuple) else [index]
    masks = 0
    for i, part in enumerate(parts):
        if part is None or part is Ellipsis or isinstance(part, slice):
            continue
        if isinstance(part, ndarray):
            parts[i] = part.held
        elif isinstance(part, list | tuple | np.ndarray | bool | np.bool_):
            parts[i] = np.asarray(part) if np.size(part) else np.asarray(part).astype(np.int32)
        else:
            assert np.isscalar(part), f"{type(part)} is no index of CuPy"
            parts[i] = int(part)
        masks += isinstance(parts[i], np.ndarray) and parts[i].dtype == bool
    if masks > 1:
        raise NotImplementedError("CuPy takes one boolean array in an index")
    return tuple(parts)


def _operator(name, symbol):
    def forward(self, other):
        if not isinstance(other, ndarray):
            if _defers(self, other):
                return NotImplemented
            return getattr(np, name)(self, other)
        return getattr(self.cupy, name)(self, other)

    def reflected(self, other):
        return getattr(np, name)(other, self)

    setattr(ndarray, f"__{symbol}__", forward)
    if symbol not in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(ndarray, f"__r{symbol}__", reflected)
        setattr(ndarray, f"__i{symbol}__", _in_place(forward))


def _in_place(forward):
    def change(self, other):
        y = forward(self, other)
        if y is NotImplemented or type(y) is not ndarray:
            raise TypeError(f"Unsupported type {type(other)}")
        self.held[...] = y.held
        return self

    return change


def _defers(x, y):
    try:
        return y.__array_ufunc__ is None
    except AttributeError:
        return x.__array_priority__ < getattr(y, "__array_priority__", 0)


for _name, _symbol in {
    **{"add": "add", "subtract": "sub", "multiply": "mul", "true_divide": "truediv", "floor_divide": "floordiv"},
    **{"remainder": "mod", "power": "pow", "matmul": "matmul", "divmod": "divmod"},
    **{"bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor", "left_shift": "lshift"},
    **{"right_shift": "rshift", "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le"},
    **{"greater": "gt", "greater_equal": "ge"},
}.items():
    _operator(_name, _symbol)
for _name, _symbol in {"negative": "neg", "positive": "pos", "absolute": "abs", "invert": "invert"}.items():
    setattr(ndarray, f"__{_symbol}__", lambda self, _name=_name: getattr(self.cupy, _name)(self))

# Methods that are the function of that name.
_METHODS = (
    *("all", "any", "argmax", "argmin", "argsort", "clip", "conj", "copy", "cumprod", "cumsum", "diagonal", "dot"),
    *("max", "mean", "min", "nonzero", "prod", "ravel", "repeat", "round", "searchsorted", "squeeze", "std", "sum"),
    *("swapaxes", "trace", "var"),
)
for _name in _METHODS:
    setattr(ndarray, _name, lambda self, *args, _name=_name, **kwargs: getattr(self.cupy, _name)(self, *args, **kwargs))


def _reshape(self, *shape, order="C"):
    return ndarray(self.held.reshape(*shape, order=order), self._device)


def _transpose(self, *axes):
    return ndarray(self.held.transpose(*axes), self._device)


ndarray.reshape, ndarray.transpose = _reshape, _transpose
ndarray.flatten = lambda self, order="C": ndarray(self.held.flatten(order), self._device)
ndarray.view = lambda self, dtype=None: ndarray(self.held.view() if dtype is None else self.held.view(dtype))
ndarray.fill = lambda self, value: self.held.fill(value)
