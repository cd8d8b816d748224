"""Code blocks of README and docs run, and print what stands under them."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```(?:\n+```\n(.*?)```)?", re.DOTALL)
BLOCKS = [
    pytest.param(code, output, id=f"{page.name}-{i}")
    for page in PAGES
    for i, (code, output) in enumerate(BLOCK.findall(page.read_text()))
]


@pytest.mark.parametrize(("code", "output"), BLOCKS)
def test_a_code_block_prints_what_the_page_says(code, output):
    pytest.importorskip("torch")
    pytest.importorskip("autograd")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<page>", "exec"), {"__name__": "page"})
    assert printed.getvalue().split() == output.split()


def test_the_pages_name_no_file_that_is_not_there():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), (page.name, link)


def test_the_page_on_numpy_lists_every_function_with_a_rule():
    from polyad.jets.numpy_names import FUNCTIONS

    page = (ROOT / "docs" / "numpy.md").read_text()
    names = {f"{f.__module__}.{f.__name__}".split("numpy.", 1)[-1] for f in FUNCTIONS}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
