"""summary and outline: what they print, and what they count."""

import io

import numpy as np
import pytest

import polyad
from polyad import BatchNorm, Branch, Chain, Conv, Dense, Dropout, Embedding, Flatten, MaxPool, outline, setup, summary
from polyad.errors import ArgumentError
from tests.examples import host

MODEL = Chain(Conv(1, 4, (3, 3), "relu"), BatchNorm(4), MaxPool((2, 2)), Flatten(), Dropout(0.2), Dense(36, 10))


def test_a_summary_has_a_line_for_each_layer_and_the_totals(backend, capsys):
    params, state = setup(0, MODEL, backend=backend, dtype="float64")
    found = summary(MODEL, params, state, input_shape=(2, 8, 8, 1))
    assert (
        str(found)
        == capsys.readouterr().out.rstrip("\n")
        == """\
place      layer                       output        dtype    parameters  state
-------------------------------------------------------------------------------
model      Chain                       (2, 10)
  layer_0  Conv(1, 4, (3, 3), 'relu')  (2, 6, 6, 4)  float64          40
  layer_1  BatchNorm(4)                (2, 6, 6, 4)  float64           8      8
  layer_2  MaxPool((2, 2))             (2, 3, 3, 4)
  layer_3  Flatten()                   (2, 36)
  layer_4  Dropout(0.2)                (2, 36)                                3
  layer_5  Dense(36, 10)               (2, 10)       float64         370
-------------------------------------------------------------------------------
total                                                float64         418     11"""
    )
    assert sum(leaf.size for leaf in host(params)) == 418


def test_a_summary_needs_the_model_alone(capsys):
    found = summary(Chain(Branch(Dense(2, 3), Chain(Dense(2, 1), "tanh"), join="concat"), Dense(4, 1)))
    assert [row[0].strip() for row in found.rows] == [
        *("model", "layer_0", "layer_0", "layer_1", "layer_0", "layer_1", "layer_1"),
    ]
    assert "output" not in str(found)
    assert found.totals[1] == "17"


def test_an_array_stands_for_an_input_of_integers(capsys):
    assert summary(Embedding(5, 3), input_shape=np.zeros((2, 7), int)).rows[0][2] == "(2, 7, 3)"


def test_of_an_array_the_shape_is_looked_at_and_no_entry(capsys):
    torch = pytest.importorskip("torch")
    model = Dense(3, 2)
    for x in (torch.ones((5, 3), requires_grad=True), torch.ones((5, 3), device="meta", dtype=torch.bfloat16)):
        assert "(5, 2)" in str(summary(model, input_shape=x))


def test_on_a_terminal_a_summary_is_a_table_that_rich_draws(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    found = summary(Chain(Dense(2, 3, "tanh")))
    assert "──" in out.getvalue()
    assert "Dense(2, 3, 'tanh')" in out.getvalue()
    assert "──" not in str(found)


def test_only_layers_have_a_summary():
    with pytest.raises(ArgumentError, match="is no polyad layer"):
        summary(np.tanh)


def test_an_outline_shows_every_leaf_of_a_tree_and_counts(backend):
    params, state = setup(0, Chain(Dense(2, 4), Dropout(0.5)), backend=backend, dtype="float32")
    assert (
        str(outline((params, {**state, "note": "x"}), "model"))
        == """\
model: 4 arrays, 15 numbers, 60 bytes
├── 0                                12
│   ├── layer_0                      12
│   │   ├── weight  float32  (2, 4)   8
│   │   └── bias    float32  (4,)     4
│   └── layer_1  (empty)
└── 1                                 3
    ├── layer_0  (empty)
    ├── layer_1                       3
    │   ├── key     int32    (2,)     2
    │   ├── count   int32    ()       1
    │   └── mode  Train
    └── note  'x'"""
    )
    assert str(outline(params["layer_0"]["bias"])).split()[1:] == ["float32", "(4,)", "4"]


def test_sizes_are_in_a_unit_that_fits():
    assert "8 MiB" in str(outline({"w": np.zeros((1024, 1024))}))
    assert "1.5 KiB" in str(outline({"w": np.zeros(192)}))


def test_long_models_print_over_several_lines():
    text = repr(Chain(*[Dense(16, 16, "tanh") for _ in range(3)], Chain(*[Dense(16, 16, "gelu") for _ in range(5)])))
    assert text.splitlines()[0] == "Chain("
    assert text.splitlines()[4:7] == ["    Chain(", "        Dense(16, 16, 'gelu'),", "        Dense(16, 16, 'gelu'),"]
    assert text.splitlines()[-2:] == ["    ),", ")"]
    assert eval(text, vars(polyad)).layers[3].layers[4].outputs == 16
