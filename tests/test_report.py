"""A report shows every cell, whatever is in it, and the page needs nothing but a browser."""

import io
import itertools
import json
import re
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import get_args

import pytest
from polyad_conformance.outcome import FAILURES, Cell, Outcome
from polyad_conformance.report import Report, as_json, as_markdown, as_page, show, write
from polyad_conformance.report.counts import WORDS
from polyad_conformance.report.page import MEANINGS
from polyad_conformance.report.text import MOST, plain, summary
from rich.console import Console

import polyad

HOSTILE = "</script><img src=x onerror=alert(1)> | `a` _b_ [bold]c[/] &amp; \\ \"'"
LINK = "https://example.org/issues/1?a=1&b=2"
MODES = ("forward", "reverse", "RoR", "jit")
BACKENDS = ("numpy", "torch")


def outcome(cell="ok", **given):
    """One of this kind, with what such a one has."""
    kinds = {
        "ok": {"difference": 2.5e-16, "tolerance": 1e-10, "worst": "d/d x", "witness": "a closed form"},
        "wrong": {"difference": 0.5, "tolerance": 1e-10, "message": "d/d x differs by 5.0e-01"},
        "silent zero": {"difference": 1.0, "message": "d/d x is zero in every entry"},
        "raises": {"message": f"ValueError: {HOSTILE}\nsecond line"},
        "unexpected pass": {"message": "remove the gap", "reason": "no rule"},
        "gap": {"reason": f"the rule is wrong {HOSTILE}", "link": LINK, "found": "wrong"},
        "skipped": {"reason": "there is no gpu here"},
    }
    given = {"group": "laws", "case": "adjoint", "backend": "torch", "seconds": 0.0125, **kinds[cell], **given}
    return Outcome(cell=cell, **given)


def matrix():
    """Every kind in a group of cases and in one of operations, in two precisions."""
    for i, cell in enumerate(get_args(Cell)):
        for backend in BACKENDS:
            for dtype in ("float64", "float32"):
                yield outcome(cell if backend == "torch" else "ok", case=f"case_{i}", backend=backend, dtype=dtype)
                for mode in MODES:
                    kind = cell if (mode, dtype) == ("RoR", "float64") else "ok"
                    yield outcome(kind, group="operations", case=f"f_{i}", mode=mode, backend=backend, dtype=dtype)


OUTCOMES = tuple(matrix())
REPORT = Report.of(OUTCOMES, command="polyad conformance --report x", seconds=12.3)
GOOD = Report.of([outcome(), outcome("gap"), outcome("skipped")])


def test_every_kind_of_cell_has_a_word_of_its_own():
    assert set(WORDS) == set(MEANINGS) == set(get_args(Cell))
    assert len(set(WORDS.values())) == len(WORDS)


@pytest.mark.parametrize("cell", get_args(Cell))
def test_a_report_conforms_unless_a_cell_fails_or_nothing_was_run(cell):
    report = Report.of([outcome(cell)])
    assert report.conforms == (cell in ("ok", "gap"))
    assert Report.of([outcome(cell), outcome()]).conforms == (cell not in FAILURES)
    assert not Report.of([]).conforms


def test_a_report_says_what_it_was_measured_on():
    assert REPORT.versions["polyad"] == polyad.__version__
    assert {"numpy", "optree", "array-api-compat"} <= REPORT.versions.keys()
    assert REPORT.devices == {"numpy": ("cpu",), "torch": REPORT.devices["torch"]}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", REPORT.date)
    assert replace(REPORT, devices={"a": ("cpu",)}).where == "cpu (no backend sees an accelerator)"
    assert replace(REPORT, device="gpu", devices={"a": ("cpu", "cuda:0")}).where == "gpu (a sees cuda:0)"


def test_a_backend_that_does_not_load_still_has_a_report():
    report = Report.of([outcome("raises", backend="no such backend")])
    assert report.devices == {"no such backend": ()}
    assert "no such backend" in as_page(report)


# JSON.


def test_json_holds_every_field_that_says_something():
    found = json.loads(as_json(REPORT))
    assert found["schema"] == 1
    assert found["conforms"] is False
    assert found["seconds"] == 12.3
    assert all(found[key] for key in ("date", "platform", "processor", "python", "versions", "devices", "command"))
    back = [Outcome(**{**cell, "tags": tuple(cell.get("tags", ()))}) for cell in found["outcomes"]]
    assert tuple(back) == OUTCOMES


@pytest.mark.parametrize(("number", "text"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_json_has_no_nan_and_no_infinity(number, text):
    report = Report.of([outcome("wrong", difference=number)])
    (cell,) = json.loads(as_json(report), parse_constant=pytest.fail)["outcomes"]
    assert cell["difference"] == text
    assert text in as_page(report)


# The terminal.


def test_the_summary_counts_every_cell():
    lines = summary(REPORT)
    assert lines[0] == ("group", *BACKENDS)
    counts = [int(n) for line in lines[1:] for n in re.findall(r"\d+", " ".join(line[1:]))]
    assert sum(counts) == len(OUTCOMES)
    assert lines[1] == ("laws", "14 ok", "2 WRONG, 2 ZERO, 2 RAISES, 2 STALE, 2 gap, 2 ok, 2 skip")


def test_columns_are_aligned_by_spaces():
    header, line = plain([("group", "torch"), ("documented", "1 ok")]).splitlines()
    assert header.index("torch") == line.index("1 ok")


def shown(report, **options):
    file = io.StringIO()
    show(report, Console(file=file, width=100, **options))
    return file.getvalue()


def test_each_failure_is_one_line_with_its_brackets():
    lines = shown(REPORT).splitlines()
    (line,) = [line for line in lines if line.startswith("laws, case_1, torch, float64: RAISES")]
    assert f"ValueError: {HOSTILE} second line" in line
    assert "skipped: there is no gpu here" in lines
    assert lines[-1] == f"Does not conform: {len(REPORT.failures)} of {len(OUTCOMES)} cells failed. 12 s"


def test_more_failures_than_a_person_reads_are_counted():
    report = Report.of([outcome("wrong", case=str(i)) for i in range(MOST + 7)])
    text = shown(report)
    assert text.count("WRONG: ") == MOST
    assert "... and 7 more failures" in text


def test_a_terminal_gets_a_colour_for_each_kind():
    text = shown(REPORT, force_terminal=True, color_system="standard")
    assert "\x1b[32m14 ok" in text
    assert "\x1b[1;31m2 WRONG" in text
    assert "\x1b[33m2 gap" in text


# Markdown.


def test_markdown_lists_every_failure_gap_and_skip():
    text = as_markdown(REPORT)
    failures, gaps, skips = (
        text.partition(f"## {title}\n")[2].partition("\n## ")[0] for title in ("Failures", "Gaps", "Skipped")
    )
    assert failures.count("\n- ") == len(REPORT.failures)
    assert f"<{LINK}>" in gaps
    assert "torch: laws case\\_4 (float64, float32: wrong); operations f\\_4 RoR (float64: wrong)" in gaps
    assert "- torch: laws case\\_6 (float64, float32)" in skips
    assert "<img" not in text
    assert "<x y>" not in as_markdown(Report.of([outcome("gap", link="x y")]))


def test_markdown_of_a_good_report_has_no_failures():
    text = as_markdown(replace(GOOD, missing={"jax": 'pip install "polyad[jax]"'}))
    assert "**Conforms" in text
    assert "## Failures" not in text
    assert '- jax: `pip install "polyad[jax]"`' in text
    assert "| laws | 1 gap, 1 ok, 1 skip |" in text


# The page.


class Page(HTMLParser):
    """Elements of a page, and whether each one is closed."""

    VOID = {"meta", "input", "wbr"}

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open[-1] in ("option", "li") and tag != self.open[-1]:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


PAGE = as_page(REPORT)


def data(page):
    """The outcomes that the script reads, with their strings again."""
    text = re.search(r'<script type="application/json" id="outcomes">(.*?)</script>', page, re.DOTALL).group(1)
    found = json.loads(text, parse_constant=pytest.fail)
    strings = found["strings"]
    return [
        {key: strings[value[0]] if isinstance(value, list) else value for key, value in outcome.items()}
        for outcome in found["outcomes"]
    ]


def test_the_page_is_well_formed_and_needs_no_other_file():
    page = Page(PAGE)
    for tag, attributes in page.elements:
        assert tag not in ("img", "link", "iframe", "object")
        assert "src" not in attributes
        if "href" in attributes:
            assert (tag, attributes["href"]) == ("a", LINK)
    assert "url(" not in page.texts["style"]
    assert "@import" not in page.texts["style"]
    assert not re.search(
        r"\b(fetch|import|XMLHttpRequest|innerHTML|eval)\b", page.texts["script"].split("use strict")[1]
    )


def test_every_outcome_is_behind_one_cell_with_its_words():
    buttons = [(td["data-k"].split(), b["data-o"].split()) for td, b in _cells()]
    assert Counter(int(i) for _, places in buttons for i in places) == dict.fromkeys(range(len(OUTCOMES)), 1)
    for words, places in buttons:
        assert set(words) == {WORDS[OUTCOMES[int(i)].cell] for i in places}
        assert len({(o.group, o.case, o.mode, o.backend) for o in (OUTCOMES[int(i)] for i in places)}) == 1


def _cells():
    elements = Page(PAGE).elements
    return [(td, b) for (a, td), (c, b) in itertools.pairwise(elements) if (a, c) == ("td", "button")]


@pytest.mark.parametrize(("difference", "text"), [(3.1e-16, "3e-16"), (0.0, "0"), (float("nan"), "nan")])
def test_a_cell_shows_the_difference_in_the_highest_precision(difference, text):
    both = [outcome(difference=difference), outcome(dtype="float32", difference=1e-7, tolerance=1e-4)]
    assert f"ok<small>{text}</small>" in as_page(Report.of(both))


def test_a_cell_opens_to_the_numbers_of_the_report():
    for shown, expected in zip(data(PAGE), OUTCOMES, strict=True):
        for key in ("group", "case", "backend", "dtype", "mode", "cell", "message", "reason", "link", "witness"):
            assert shown.get(key, "") == getattr(expected, key)
        assert shown.get("difference") == expected.difference
        assert shown["seconds"] == 0.0125


def test_nothing_in_an_outcome_becomes_markup():
    page = Page(as_page(Report.of([outcome("raises", group=HOSTILE, case=HOSTILE, backend="torch", link=HOSTILE)])))
    assert not page.all("img")
    assert len(page.all("script")) == 2
    linked = as_page(Report.of([outcome("gap", link="javascript:alert(1)")]))
    assert not Page(linked).all("a")


@pytest.mark.parametrize(("failures", "inside"), [(20, 0), (21, 1), (510, 480)])
def test_many_failures_stand_behind_a_line_that_counts_them(failures, inside):
    page = as_page(Report.of([outcome("wrong", case=str(i)) for i in range(failures)]))
    section = page[page.index('id="failures"') : page.index('id="matrix"')]
    assert section.partition("<details>")[0].count("<li>") == 20
    assert section.partition("<details>")[2].count("<li>") == inside
    assert (f"{failures - 20} more failures" in section) == (failures > 20)
    assert ("The last 10 are in the tables" in section) == (failures > 500)


def test_operations_are_a_table_of_modes_for_each_backend():
    page = Page(PAGE)
    assert [t["data-backend"] for t in page.all("table") if "data-backend" in t] == list(BACKENDS)
    assert all(name in page.texts["th"] for name in MODES)
    assert len(page.all("caption")) == len(page.all("table"))
    assert {attributes["scope"] for attributes in page.all("th")} == {"row", "col"}


def test_the_top_says_versions_device_date_and_verdict():
    head = PAGE[PAGE.index("<header>") : PAGE.index("</header>")]
    assert REPORT.verdict in head
    assert REPORT.date[:10] in head
    assert "cpu (" in head
    assert f"numpy {REPORT.versions['numpy']}" in head
    assert "polyad conformance --report x" in head


def colours(block):
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", block))


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_every_colour(theme):
    blocks = re.findall(r":root \{(.*?)\}", PAGE, re.DOTALL)
    found = colours(blocks[theme])
    failed = ("wrong", "zero", "raises", "stale")
    pairs = [("ok", "on-ok"), ("gap", "on-gap"), *((kind, "on-failed") for kind in failed)]
    pairs += [("paper", "ink"), ("paper", "faint"), ("raised", "ink"), ("paper", "link")]
    for below, text in pairs:
        assert contrast(found[below], found[text]) >= 4.5, (below, text)
    # Without colours a failure is still another shade than what is right.
    for kind in failed:
        assert contrast(found[kind], found["ok"]) >= 3, kind


def many(cells):
    for i in range(cells):
        group, mode = ("operations", MODES[i % 4]) if i % 3 else ("first order", "")
        yield outcome(
            get_args(Cell)[i % 7] if i % 5 == 0 else "ok",
            group=group, case=f"operation_{i // 32}", mode=mode, backend=f"b{i // 4 % 4}", dtype=f"float{i // 16 % 2}",
        )  # fmt: skip


def test_eight_thousand_cells_are_a_page_below_five_megabytes(tmp_path):
    report = replace(GOOD, outcomes=tuple(many(8000)))
    start = time.process_time()
    paths = write(report, tmp_path / "new")
    assert time.process_time() - start < 10  # 0.3 s on one core, 2026-11
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    assert paths[2].stat().st_size < 5e6


def test_a_long_message_is_cut_on_the_page_and_whole_in_json():
    report = Report.of([outcome("raises", message="x" * 100_000)])
    assert len(as_page(report)) < 40_000
    assert "x" * 100_000 in as_json(report)


def test_the_script_runs_in_a_browser(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    *_, page = write(REPORT, tmp_path)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [browser, *options, "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    rows = len(get_args(Cell)) * (1 + len(BACKENDS))
    assert f'<output aria-live="polite">{rows} rows</output>' in done.stdout
    assert '<form class="filters" aria-label=' in done.stdout  # no longer hidden
