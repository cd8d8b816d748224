"""The site of the documentation: it builds strictly, asks no other host, and describes every public name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import polyad

pytest.importorskip("mkdocs", reason="the site is built with the extra docs")
pytest.importorskip("material", reason="the site is built with the extra docs")
pytest.importorskip("mkdocstrings", reason="the site is built with the extra docs")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """{path of a page: its HTML}."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {page.relative_to(folder).as_posix(): page.read_text() for page in folder.rglob("*.html")}


def test_the_reference_describes_every_public_name(site):
    reference = "".join(html for path, html in site.items() if path.startswith("reference/"))
    without = {"__version__", "backends", "errors"}  # a text and two modules
    names = [f"polyad.{name}" for name in polyad.__all__ if name not in without]
    names += [f"polyad.errors.{name}" for name in polyad.errors.__all__]
    assert [name for name in names if f'id="{name}"' not in reference] == []


def test_an_operator_made_from_another_has_its_signature_and_its_docstring(site):
    html = site["reference/operators/index.html"]
    section = html.partition('id="polyad.value_and_laplacian"')[2].partition('id="polyad.divergence"')[0]
    text = re.sub(r"<[^>]+>", "", section)
    assert re.search(r"value_and_laplacian\(\s*f,\s*\*args,.*chunk_size=None", text, re.DOTALL)
    assert "from one evaluation of f" in text
    assert "_kwargs" not in text


def test_columns_of_a_docstring_become_a_list(site):
    html = site["reference/operators/index.html"]
    section = html.partition('id="polyad.gradient"')[2].partition('id="polyad.value_and_gradient"')[0]
    terms = re.findall(r"<dt>(?:<code>)?(\w+)(?:</code>)?</dt>", section)
    assert terms == ["args", "argnums", "has_aux", "backend", "mode", "returns", "raises", "source"]
    assert 'href="../errors/#polyad.errors.NotScalarError"' in section


def test_every_command_is_shown_with_its_help(site):
    from typer.main import get_command

    from polyad.cli import app

    text = re.sub(r"<[^>]+>", "", site["reference/cli/index.html"])
    for name in get_command(app).commands:
        assert f"Usage: polyad {name} [OPTIONS]" in text


def test_no_page_asks_another_host_for_anything(site):
    loads = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^"' >]+""")
    assert {path: loads.findall(html) for path, html in site.items() if loads.findall(html)} == {}
