"""The command: exit codes, one-line errors, plain text outside of a terminal, adapters of other people."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys

import pytest
from polyad_conformance.runner import GROUPS, listed

from polyad.backends import get
from polyad.cli import main

ONE = ("--group", "documented examples", "--case", "*batched*loss*")
QUICK = ("conformance", "--backend", "numpy", *ONE, "--dtype", "float32")
ESCAPE = "\x1b"


def python(code, **environment):
    """stdout of a fresh interpreter, and its exit code."""
    kept = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "JAX_ENABLE_X64")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | environment)
    return done.returncode, done.stdout, done.stderr


# Exit codes.


def test_conforming_backend_exits_with_zero(capsys):
    assert main(QUICK) == 0
    out = capsys.readouterr().out
    header, line, verdict = out.splitlines()
    assert header.split() == ["group", "numpy"]
    assert line.split("  ")[-1].strip() == "1 ok"
    assert verdict.startswith("Conforms: ")


def test_broken_backend_exits_with_one_and_says_why(capsys, registry):
    pytest.importorskip("autograd")

    class Halved(type(get("autograd"))):
        name = "halved"

        def pullback(self, f, xs, has_aux=False):
            ys, pull, *aux = super().pullback(f, xs, has_aux)
            return (ys, lambda cotangents: tuple(g / 2 for g in pull(cotangents)), *aux)

    registry.register_backend("halved", Halved)
    assert main(["conformance", "--backend", "halved", *ONE]) == 1
    out = capsys.readouterr().out
    assert "2 WRONG" in out
    assert re.search(r"^documented examples, .*batched.*, halved, float64: WRONG: .* differs from", out, re.MULTILINE)
    assert "Does not conform: 2 of 2 cells failed." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["conformance", "--backend", "troch"],
            "--backend: there is no 'troch'. Did you mean 'torch'? Known are: numpy",
        ),
        (["conformance", "--dtype", "float16"], "--dtype: there is no 'float16'."),
        (["conformance", "--case", "seventh"], "--case: no case is named seventh; --list prints all"),
        (["conformance", "--group", "exampels"], f"--group: there is no 'exampels'. Known are: {', '.join(GROUPS)}"),
        (["conformance", "--device", "tpu"], "--device: there is no 'tpu'. Did you mean 'gpu'? Known are: cpu, gpu"),
        (["conformance", "--jobs", "0"], "--jobs"),
        (
            ["conformance", "--report", "pyproject.toml"],
            "--report: pyproject.toml is a file; give the name of a folder",
        ),
        (["conformance", "--report", "pyproject.toml/x"], "--report: cannot make the folder pyproject.toml/x"),
        (["conformance", "--raport", "x"], "--raport"),
        (["conform"], "conform"),
    ],
)
def test_wrong_argument_exits_with_two_and_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("polyad: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_without_a_command_the_commands_are_listed(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "backends" in out
    assert "conformance" in out


def test_an_adapter_may_be_known_by_another_name_than_its_own(capsys, registry):
    registry.register_backend("alias", "polyad.backends.numpy:NumPy", module="numpy")
    assert main(["conformance", "--backend", "alias", *QUICK[3:]]) == 0
    assert "1 ok" in capsys.readouterr().out


# Backends that are not there.


@pytest.fixture
def absent(registry):
    """Only numpy is installed, and a backend is known that is not."""
    for name in [name for name in registry._entries if name != "numpy"]:
        del registry._entries[name]
    registry.register_backend("absent", "absent.adapter:Absent", module="absent", install="pip install absent")


@pytest.mark.usefixtures("absent")
def test_missing_backend_is_listed_with_its_cure_and_never_as_passed(capsys):
    assert main(["conformance", *ONE, "--dtype", "float32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["group", "numpy"]
    assert "absent is not installed. Type: pip install absent" in lines


@pytest.mark.usefixtures("absent")
def test_missing_backend_that_was_asked_for_is_a_failure(capsys):
    assert main(["conformance", "--backend", "absent", *ONE]) == 1
    assert "absent is not installed. Type: pip install absent" in capsys.readouterr().out


@pytest.mark.usefixtures("absent")
def test_backends_are_listed_with_what_they_do_and_how_to_get_them(capsys):
    assert main(["backends"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "backend"
    assert [line.split() for line in lines[:2]] == [
        ["numpy", "yes", get("numpy").namespace.__version__, "cpu", "forward", "taped", "-"],
        ["absent", "no", "-", "-", "-", "-", "-"],
    ]
    assert lines[2:] == ["absent is not installed. Type: pip install absent"]


def test_what_a_backend_does_itself_is_listed(capsys):
    pytest.importorskip("jax")
    assert main(["backends"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("jax ")]
    assert "reverse, forward  taped, recompute, forward_over_reverse  vmap, jit" in line


def test_a_backend_that_does_not_load_is_said_and_fails(capsys, registry):
    registry.register_backend("torn", "polyad.trees:Torn", module="numpy")
    assert main(["backends"]) == 1
    out = capsys.readouterr().out
    assert "torn does not load. AttributeError: module 'polyad.trees' has no attribute 'Torn'" in out
    assert "numpy " in out


# Adapters of other people.

THEIRS = """
from polyad.backends.numpy import NumPy

class Theirs(NumPy):
    name = "{name}"

theirs = Theirs()
nothing = 3

class Half(NumPy):
    name = "half"
    def __init__(self, size):
        self.size = size

class Nameless(Theirs):
    name = None
"""


@pytest.fixture
def place(tmp_path, monkeypatch, registry):
    """A folder with the module `theirs`, in which the command is typed."""
    (tmp_path / "theirs_adapter.py").write_text(THEIRS.format(name="theirs"))
    (tmp_path / "clash_adapter.py").write_text(THEIRS.format(name="torch"))
    (tmp_path / "torn_adapter.py").write_text("import no_such_framework")
    (tmp_path / "raising_adapter.py").write_text("1 / 0")
    (tmp_path / "empty_adapter.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith("_adapter")]:
        del sys.modules[name]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("attribute", ["Theirs", "theirs"])
def test_an_adapter_in_this_folder_runs_as_a_class_or_as_an_instance(capsys, attribute):
    assert main(["conformance", "--backend", f"theirs_adapter:{attribute}", *QUICK[3:]]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["group", "theirs"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("their_adapter:Theirs", "there is no module 'their_adapter', neither in "),
        ("torn_adapter:Theirs", "torn_adapter needs the module 'no_such_framework', which is not installed"),
        ("raising_adapter:Theirs", "importing raising_adapter raised ZeroDivisionError: division by zero"),
        ("theirs_adapter:Their", "theirs_adapter has no 'Their'. Did you mean theirs_adapter:Theirs?"),
        ("empty_adapter:Their", "empty_adapter has no 'Their'. It has no Backend at all."),
        ("theirs_adapter:", "theirs_adapter has no ''."),
        (":Theirs", "':Theirs' is no place; write module:Adapter"),
        (
            "theirs_adapter:nothing",
            "is of type int; it must be a subclass of polyad.backends.base.Backend",
        ),
        ("theirs_adapter:Half", "theirs_adapter:Half cannot be made: "),
        ("theirs_adapter:Nameless", "has no name. Type in the class: name = 'theirs_adapter'"),
        ("clash_adapter:Theirs", "is named 'torch', and so is another backend. Give it another name"),
    ],
)
def test_what_is_wrong_with_an_adapter_is_said_on_one_line(capsys, given, message):
    assert main(["conformance", "--backend", given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# What is printed.


def test_output_is_plain_where_no_terminal_is():
    code, out, err = python(
        f"import sys; from polyad.cli import main; sys.exit(main({QUICK!r}))", TERM="xterm-256color"
    )
    assert code == 0, err
    assert ESCAPE not in out
    assert out.splitlines()[0].split() == ["group", "numpy"]
    assert err == ""  # no progress bar either


def in_terminal(code, **environment):
    """Everything that a fresh interpreter writes to a terminal."""
    ours, its = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=its,
        stdout=its,
        stderr=its,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
    )
    os.close(its)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    running.wait()
    return written.decode()


RUN = f"import sys; from polyad.cli import main; sys.exit(main({QUICK!r}))"
GREEN = f"{ESCAPE}[32m"


def test_a_terminal_gets_a_bar_rules_and_colours():
    out = in_terminal(RUN)
    assert "1/1" in out
    assert f"{GREEN}1 ok" in out
    assert f"{GREEN}Conforms" in out


def test_no_color_is_respected():
    out = in_terminal(RUN, NO_COLOR="1")
    assert "1 ok" in out
    assert GREEN not in out


def test_list_prints_the_cases_and_runs_none(capsys, monkeypatch):
    monkeypatch.setattr("polyad_conformance.runner.run", None)
    assert main(["conformance", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [(group, case.name) for group in GROUPS for case in listed(group)]
    assert len(lines) == len(named) > 2
    assert all(line.startswith(f"{group}: {name}  (") for line, (group, name) in zip(lines, named, strict=True))


# The report.


def test_a_report_is_written_where_it_was_asked_for(tmp_path, capsys):
    folder = tmp_path / "new" / "report"
    assert main([*QUICK, "--report", str(folder)]) == 0
    found = json.loads((folder / "report.json").read_text())
    assert main(shlex.split(found["command"])[1:]) == 0  # what a person types to get the same
    assert found["device"] == "cpu"
    (cell,) = found["outcomes"]
    assert (cell["group"], cell["backend"], cell["dtype"]) == ("documented examples", "numpy", "float32")
    assert "batched" in cell["case"]
    assert cell["cell"] == "ok"
    assert 0 < cell["difference"] < 1e-5
    assert cell["seconds"] > 0
    assert str(folder / "report.html") in capsys.readouterr().out
    assert (folder / "report.md").read_text().startswith("# Conformance\n\n**Conforms")


def test_a_device_that_is_not_there_is_skipped_and_never_passed(capsys):
    assert main([*QUICK, "--device", "gpu"]) == 1
    out = capsys.readouterr().out
    assert "1 skip" in out
    assert " ok" not in out
    assert "skipped: " in out
    assert "Nothing was run." in out


# An application, and a library beside it.


def test_command_switches_jax_to_float64_also_where_jax_was_imported_before():
    pytest.importorskip("jax")
    code = (
        "import jax; before = jax.config.jax_enable_x64\n"
        "from polyad.cli.conformance import enable_float64_on_jax; enable_float64_on_jax()\n"
        "print(before, jax.config.jax_enable_x64)"
    )
    assert python(code)[1].split() == ["False", "True"]


def test_importing_polyad_imports_no_command_and_no_framework():
    code = (
        "import sys, os, polyad\n"
        "heavy = {'typer', 'rich', 'polyad.cli', 'polyad_conformance', 'jax', 'torch', 'autograd'}\n"
        "print(sorted(heavy & set(sys.modules)), 'JAX_ENABLE_X64' in os.environ)"
    )
    assert python(code)[1].strip() == "[] False"
