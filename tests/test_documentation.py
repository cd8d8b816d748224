"""Code blocks of README and docs run, and print what stands under them."""

import ast
import contextlib
import importlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```(?:\n+```\n(.*?)```)?", re.DOTALL)
BLOCKS = [
    pytest.param(code, output, id=f"{page.relative_to(ROOT).as_posix()}-{i}")
    for page in PAGES
    for i, (code, output) in enumerate(BLOCK.findall(page.read_text()))
]
FRAMEWORKS = ("autograd", "diffrax", "equinox", "flax", "jax", "keras", "optax", "scipy", "torch", "torchdiffeq")
ROUGHLY = 3.0  # what a training ends at differs between machines by less than this factor


@pytest.mark.parametrize(("code", "output"), BLOCKS)
def test_a_code_block_prints_what_the_page_says(code, output):
    pytest.importorskip("torch")
    pytest.importorskip("autograd")
    for name in imported(code) & set(FRAMEWORKS):
        pytest.importorskip(name)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<page>", "exec"), {"__name__": "page"})
    words, expected = printed.getvalue().split(), output.split()
    assert [*map(exactly, words)] == [*map(exactly, expected)]
    for number, other in zip(roughly(words), roughly(expected), strict=True):
        assert other / ROUGHLY < number < other * ROUGHLY


def imported(code):
    """Top-level packages that the code imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def exactly(word):
    return "≈" if word.startswith("≈") else word


def roughly(words):
    """The numbers of words such as ≈3e-05."""
    return [float(word.strip("≈,")) for word in words if word.startswith("≈")]


def test_every_page_stands_in_the_navigation():
    yaml = (ROOT / "mkdocs.yml").read_text()
    nav = set(re.findall(r"^ +- .*?([\w/-]+\.md)$", yaml, re.MULTILINE))
    assert nav == {page.relative_to(DOCS).as_posix() for page in PAGES[1:]}


def test_the_pages_name_no_file_that_is_not_there():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), (page.name, link)


def test_names_of_other_libraries_exist_where_the_page_says():
    page = (DOCS / "coming-from.md").read_text()
    names = sorted(set(re.findall(r"`((?:jax|torch|autograd)(?:\.\w+)+)`", page)))
    assert len(names) > 30
    assert [name for name in names if not exists(name)] == []


def exists(name):
    """Whether this is a module, or an attribute of one."""
    package, *rest = name.split(".")
    found = pytest.importorskip(package)
    for i, part in enumerate(rest):
        if not hasattr(found, part):
            try:
                importlib.import_module(".".join([package, *rest[: i + 1]]))
            except ImportError:
                return False
        found = getattr(found, part)
    return True


def test_the_page_on_numpy_lists_every_function_with_a_rule():
    from polyad.jets.numpy_names import FUNCTIONS

    page = (ROOT / "docs" / "numpy.md").read_text()
    names = {f"{f.__module__}.{f.__name__}".split("numpy.", 1)[-1] for f in FUNCTIONS}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
