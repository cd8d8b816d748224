"""Keras adopted, on each of its backends that polyad has: tests/keras_program.py in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_a_keras_model(name):
    for package in ("keras", name):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.keras_program", name],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 6, done.stdout


def test_another_backend_of_keras_is_refused():
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    code = "import keras, polyad; polyad.adopt(keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]))"
    env = {**os.environ, "KERAS_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "KERAS_BACKEND=jax or KERAS_BACKEND=torch" in done.stderr
