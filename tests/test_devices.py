"""Nothing is made elsewhere than where the inputs lie, on devices that every machine has.

torch has "meta", whose tensors have no numbers: an array made on the CPU by mistake cannot meet
them. JAX makes two devices of one CPU.
"""

import collections
import functools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from polyad import convert, trees, use_backend, xp
from polyad.backends import get

GROUPS = ("adapter laws", "nested", "layers and state", "operations")
# What needs numbers stops; that is nothing about devices.
NEEDS_NUMBERS = r"item\(\) cannot be called on meta|Cannot copy out of meta|unimplemented by default|INTERNAL ASSERT"
NO_RULE = r"derivative for aten::|step must be greater than zero"  # gaps of torch anywhere


def asked(groups):
    """(place, call): each case, and each operation in reverse, on torch's meta device."""
    from polyad_conformance import runner
    from polyad_conformance.modes import MODES
    from polyad_conformance.operations import OPERATIONS
    from polyad_conformance.operations.matrix import _arguments, _places

    torch = get("torch")
    on_meta = functools.partial(convert, backend=torch, dtype="float64", device="meta")
    for group in groups:
        for case in runner.cases_of(group):
            yield f"{group}/{case.name}", functools.partial(case.ask, *on_meta(case.inputs))
    if "operations" in groups:
        for operation in OPERATIONS:
            here, there, v, c = on_meta(_places(operation))
            call = MODES["reverse"](functools.partial(operation, xp), v, c, torch)
            yield operation.name, functools.partial(call, *_arguments("reverse", here, there))


def placed(call):
    """What a call did: "ok", "elsewhere", "no numbers", or the error."""
    import torch

    try:
        out = call()
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        return "no numbers" if re.search(f"{NEEDS_NUMBERS}|{NO_RULE}", words) else words
    tensors = [leaf for leaf in trees.leaves(out) if isinstance(leaf, torch.Tensor)]
    return "ok" if all(tensor.device.type == "meta" for tensor in tensors) else "elsewhere"


@pytest.mark.filterwarnings("ignore")
def test_every_case_stays_on_the_device_of_its_inputs_on_torch():
    pytest.importorskip("torch")
    with use_backend("torch"):
        found = {place: placed(call) for place, call in asked(GROUPS)}
    assert {place: what for place, what in found.items() if what not in ("ok", "no numbers")} == {}
    counts = collections.Counter(found.values())
    assert counts["ok"] > 0.85 * len(found) > 400


def test_an_array_made_elsewhere_is_seen():
    torch = pytest.importorskip("torch")
    x = torch.ones(3, device="meta")
    assert placed(lambda: x + torch.ones(3)) not in ("ok", "no numbers")
    assert placed(lambda: torch.ones(3)) == "elsewhere"
    assert placed(lambda: x * 2) == "ok"


ON_JAX = """
import json
import jax
import numpy as np
import polyad
jax.config.update("jax_disable_most_optimizations", True)
from polyad import BatchNorm, Chain, Dense, Dropout, StatefulLayer, convert, nested_switching, setup, trees, xp

model = Chain(Dense(3, 4, "tanh"), BatchNorm(4), Dropout(0.25), Dense(4, 2))

def all_on(device):
    x = jax.device_put(np.linspace(-1, 1, 12).reshape(4, 3), device)
    params, state = setup(0, model, backend="jax", dtype="float64", device=device)
    net = lambda params, x: StatefulLayer(model, params, state)(x)
    y = lambda x: xp.tanh(x @ xp.asarray(np.eye(3))) + 0.5
    inner = lambda x: xp.sum(polyad.gradient(lambda x: xp.sum(xp.sin(x) ** 2), x) ** 2)
    found = {
        "gradient": polyad.gradient(lambda p, x: xp.sum(net(p, x) ** 2), params, x, argnums=(0, 1)),
        "jacobian, forward": polyad.jacobian(y, x, mode="forward"),
        "jacobian, reverse": polyad.jacobian(y, x, mode="reverse"),
        "batched_jacobian": polyad.batched_jacobian(y, x),
        "laplacian": polyad.laplacian(lambda x: xp.sum(x**4, axis=-1), x),
        "hessian": polyad.hessian(lambda x: xp.sum(x**3), x),
        "vjp": polyad.vjp(y, x)[1](xp.ones_like(x)),
        "jvp": polyad.jvp(y, (x,), (xp.ones_like(x),)),
        "compiled": jax.jit(polyad.gradient(inner))(x),
    }
    for strategy in ("taped", "recompute", "forward_over_reverse"):
        with nested_switching(strategy):
            found[strategy] = polyad.gradient(inner, x)
    return found

first, second = (all_on(device) for device in jax.devices())
print(json.dumps({
    name: [
        sorted({leaf.device == jax.devices()[1] for leaf in trees.leaves(second[name])}),
        max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in
            zip(trees.leaves(first[name]), trees.leaves(second[name]), strict=True)),
        max(float(np.max(np.abs(np.asarray(a)))) for a in trees.leaves(first[name])),
    ]
    for name in second
}))
"""


def test_results_lie_where_the_inputs_lie_on_jax():
    pytest.importorskip("jax")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", ON_JAX], capture_output=True, text=True, env=os.environ | flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 12
    for name, (devices, difference, size) in found.items():
        assert devices == [True], name
        assert difference <= 1e-14, name
        assert size > 0.1, name


def test_float32_is_float32_while_the_suite_runs_on_an_accelerator():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    from polyad_conformance.devices import exact_and_quick

    parts = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    try:
        for part in parts:
            part.allow_tf32 = True
        with exact_and_quick("gpu"):
            assert [part.allow_tf32 for part in parts] == [False, False]
            assert jax.config.jax_default_matmul_precision == "highest"
        assert [part.allow_tf32 for part in parts] == [True, True]
    finally:
        for part, value in zip(parts, before, strict=True):
            part.allow_tf32 = value


def test_counts_of_a_function_that_repeats_are_read_on_the_host():
    x = np.arange(3.0)
    for backend in ("numpy", "torch"):
        pytest.importorskip(backend)
        there = convert(x, backend)
        counts = convert(np.array([1, 0, 2]), backend)
        y = convert(xp.repeat(there * there, counts), "numpy")
        np.testing.assert_array_equal(y, [0.0, 4.0, 4.0])
