"""adopt: which file of polyad.models knows a model, and what it loads."""

import subprocess
import sys

import pytest

LOOK = """
import sys
import torch
import polyad
assert not [m for m in sys.modules if m.startswith("polyad.models.torch")]
polyad.adopt(torch.nn.Linear(2, 1))
print([name for name in ("jax", "flax", "equinox", "keras") if name in sys.modules])
"""


def test_adopting_a_model_loads_its_own_framework_alone():
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]
