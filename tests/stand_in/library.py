"""The modules of CuPy, by name: cupy, cupy.linalg, cupy.fft, cupy.cuda, cupyx.scipy.special."""

import contextlib
import importlib
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from polyad import backends
from tests.stand_in.array import COUNT, Device, ndarray
from tests.stand_in.functions import TAKES_ANYTHING, function, parameters, plain, ufunc, wrapped

HERE = Path(__file__).parent
VERSIONS = tuple(sorted(path.stem.removeprefix("cupy-") for path in HERE.glob("cupy-*.txt")))


def names(version):
    """{"cupy": {name: what it is}, "linalg": ..., "fft": ..., "ndarray": ...} of this version."""
    found = {}
    for line in (HERE / f"cupy-{version}.txt").read_text().splitlines():
        if line.startswith("["):
            part = found[line.strip("[]")] = {}
            continue
        end = min(i for i in (line.find("("), line.find(" ")) if i > 0)
        part[line[:end]] = line[end:].strip()
    return found


class CUDARuntimeError(RuntimeError):
    """What a call of CUDA raises."""


def module(name, doc="", **members):
    made = ModuleType(name, doc)
    vars(made).update(members)
    return made


def library(version):
    """All modules by their names."""
    found = names(version)
    cupy = module("cupy", __version__=version)
    linalg, fft = (module(f"cupy.{name}") for name in ("linalg", "fft"))
    for made, part, source in ((cupy, "cupy", np), (linalg, "linalg", np.linalg), (fft, "fft", np.fft)):
        vars(made).update({name: _member(name, what, version, source) for name, what in found[part].items()})
    vars(cupy).update({name: f for name, f in TAKES_ANYTHING.items() if name in found["cupy"]})
    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: COUNT,
        getDeviceProperties=lambda i: {"name": b"stand-in for a GPU"},
    )
    stream = SimpleNamespace(synchronize=lambda: None)
    device = module("cupy.cuda.device", Device=Device)
    cuda = module("cupy.cuda", Device=Device, device=device, runtime=runtime, get_current_stream=lambda: stream)
    vars(cupy).update(ndarray=ndarray, linalg=linalg, fft=fft, cuda=cuda, ufunc=ufunc, newaxis=None)
    special = module("cupyx.scipy.special", erf=_erf(version))
    scipy = module("cupyx.scipy", special=special)
    made = (cupy, linalg, fft, cuda, device, module("cupyx", scipy=scipy), scipy, special)
    return {m.__name__: m for m in made}


def _member(name, what, version, source):
    if what.startswith("ufunc"):
        return ufunc(name, int(what.split()[1]), version)
    if what.startswith("("):
        return function(name, parameters(what), version, source)
    if what == "function":
        return function(name, None, version, source)
    return getattr(source, name, None)  # types and values


def _erf(version):
    erf = np.vectorize(math.erf, otypes=[float])

    def call(x):
        x = plain(x, version)
        return wrapped(erf(x).astype(x.dtype))

    return call


@contextlib.contextmanager
def installed(version):
    """A block in which `import cupy` gives the stand-in, and polyad's backend "cupy" runs on it."""
    ours = ("array_api_compat.cupy", "polyad.backends.cupy", "cupy", "cupyx")
    before = {name: m for name, m in sys.modules.items() if name.startswith(ours)}
    for name in before:
        del sys.modules[name]
    made = library(version)
    sys.modules.update(made)
    ndarray.cupy = made["cupy"]
    _forget()
    try:
        yield made["cupy"]
    finally:
        for name in [name for name in sys.modules if name.startswith(ours)]:
            del sys.modules[name]
        sys.modules.update(before)
        importlib.invalidate_caches()
        _forget()


def _forget():
    """polyad keeps adapters, and whose array is of which type."""
    backends._loaded.pop("cupy", None)
    backends._owners.clear()
    backends.ways.clear()
