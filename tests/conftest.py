"""Every test sees float64 on JAX, the default backend as it was, and each installed backend."""

import os
import tempfile

os.environ["JAX_ENABLE_X64"] = "1"  # before anything imports jax
os.environ["POLYAD_TORCH_COMPILER"] = "graph"  # inductor takes seconds a function: test_compile.py asks for it
# What somebody has tuned on this machine is not what is tested.
os.environ["POLYAD_CACHE"] = os.path.join(tempfile.gettempdir(), f"polyad-tests-{os.getpid()}")

import importlib.util

import pytest

import polyad


@pytest.fixture(params=["numpy", "autograd", "jax", "torch"])
def backend(request):
    """The name of each backend; skipped with a reason where it is not installed."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(autouse=True)
def _default_backend(monkeypatch):
    """A test may call set_backend without a trace."""
    monkeypatch.setattr(polyad.backends, "_default", None)
    monkeypatch.delenv("POLYAD_BACKEND", raising=False)


@pytest.fixture
def registry(monkeypatch):
    """polyad.backends, with a registry of its own: what a test registers is gone after it."""
    for name in ("_entries", "_loaded", "_owners"):
        monkeypatch.setattr(polyad.backends, name, dict(getattr(polyad.backends, name)))
    return polyad.backends
