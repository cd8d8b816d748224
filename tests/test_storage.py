"""save and load: what comes back is what went in, on any backend, and the file is whole or not there."""

import os
import subprocess
import sys

import numpy as np
import pytest

import polyad
from polyad import BatchNorm, Chain, Dense, Dropout, StatefulLayer, load, save, setup, trees
from polyad.errors import ArgumentError, DetachError, PrecisionError
from tests.examples import arrays, difference, host

MODEL = Chain(Dense(3, 4, "tanh"), BatchNorm(4), Dropout(0.3), Dense(4, 2))
X = np.random.Generator(np.random.Philox(9)).normal(size=(6, 3))


def trained(backend):
    """Parameters and a state that has moved."""
    params, state = setup(0, MODEL, backend=backend, dtype="float64")
    net = StatefulLayer(MODEL, params, state)
    net(arrays(backend, X))
    return params, net.state


@pytest.mark.parametrize("other", ["numpy", "jax", "torch"])
def test_a_model_goes_from_one_backend_into_another(tmp_path, backend, other):
    pytest.importorskip(other)
    params, state = trained(backend)
    save(tmp_path / "model.safetensors", params, state)
    again = load(tmp_path / "model.safetensors", backend=other)
    assert trees.names(again, "") == trees.names((params, state), "")
    for a, b in zip(host(again), host((params, state)), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    assert type(again[1]["layer_1"]["mode"]) is type(state["layer_1"]["mode"])
    expected = StatefulLayer(MODEL, params, state)(arrays(backend, X))
    assert difference(StatefulLayer(MODEL, *again)(arrays(other, X)), expected) < 1e-12


def test_every_container_and_leaf_comes_back(tmp_path):
    tree = {
        "a.b": np.float32([1, 2]),
        "a": {"b": np.arange(6).reshape(2, 3).T, "": (), 3: [True, None, 2, 0.1, "é\n"]},
        "a~1b": (np.array(5.0), np.array([True, False]), np.zeros((0, 2))),
        0: {},
        "0": [np.array(7, np.int32), [np.ones(2, np.float32)[::-1]]],
    }
    save(tmp_path / "t", tree, polyad.test_mode(trained("numpy")[1]))
    found, state = load(tmp_path / "t", backend="numpy")
    assert type(state["layer_2"]["mode"]).__name__ == "Test"
    assert trees.names(found, "") == trees.names(tree, "")
    assert trees.flatten(found)[1] == trees.flatten(tree)[1]
    for a, b in zip(trees.leaves(found), trees.leaves(tree), strict=True):
        assert np.array_equal(a, b)
        assert getattr(a, "dtype", type(a)) == getattr(b, "dtype", type(b))


def test_other_tools_read_the_file_by_names_that_a_person_knows(tmp_path):
    from safetensors.numpy import load_file

    params, state = trained("numpy")
    save(tmp_path / "m.safetensors", params, state)
    found = load_file(tmp_path / "m.safetensors")
    assert np.array_equal(found["params.layer_0.weight"], params["layer_0"]["weight"])
    assert found["state.layer_2.count"] == 1


def test_floating_arrays_are_cast_and_integers_are_not(tmp_path, backend):
    save(tmp_path / "m", *trained("numpy"))
    params, state = load(tmp_path / "m", backend=backend, dtype="float32")
    assert {str(leaf.dtype) for leaf in host(params)} == {"float32"}
    assert {str(leaf.dtype) for leaf in host(state["layer_2"])} == {"int32"}


def test_tensors_that_require_a_gradient_are_saved_and_traced_arrays_are_refused(tmp_path):
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    save(tmp_path / "m", {"w": torch.ones(2, requires_grad=True)})
    assert load(tmp_path / "m", backend="torch")[0]["w"].tolist() == [1.0, 1.0]
    with pytest.raises(DetachError):
        jax.jit(lambda w: save(tmp_path / "n", {"w": w}))(np.ones(2))
    assert not (tmp_path / "n").exists()


def test_float64_is_refused_where_jax_would_round_it(tmp_path):
    pytest.importorskip("jax")
    save(tmp_path / "m", {"w": np.array([0.1])})
    code = (
        "import polyad, sys\ntry:\n    polyad.load(sys.argv[1], backend='jax')\nexcept polyad.errors.PrecisionError:\n"
        "    print(polyad.load(sys.argv[1], backend='jax', dtype='float32')[0]['w'].dtype)"
    )
    plain = {**os.environ, "JAX_ENABLE_X64": "0"}
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True, check=True, env=plain
    )
    assert out.stdout.strip() == "float32"
    assert issubclass(PrecisionError, ValueError)


def test_a_file_is_replaced_at_once_or_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "m"
    save(path, {"w": np.ones(2)})

    def broken(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk is full"):
        save(path, {"w": np.zeros(2)})
    assert load(path, backend="numpy")[0]["w"].tolist() == [1.0, 1.0]
    assert os.listdir(tmp_path) == ["m"]


def test_what_a_file_cannot_hold_is_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"params\.w\.0 is a set"):
        save(tmp_path / "m", {"w": [{1}]})
    with pytest.raises(ArgumentError, match=r"params has the key \(1, 2\)"):
        save(tmp_path / "m", {(1, 2): np.ones(1)})
    assert not (tmp_path / "m").exists()


def test_files_of_others_are_refused_by_name(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path / "m")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ArgumentError, match="is no safetensors file"):
        load(tmp_path / "text")
    save_file({"w": np.ones(2)}, tmp_path / "other")
    with pytest.raises(ArgumentError, match="was not written by polyad"):
        load(tmp_path / "other")
    save_file({"w": np.ones(2)}, tmp_path / "later", {"polyad": "9", "format": "9", "structure": "{}"})
    with pytest.raises(ArgumentError, match="in format 9"):
        load(tmp_path / "later")
