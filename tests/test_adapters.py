"""The adapter that docs/adapters.md writes: the very code of the page conforms, by place and by entry point."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("autograd")
from polyad_conformance.groups import GROUPS

PAGE = (Path(__file__).parent.parent / "docs" / "adapters.md").read_text()
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
QUICK = ("--group", "documented examples", "--case", "*batched*loss*", "--dtype", "float64")


def write(folder, code=CODE):
    """The module `mine` in this folder."""
    (folder / "mine.py").write_text(code)


def python(folder, *words, path="", **environment):
    """(exit code, stdout, stderr) of python with these words, typed in the folder."""
    paths = os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("POLYAD", "JAX_ENABLE"))}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=kept | {"PYTHONPATH": paths, "COLUMNS": "100"} | environment,
    )
    return done.returncode, done.stdout, done.stderr


def polyad(folder, *words, path=""):
    return python(folder, "-m", "polyad", *words, path=path)


def test_the_adapter_is_as_short_as_the_page_says():
    lines = len(CODE.splitlines())
    assert f"complete one in {lines} lines" in PAGE
    assert lines <= 60


def test_the_adapter_of_the_page_conforms_in_every_case(tmp_path):
    write(tmp_path)
    groups = [word for group in GROUPS if group != "operations" for word in ("--group", group)]
    assert all(f"--group {shlex.quote(group)}".replace("'", '"') in PAGE for group in groups[1::2])
    code, out, err = polyad(tmp_path, "conformance", "--backend", "mine:Mine", *groups)
    assert code == 0, out + err
    assert "Conforms: every cell that was run is ok or a documented gap." in out
    assert not re.search(r"\d (gap|skip)", out), out  # all that the page promises, and nothing left out


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("tuple(pull(boxes(zeros_for_none(cotangents, ys))))", "tuple(g / 2 for g in pull(boxes(cotangents)))"),
        ("boxes(f(*xs)))(boxes(xs))", "boxes(f(*map(getval, xs))))(boxes(xs))"),
    ],
)
def test_the_suite_rejects_an_adapter_with_one_mistake(tmp_path, right, wrong):
    assert right in CODE
    write(tmp_path, CODE.replace(right, wrong))
    code, out, err = polyad(tmp_path, "conformance", "--backend", "mine:Mine", *QUICK)
    assert code == 1, out + err
    assert "Does not conform" in out
    assert re.search(r"batched.*loss, mine, float64: (WRONG|ZERO|RAISES)", out)


@pytest.fixture
def installed(tmp_path):
    """A folder as pip leaves it: the module, and a distribution whose name is another one."""
    folder = tmp_path / "site-packages"
    about = folder / "polyad_of_mine-4.5.dist-info"
    about.mkdir(parents=True)
    write(folder)
    fields = ("Metadata-Version: 2.1", "Name: polyad-of-mine", "Version: 4.5", "Requires-Dist: autograd>=1.8")
    (about / "METADATA").write_text("\n".join(fields))
    (table,) = re.findall(r"```toml\n\[project\.entry-points\.\"(.*?)\"\]\n(\w+) = \"(.*?)\"\n```", PAGE)
    (about / "entry_points.txt").write_text("[{}]\n{} = {}\n".format(*table))
    return folder


def test_an_installed_adapter_is_listed_and_runs_by_its_name(tmp_path, installed):
    code, out, err = polyad(tmp_path, "backends", path=str(installed))
    assert code == 0, err
    assert re.search(r"^mine +yes +4\.5 +cpu +reverse +taped +-$", out, re.MULTILINE), out
    code, out, err = polyad(tmp_path, "conformance", "--backend", "mine", *QUICK, path=str(installed))
    assert code == 0, out + err
    assert "1 ok" in out


def test_an_installed_adapter_differentiates_without_another_word(tmp_path, installed):
    program = (
        "import numpy as np; from polyad import gradient, xp\n"
        "x = np.array([0.5, 2.0])\n"
        "inner = lambda x: xp.sum(gradient(lambda y: xp.sum(y**3), x) ** 2)\n"
        "print(gradient(inner, x, backend='mine'))"
    )
    code, out, err = python(tmp_path, "-c", program, path=str(installed))
    assert code == 0, err
    assert [float(x) for x in out.strip("[] \n").split()] == [4.5, 288.0]  # 36 x^3


def test_an_installed_adapter_has_the_arrays_of_its_framework_before_it_was_named(tmp_path, installed):
    program = (
        "import sys, autograd, numpy as np; from polyad import xp; from polyad.backends import owner\n"
        "print('mine' in sys.modules)\n"
        "def f(x):\n"
        "    print(owner(x).name)\n"
        "    return xp.sum(x**3)\n"
        "print(*autograd.grad(f)(np.array([0.5, 2.0])))"
    )
    code, out, err = python(tmp_path, "-c", program, path=str(installed))
    assert code == 0, err
    assert out.split() == ["False", "mine", "0.75", "12.0"]


def test_an_adapter_runs_as_tests_of_its_own_repository(tmp_path):
    write(tmp_path)
    words = ("-m", "pytest", "--pyargs", "polyad_conformance", "-q", "-p", "no:cacheprovider", "-k", "examples")
    code, out, err = python(tmp_path, *words, POLYAD_CONFORMANCE_BACKEND="mine:Mine")
    assert code == 0, out + err
    assert re.search(r"\d passed", out)
    write(tmp_path, CODE.replace("tuple(pull(boxes(", "tuple(g / 2 for g in pull(boxes("))
    code, out, _ = python(tmp_path, *words, POLYAD_CONFORMANCE_BACKEND="mine:Mine")
    assert code == 1
    assert "WRONG" in out
