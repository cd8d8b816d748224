"""compare: which backends agree on a loss, which do not and in which leaf, and which line stops one."""

import json
import math
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from polyad_conformance.broken import broken, standing_in

import polyad
from polyad import Chain, Dense, StatefulLayer, adopt, compare, errors, gradient, jacobian, setup, xp
from polyad.cli import main
from polyad.comparison import measurement
from polyad.comparison.agreement import gap
from polyad.comparison.slopes import slope_errors
from polyad.comparison.stop import line_of

X = np.linspace(-1.0, 1.0, 12).reshape(4, 3)
SOURCE = Path(__file__).read_text().splitlines()
LINES = {line.split("# ")[1].strip(): i for i, line in enumerate(SOURCE, 1) if "# stops" in line}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Timings of two calls each; no search for garbage, which takes half a second beside JAX and torch."""
    monkeypatch.setattr(measurement, "FEWEST", 2)
    monkeypatch.setattr(measurement, "LONG", 0.0)
    monkeypatch.setattr("polyad.comparison.measurement.gc.collect", lambda: 0)


@pytest.fixture
def frameworks():
    """All four are installed."""
    for name in ("autograd", "jax", "torch"):
        pytest.importorskip(name)


def row(comparison, backend):
    return next(row for row in comparison.rows if row.backend == backend)


def quartic(x):
    return xp.sum(gradient(lambda x: xp.sum(x**3), x) ** 2)  # the sum of 9 x^4


# Agreement.


@pytest.mark.usefixtures("frameworks")
def test_four_backends_agree_on_a_loss_with_a_derivative_inside():
    found = compare(quartic, X, compiled=False)
    assert found.agree
    found.raise_if_different()
    assert [(r.backend, r.status) for r in found.rows] == [(n, "ok") for n in ("numpy", "autograd", "jax", "torch")]
    for r in found.rows:
        assert r.value == pytest.approx(9 * np.sum(X**4), rel=1e-14)
        assert set(r.differences) == {"value", "x"}
        assert r.difference < 1e-13
        assert 0 < r.check < 1e-6
        assert r.eager.low <= r.eager.median <= r.eager.high
        assert r.eager.runs >= 1
        assert r.memory is None or r.memory >= 0
    assert found.verdict.startswith("numpy, autograd, jax and torch agree within ")


def test_the_compiled_gradient_is_timed_where_there_is_a_compiler():
    pytest.importorskip("jax")
    found = compare(quartic, X, backends=["numpy", "jax"])
    assert found.agree
    assert row(found, "numpy").compiled is None
    assert row(found, "jax").compiled.median < row(found, "jax").eager.median
    assert row(found, "jax").compiled.first > row(found, "jax").compiled.median  # it compiles


def model_and_arguments(backend):
    model = Chain(Dense(3, 2, "tanh"))
    return model, *setup(0, model, backend=backend, dtype="float32")


def penalised(net, batch, n):
    J = jacobian(net, batch["x"])
    return xp.sum((net(batch["x"]) - batch["y"]) ** 2) / n + xp.sum(J**2)


@pytest.mark.usefixtures("frameworks")
def test_a_net_of_one_backend_is_compared_on_all_in_float64():
    net = StatefulLayer(*model_and_arguments("torch"))
    batch = {"x": X, "y": polyad.convert(X[:, :2], "jax"), "name": "four points"}
    found = compare(penalised, net, batch, 4, compiled=False)
    assert found.agree
    assert found.precision == "float64"
    assert found.leaves["net.params['layer_0']['weight']"] == (3, 2)
    assert {"batch['x']", "batch['y']"} < set(found.leaves)
    assert "n" not in found.leaves
    assert all(r.value == pytest.approx(found.rows[0].value, rel=1e-13) for r in found.rows)
    assert all(r.difference < 1e-12 for r in found.rows)


def test_argnums_say_what_moves():
    def f(w, x, n):
        return xp.sum(w * x) ** n

    assert list(compare(f, X, X, 2, backends=["numpy"]).leaves) == ["w", "x"]
    assert list(compare(f, X, X, 2, argnums=1, backends=["numpy"]).leaves) == ["x"]
    with pytest.raises(errors.DTypeError, match="n has no floating leaf"):
        compare(f, X, X, 2, argnums=2)
    with pytest.raises(errors.ArgumentError, match=r"argnums=3 with 3 arguments; give positions from 0 to 2"):
        compare(f, X, X, 2, argnums=3)


def test_python_floats_move_and_constants_of_any_kind_do_not():
    def f(a, count, name):
        return a["b"] ** count if name == "power" else xp.sum(a["b"])

    found = compare(f, {"b": 1.5}, 3, "power", backends=["numpy"])
    assert list(found.leaves) == ["a['b']"]
    assert found.rows[0].value == 1.5**3
    assert found.agree


def test_aux_is_dropped_where_it_is_said_to_be_there():
    found = compare(lambda x: (xp.sum(x**2), "aux"), X, has_aux=True, backends=["numpy"])
    assert found.agree


@pytest.mark.usefixtures("frameworks")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_arrays_that_the_loss_makes_have_the_precision_of_the_comparison(dtype):
    import jax
    import torch

    before = torch.get_default_dtype(), jax.config.jax_enable_x64
    seen = {}

    def f(x):
        y = xp.ones(3) / 3
        seen[polyad.backends.current().name] = str(y.dtype).removeprefix("torch.")
        return xp.sum(x * y)

    found = compare(f, X, dtype=dtype, backends=["jax", "torch"], compiled=False)
    assert found.agree
    assert found.precision == dtype
    assert seen == {"jax": dtype, "torch": dtype}
    assert (torch.get_default_dtype(), jax.config.jax_enable_x64) == before


def test_jax_is_compared_in_float64_though_it_is_switched_off_and_stays_so():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(False):
        found = compare(quartic, X, backends=["jax"], compiled=False)
        assert not jax.config.jax_enable_x64
        assert found.rows[0].value == pytest.approx(9 * np.sum(X**4), rel=1e-14)
        kept = compare(quartic, X, backends=["jax"], compiled=False, dtype=None)
        assert "PrecisionError" in kept.rows[0].reason


# Disagreement.


def off(change, shape):
    """An adapter whose gradients of this shape are changed."""
    return lambda adapter: broken(
        adapter, lambda xs, grads: tuple(change(g) if tuple(g.shape) == shape else g for g in grads)
    )


@pytest.mark.usefixtures("frameworks", "registry")
@pytest.mark.parametrize("name", ["autograd", "torch"])
def test_a_wrong_backend_is_named_with_its_worst_leaf(name):
    params = {"w": X.T[:, :2] * 3, "b": np.ones(2)}

    def f(params, x):
        return xp.sum(xp.tanh(x @ params["w"] + params["b"]) ** 2)

    with standing_in(name, off(lambda g: g * (1 + 1e-4), (2,))):
        found = compare(f, params, X, compiled=False)
    wrong = row(found, name)
    assert not found.agree
    assert [r.backend for r in found.rows if r.status == "differs"] == [name]
    assert found.reference != name
    assert wrong.leaf == wrong.check_leaf == "params['b']"
    assert wrong.difference == pytest.approx(1e-4, rel=1e-3)
    assert wrong.check == pytest.approx(1e-4, rel=1e-2)
    assert f"its gradient in params['b'] differs from that of {found.reference} by 1.0e-04" in wrong.reason
    with pytest.raises(errors.DisagreementError, match=f"{name} differs"):
        found.raise_if_different()


@pytest.mark.usefixtures("frameworks", "registry")
def test_of_two_backends_finite_differences_say_which_is_right():
    with standing_in("autograd", off(lambda g: 0 * g, (4, 3))):
        found = compare(quartic, X, backends=["autograd", "torch"], compiled=False)
    assert found.reference == "torch"  # the value is zero there, and so is its slope: nothing is confirmed
    assert [r.status for r in found.rows] == ["differs", "ok"]
    assert row(found, "autograd").check is None
    with standing_in("autograd", off(lambda g: 0 * g, (4, 3))):
        found = compare(lambda x: xp.sum(x**3), X, backends=["autograd", "torch"], compiled=False)
    assert found.reference == "torch"
    assert row(found, "autograd").check == pytest.approx(1.0)


def test_one_wrong_entry_of_a_large_leaf_is_seen_by_finite_differences():
    x, gradient = np.linspace(1, 2, 1000), 2 * np.linspace(1, 2, 1000)
    sound = slope_errors(lambda i, x: float(np.sum(x**2)), [x], [gradient], 1e-6)
    gradient[500] *= 1.01
    wrong = slope_errors(lambda i, x: float(np.sum(x**2)), [x], [gradient], 1e-6)
    assert sound[0] < 1e-7
    assert wrong[0] > 1e-6


def test_a_slope_of_zero_is_not_taken_for_confirmed():
    found = compare(lambda x, y: xp.sum(x**2) + 0 * xp.sum(y), X, X, backends=["numpy"])
    assert found.agree
    assert found.rows[0].checks["y"] is None
    assert "finite differences see no slope in y" in str(found)
    nothing = compare(lambda x: 0 * xp.sum(x) + 3.0, X, backends=["numpy"])
    assert "finite differences see no slope at all" in nothing.verdict


def test_finite_differences_try_shorter_steps_near_a_kink():
    x = np.array([1e-6])  # the first step, 6e-6, goes over the kink
    (error,) = slope_errors(lambda i, x: float(np.abs(x[0])), [x], [np.array([1.0])], 1e-6)
    assert error < 1e-6
    (error,) = slope_errors(lambda i, x: float(np.abs(x[0])), [x], [np.array([-1.0])], 1e-6)
    assert error > 1


@pytest.mark.usefixtures("frameworks")
def test_a_loss_that_draws_random_numbers_differs_and_is_told_so():
    random = np.random.default_rng(0)
    found = compare(lambda x: xp.sum(x**2) * random.uniform(1, 2), X, backends=["autograd", "torch"], compiled=False)
    assert not found.agree
    for r in found.rows:
        assert r.status == "differs"
        assert "changes by" in r.reason
        assert "does <lambda> draw random numbers" in r.reason
    other = row(found, next(n for n in ("autograd", "torch") if n != found.reference))
    assert other.leaf in ("value", "x")
    assert f"differs from that of {found.reference} by" in other.reason


def test_a_constant_made_of_a_tensor_is_found_by_finite_differences():
    pytest.importorskip("torch")

    def f(x):
        return xp.sum(x**2) * x.detach().sum() ** 2

    (r,) = compare(f, X + 1, backends=["torch"], compiled=False).rows
    assert r.status == "differs"
    assert "its gradient in x differs from finite differences" in r.reason


def test_nan_agrees_with_nan_and_with_no_number():
    nan, inf = float("nan"), float("inf")
    assert gap([nan, 1.0], [nan, 1.0]) == 0
    assert gap([nan, 1.0], [2.0, 1.0]) == inf
    assert gap([inf, 1.0], [-inf, 1.0]) == inf
    assert gap([1.0, 2.0], [1.0, 2.5]) == 0.2
    assert gap([1e-20], [2e-20], floor=1e-5) == pytest.approx(1e-15)
    assert gap(np.ones(2), np.ones(3)) == inf


def test_a_gradient_that_is_no_number_is_not_confirmed_and_f_that_is_none_confirms_nothing():
    x = np.array([1.0, 2.0])
    assert slope_errors(lambda i, x: float(np.sum(x**2)), [x], [np.array([np.nan, 4.0])], 1e-6) == [math.inf]
    assert slope_errors(lambda i, x: math.nan, [x], [2 * x], 1e-6) == [None]


def test_a_sum_that_cancels_is_no_wrong_slope():
    x = np.linspace(-1, 1, 12)  # the sum is 1e-16, its terms are 1
    (error,) = slope_errors(lambda i, x: float(np.sum(x / 3)), [x], [np.full(12, 1 / 3)], 1e-6)
    assert error < 1e-6


@pytest.mark.usefixtures("frameworks", "registry")
def test_a_wrong_compiler_is_found():
    from polyad.backends import get

    class Wrong(type(get("jax"))):
        def compile(self, f, *captured):
            program = super().compile(f, *captured)
            return lambda *xs: polyad.trees.map(lambda y: 2 * y, program(*xs))

    with standing_in("jax", lambda adapter: Wrong):
        (r,) = compare(quartic, X, backends=["jax"]).rows
    assert r.status == "differs"
    assert "compiled, its" in r.reason


# Backends that are left out.


def by_torch(x):
    import torch

    y = 2 * x
    return torch.special.erf(y).sum()  # stops the others of torch


def by_jax(x):
    import jax.numpy as jnp

    return jnp.sum(jnp.tanh(x))  # stops the others of jax


@pytest.mark.usefixtures("frameworks")
@pytest.mark.parametrize(("loss", "home", "stopped"), [(by_torch, "torch", "autograd jax"), (by_jax, "jax", "torch")])
def test_a_loss_of_one_framework_runs_there_and_the_line_that_stops_the_others_is_named(loss, home, stopped):
    found = compare(loss, X, compiled=False)
    assert found.agree
    assert row(found, home).status == "ok"
    for name in stopped.split():
        r = row(found, name)
        assert r.status == "left out"
        assert (r.line.file, r.line.number) == (__file__, LINES[f"stops the others of {home}"])
        assert r.line.source.startswith("return ")
        assert "Error: " in r.reason
        assert "\n" not in r.reason
        assert f"{name} is left out at " in str(found)
        assert f"test_compare.py:{r.line.number}: {r.line.source}" in str(found)
    if len(found.ran) == 1:
        assert found.verdict == f"{home} alone ran it, and finite differences confirm the gradient."


@pytest.mark.usefixtures("frameworks")
def test_a_loss_that_asks_torch_for_a_derivative_in_its_argument_runs_on_torch():
    import torch

    def f(x):
        slope = torch.autograd.grad((x**3).sum(), x, create_graph=True)[0]
        return (slope**2).sum()

    found = compare(f, X, compiled=False)
    assert [r.backend for r in found.ran] == ["torch"]
    assert found.agree
    assert row(found, "torch").value == pytest.approx(9 * np.sum(X**4), rel=1e-12)


def test_an_adopted_model_runs_on_its_own_backend_alone():
    torch = pytest.importorskip("torch")
    net = adopt(torch.nn.Linear(3, 2))
    found = compare(lambda net, x: xp.sum(net(x) ** 2), net, X, compiled=False)
    assert found.agree
    assert [r.backend for r in found.ran] == ["torch"]
    assert row(found, "numpy").reason == "adopted Linear runs on torch alone"
    assert "net.params['weight']" in found.leaves


def test_a_module_in_float32_is_told_how_to_keep_the_arguments():
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2)
    x = X.astype(np.float32)

    def f(x):
        return (module(x) ** 2).sum()

    (r,) = compare(f, x, backends=["torch"], compiled=False).rows
    assert r.status == "left out"
    assert "Floating arguments are float64 here; with dtype=None" in r.reason
    assert compare(f, x, backends=["torch"], compiled=False, dtype=None).agree


def test_a_backend_that_is_not_installed_has_a_row_that_says_what_to_type(registry):
    registry.register_backend("absent", "absent.adapter:Absent", module="absent", install="pip install absent")
    found = compare(quartic, X, backends=["numpy", "absent"])
    assert found.agree
    assert row(found, "absent").reason == "it is not installed. Type: pip install absent"


def test_a_backend_that_does_not_load_is_left_out(registry):
    registry.register_backend("broken", "polyad.backends.numpy:Nothing", module="numpy")
    assert "it does not load. AttributeError" in row(compare(quartic, X, backends=["broken"]), "broken").reason


def test_a_device_that_is_not_there_leaves_its_backend_out():
    found = compare(quartic, X, backends=["numpy"], device="gpu")
    assert not found.agree
    assert found.verdict == "No backend ran it."
    assert found.rows[0].reason == "it has no gpu here; its devices are cpu"


def test_forward_mode_alone_is_left_out_of_a_large_gradient_unless_it_was_asked_for(monkeypatch):
    monkeypatch.setattr("polyad.comparison.problem.PATIENCE", 0.05)

    def slow(x):
        time.sleep(0.01)
        return xp.sum(x**2)

    numpy = row(compare(slow, X, compiled=False), "numpy")
    assert numpy.status == "left out"
    assert numpy.reason.startswith("it has forward mode alone, and the gradient of 12 numbers would take it about")
    assert compare(slow, X, compiled=False, backends=["numpy"]).agree


def test_warnings_of_the_loss_are_told_once():
    import warnings

    def f(x):
        warnings.warn("too warm", stacklevel=1)
        return xp.sum(x**2)

    found = compare(f, X, backends=["numpy"])
    assert found.rows[0].notes == ("UserWarning: too warm",)
    assert str(found).count("numpy: UserWarning: too warm") == 1


def test_what_cannot_be_compiled_is_told_with_its_line():
    pytest.importorskip("jax")

    def f(x):
        return xp.sum(x**2) if bool(x[0, 0] < 5) else xp.sum(x)  # stops the compiler

    (r,) = compare(f, X, backends=["jax"]).rows
    assert r.status == "ok"
    assert r.compiled is None
    assert r.notes[0].startswith("not compiled at ")
    assert f":{LINES['stops the compiler']}: return" in r.notes[0]


# Wrong calls.


def test_what_is_no_number_is_refused_with_a_cure():
    def f(x):
        return 2 * x

    with pytest.raises(errors.NotScalarError, match=r"f returned shape \(4, 3\).*xp\.sum\(f\(\*args\) \*\* 2\)"):
        compare(f, X)
    with pytest.raises(errors.NotScalarError, match=r"returned 2 leaves.*has_aux=True"):
        compare(lambda x: (xp.sum(x), x), X)


def test_wrong_arguments_are_refused():
    with pytest.raises(errors.UnknownBackendError, match="Did you mean 'torch'"):
        compare(quartic, X, backends=["troch"])
    with pytest.raises(errors.ArgumentError, match="is 3, not a function"):
        compare(3, X)
    with pytest.raises(errors.ArgumentError, match="dtype='float16'"):
        compare(quartic, X, dtype="float16")
    with pytest.raises(errors.DTypeError, match="no argument has a floating leaf"):
        compare(quartic, 3)


# What comes out.


def test_the_line_is_that_of_the_user_not_of_a_library():
    def f():
        return json.loads("{")  # stops a library

    with pytest.raises(ValueError, match="Expecting") as caught:
        f()
    line = line_of(caught.value)
    assert (line.file, line.number) == (__file__, LINES["stops a library"])


def test_memory_is_that_of_the_arrays_of_the_call():
    if sys.platform != "linux":
        pytest.skip("the peak of the resident memory is told by Linux alone")
    measurement.memory(lambda: np.ones(2_000_000).sum())
    found = measurement.memory(lambda: np.ones(2_000_000).sum())
    assert found == pytest.approx(16e6, rel=0.1)
    large = np.ones((1000, 1000))
    (r,) = compare(lambda x: xp.sum(x**2), large, backends=["autograd"], compiled=False).rows
    assert 16e6 < r.memory < 80e6  # x**2, the gradient, and what lies between


def test_a_comparison_goes_into_json_and_comes_out(tmp_path):
    found = compare(quartic, X, backends=["numpy"])
    found = replace(found, rows=(replace(found.rows[0], difference=math.inf),))
    found.to_json(tmp_path / "found.json")
    data = json.loads((tmp_path / "found.json").read_text())
    assert data["format"] == 1
    assert data["agree"] is True
    assert data["leaves"] == {"x": [4, 3]}
    (r,) = data["rows"]
    assert (r["backend"], r["status"], r["difference"]) == ("numpy", "ok", "inf")
    assert r["eager"]["median"] == found.rows[0].eager.median
    assert r["line"] is None


def test_a_picture_is_written_as_what_its_name_says(tmp_path):
    pytest.importorskip("matplotlib")
    found = compare(by_torch_or_jax, X, compiled=False)
    found.save_picture(tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    found.save_picture(tmp_path / "found.svg")
    assert "<svg" in (tmp_path / "found.svg").read_text()
    with pytest.raises(errors.ArgumentError, match=r"end its name in .png, .svg or .pdf"):
        found.save_picture(tmp_path / "found.foo")


def by_torch_or_jax(x):
    if polyad.backends.current().name == "numpy":
        raise ValueError("not $here$")
    return xp.sum(x**2)


def test_a_picture_without_matplotlib_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    with pytest.raises(ImportError, match=r'pip install "polyad\[examples\]"'):
        compare(quartic, X, backends=["numpy"]).save_picture("x.png")


def test_rich_draws_the_same_rows():
    from rich.console import Console

    found = compare(quartic, X, backends=["numpy"])
    console = Console(width=80, record=True, file=StringIO())
    console.print(found)
    text = console.export_text()
    assert "numpy" in text
    assert f"{found.rows[0].value:.7g}" in text
    assert found.verdict.split(",")[0] in text


# The command.

FILE = """
import numpy as np
from polyad import xp

def loss(x, power=2):
    return xp.sum(x**power)

def noisy(x):
    return xp.sum(x**2) * np.random.default_rng().uniform(1, 2)

def defaults(x=np.ones(3)):
    return xp.sum(x**2)

def missing(a, b):
    return a

def vector(x):
    return x

args = (np.arange(1.0, 4.0),)
missing_args = 3

def others():
    return np.arange(1.0, 3.0), 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "losses.py").write_text(FILE)
    (tmp_path / "raising.py").write_text("x = 1\ny = undefined\n")
    (tmp_path / "bare.py").write_text("def loss(x, y=1.0):\n    return x\n\n\ndef nothing():\n    return 1.0\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("polyad_compared_")]:
        del sys.modules[name]


QUICK = ("--backend", "numpy", "--no-compiled")


def test_command_prints_plain_text_and_writes_json_and_picture(file, capsys):
    pytest.importorskip("matplotlib")
    assert main(["compare", "losses.py:loss", *QUICK, "--json", "a.json", "--picture", "a.png"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.splitlines()[0] == "loss, its value and gradient in x (3 numbers), float64, cpu"
    assert "numpy alone ran it, and finite differences confirm the gradient." in out
    assert json.loads((file / "a.json").read_text())["rows"][0]["value"] == 14.0
    assert (file / "a.png").stat().st_size > 10_000


@pytest.mark.usefixtures("file")
def test_command_exits_with_one_where_backends_differ_or_one_asked_for_is_left_out(capsys):
    assert main(["compare", "losses.py:noisy", *QUICK]) == 1
    assert "No agreement: numpy differs." in capsys.readouterr().out
    assert main(["compare", "losses.py:loss", *QUICK, "--device", "gpu"]) == 1
    assert "No backend ran it." in capsys.readouterr().out


@pytest.mark.usefixtures("file")
def test_command_takes_arguments_from_where_it_is_told(capsys):
    assert main(["compare", "losses.py:loss", *QUICK, "--args", "others"]) == 0
    assert "9 " in capsys.readouterr().out  # 1 + 8
    assert main(["compare", "bare.py:loss", *QUICK, "--args", "losses.py:others", "--argnums", "0"]) == 2
    assert "loss returned shape (2,)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["losses.py:los"], "losses.py has no 'los'. Did you mean loss?"),
        (["loses.py:loss"], "there is no file loses.py. Did you mean losses.py?"),
        (["losses.py"], "'losses.py' is no place of a function; write it as heat.py:loss"),
        (["losses.py:np"], "np in losses.py is no function, but of type module"),
        (
            ["raising.py:loss"],
            "running raising.py raised NameError: name 'undefined' is not defined (raising.py:2: y =",
        ),
        (["losses.py:missing"], "missing_args is int, not a tuple of arguments"),
        (["bare.py:loss"], "there is no value for x of loss. Write loss_args = (x,) into its file"),
        (["bare.py:nothing"], "nothing takes no arguments"),
        (["losses.py:vector"], "vector returned shape (3,); a loss is one number"),
        (["losses.py:loss", "--args", "other"], "has no 'other'. Did you mean others?"),
        (["losses.py:loss", "--backend", "nunpy"], "there is no backend 'nunpy'. Did you mean 'numpy'?"),
        (
            ["losses.py:loss", "--dtype", "float16"],
            "--dtype: there is no 'float16'. Known are: float64, float32, given",
        ),
        (["losses.py:loss", "--json", "no/a.json"], "--json: no/a.json cannot be written: there is no folder no"),
        (["losses.py:loss", "--picture", "."], "--picture: . is a folder"),
        (["losses.py:loss", "--picture", "a.foo"], "end its name in .png, .svg or .pdf"),
    ],
)
@pytest.mark.usefixtures("file")
def test_wrong_arguments_of_the_command_exit_with_two_and_one_line(capsys, arguments, message):
    assert main(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("polyad: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.usefixtures("file")
def test_defaults_of_the_parameters_are_arguments(capsys):
    with open("plain.py", "w") as plain:
        plain.write("import numpy as np\ndef loss(x=np.ones(3)):\n    return (x**2).sum()\n")
    assert main(["compare", "plain.py:loss", *QUICK]) == 0
    assert "in x (3 numbers)" in capsys.readouterr().out
