"""The command: exit codes, one-line errors, plain text outside of a terminal, JSON."""

import io
import json
import os
import subprocess
import sys

import pytest
from polyad_conformance import report
from polyad_conformance.broken import DAMAGES, broken
from polyad_conformance.runner import Result
from rich.console import Console

import polyad
from polyad.backends import get
from polyad.cli import main

QUICK = ("conformance", "--backend", "numpy", "--case", "batched_jacobian_in_loss", "--dtype", "float32")
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
    assert "batched_jacobian_in_loss" in out
    assert "passed" in out


def test_broken_backend_exits_with_one_and_says_why(capsys, registry):
    pytest.importorskip("autograd")
    registry.register_backend("halved", broken(type(get("autograd")), DAMAGES["halved"], name="halved"))
    assert main(["conformance", "--backend", "halved", "--case", "batched_jacobian_in_loss"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "batched_jacobian_in_loss, halved, float64: " in out
    assert "differs from the reference by 5.0e-01" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["conformance", "--backend", "troch"],
            "--backend: there is no 'troch'. Did you mean 'torch'? Known are: numpy",
        ),
        (["conformance", "--dtype", "float16"], "--dtype: there is no 'float16'."),
        (["conformance", "--case", "seventh"], "--case: there is no 'seventh'. Known are: jacobian_in_loss"),
        (["conformance", "--json", "no/such/folder/report.json"], "--json: cannot write to"),
        (["conformance", "--json", "."], "--json: . is a folder"),
        (["conformance", "--jason", "x"], "--jason"),
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


# Backends that are not there.


@pytest.fixture
def absent(registry):
    """Only numpy is installed, and a backend is known that is not."""
    for name in [name for name in registry._entries if name != "numpy"]:
        del registry._entries[name]
    registry.register_backend("absent", "absent.adapter:Absent", module="absent", install="pip install absent")


@pytest.mark.usefixtures("absent")
def test_missing_backend_is_listed_with_its_cure_and_never_as_passed(capsys):
    assert main(["conformance", "--case", "batched_jacobian_in_loss", "--dtype", "float32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("(none was run)")]
    assert line.split()[-2:] == ["not", "installed"]
    assert "absent is not installed. Type: pip install absent" in lines


@pytest.mark.usefixtures("absent")
def test_missing_backend_that_was_asked_for_is_a_failure(capsys):
    assert main(["conformance", "--backend", "absent"]) == 1
    assert "absent is not installed. Type: pip install absent" in capsys.readouterr().out


@pytest.mark.usefixtures("absent")
def test_backends_are_listed_with_version_and_how_to_install(capsys):
    assert main(["backends"]) == 0
    header, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header == ["backend", "installed", "version", "how", "to", "install"]
    assert ["absent", "no", "-", "pip", "install", "absent"] in lines
    assert [line[1] for line in lines if line[0] == "numpy"] == ["yes"]


# What is printed.


def test_output_is_plain_where_no_terminal_is():
    code, out, err = python(
        f"import sys; from polyad.cli import main; sys.exit(main({QUICK!r}))", TERM="xterm-256color"
    )
    assert code == 0, err
    assert ESCAPE not in out
    assert out.splitlines()[0].split() == list(report.HEADER)
    assert err == ""  # no progress bar either


ROWS = report.rows(
    [
        Result("example", "torch", "float64", 1.5e-16, "value", 2e-10, 0.0125),
        Result("example", "jax", "float64", 0.5, "d/d x", 2e-10, 0.0125, ("d/d x['[bold]'] differs",)),
    ],
    [polyad.backends.BackendInfo("absent", False, None, 'pip install "polyad[absent]"')],
)


def shown(monkeypatch, width=120, **environment):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    file = io.StringIO()
    report.show(ROWS, "float64", Console(file=file, force_terminal=True, width=width, color_system="standard"))
    return file.getvalue()


def test_terminal_gets_colours_and_rules(monkeypatch):
    out = shown(monkeypatch)
    assert f"{ESCAPE}[32mpassed" in out
    assert f"{ESCAPE}[31mFAILED" in out
    assert f"{ESCAPE}[33mnot installed" in out


def test_no_color_is_respected(monkeypatch):
    assert f"{ESCAPE}[32m" not in shown(monkeypatch, NO_COLOR="1")


def test_narrow_terminal_loses_no_digit(monkeypatch):
    out = shown(monkeypatch, width=80)
    assert "1.5e-16" in out
    assert "12.5 ms" in out


def test_failures_are_printed_in_full_with_their_brackets(monkeypatch):
    out = shown(monkeypatch)
    assert "example, jax, float64: d/d x['[bold]'] differs" in out
    assert 'absent is not installed. Type: pip install "polyad[absent]"' in out


def test_plain_table_shows_a_dash_for_what_was_not_measured():
    lines = report.plain(ROWS).splitlines()
    assert lines[1].split() == ["example", "torch", "1.5e-16", "-", "2.0e-10", "12.5", "ms", "passed"]


# JSON.


def test_json_holds_versions_date_machine_and_every_number(tmp_path):
    file = tmp_path / "report.json"
    assert main([*QUICK, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["versions"]["polyad"] == polyad.__version__
    assert found["device"] == "cpu"
    assert all(found[key] for key in ("date", "platform", "processor", "python"))
    (cell,) = found["cells"]
    assert (cell["case"], cell["backend"], cell["dtype"]) == ("batched_jacobian_in_loss", "numpy", "float32")
    assert cell["passed"] is True
    assert 0 < cell["difference"] < 1e-5
    assert cell["seconds"] > 0


def test_json_has_no_nan():
    wrong = Result("example", "torch", "float64", float("nan"), failures=("value differs by nan",))
    (cell,) = json.loads(report.as_json([wrong], []))["cells"]
    assert cell["difference"] is None
    assert cell["passed"] is False


# An application, and a library beside it.


def test_command_switches_jax_to_float64_also_where_jax_was_imported_before():
    pytest.importorskip("jax")
    code = (
        "import jax; before = jax.config.jax_enable_x64\n"
        "from polyad.cli import enable_float64_on_jax; enable_float64_on_jax()\n"
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
