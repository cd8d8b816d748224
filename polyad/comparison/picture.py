"""A comparison as a picture: how far the backends are apart, and how long they take."""

import math
from pathlib import Path
from textwrap import shorten
from typing import Any

from polyad.comparison.result import Comparison, Row
from polyad.comparison.table import duration, title, verdict
from polyad.errors import ArgumentError

__all__ = ["check", "save"]

BLUE, ORANGE, GREEN, GREY, LINE = "#0072B2", "#D55E00", "#009E73", "#59626d", "#d5dae0"  # Okabe and Ito
BLANK = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
EQUAL = 1e-17
"""Where a difference of zero is drawn."""


def check(path: str | Path) -> None:
    """ImportError without matplotlib; ArgumentError for a kind of file that it does not write."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ImportError(
            'a picture of a comparison needs matplotlib, which is not installed. Type: pip install "polyad[examples]"'
        ) from error
    if Path(path).suffix.lower().lstrip(".") not in FigureCanvasBase.get_supported_filetypes():
        raise ArgumentError(f"a picture cannot be written as {Path(path).name!r}; end its name in .png, .svg or .pdf")


def save(comparison: Comparison, path: str | Path) -> None:
    """Write the picture; its kind is the end of the name. Raises as `check`."""
    check(path)
    from matplotlib.figure import Figure

    height = 2.1 + 0.5 * len(comparison.rows)
    figure = Figure(figsize=(10, height), facecolor="white")
    agreement, time = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    top, bottom = 1 - 0.75 / height, 0.95 / height
    figure.subplots_adjust(left=0.09, right=0.965, wspace=0.09, top=top, bottom=bottom)
    _draw_agreement(agreement, comparison)
    _draw_time(time, comparison)
    for y, row in enumerate(comparison.rows):
        if row.status == "left out":
            _draw_reason(agreement, y, row)
    for axes in (agreement, time):
        _tidy(axes, comparison)
    figure.text(0.012, 1 - 0.12 / height, title(comparison), va="top", fontsize=11, fontweight="bold")
    colour = GREEN if comparison.agree else ORANGE
    said = shorten(verdict(comparison), 170, placeholder=" ...")
    figure.text(0.012, 1 - 0.36 / height, said, va="top", fontsize=8.5, color=colour)
    figure.savefig(path, dpi=200)


def _draw_agreement(axes: Any, comparison: Comparison) -> None:
    """Small dots are leaves, the large one is the worst; a diamond is the worst against finite differences."""
    for y, row in enumerate(comparison.rows):
        if row.status == "left out":
            continue
        colour = ORANGE if row.status == "differs" else BLUE
        if row.backend == comparison.reference:
            axes.text(
                EQUAL,
                y,
                "reference",
                va="center",
                ha="left",
                fontsize=8.5,
                color=GREY,
                bbox=BLANK,
            )
        else:
            found = [max(d, EQUAL) for d in row.differences.values() if math.isfinite(d)]
            axes.plot(found, [y] * len(found), "o", ms=3.5, color=colour, alpha=0.35, mew=0)
            axes.plot(_seen(row.difference), y, "o", ms=7.5, color=colour, mew=0)
        if row.check is not None:
            axes.plot(_seen(row.check), y, "D", ms=7.5, color=colour, mfc="none", mew=1.5)
    largest = max((_seen(d) for r in comparison.ran for d in (r.difference, r.check) if d is not None), default=1.0)
    axes.set_xscale("log")
    axes.set_xlim(EQUAL / 2.5, max(10 * largest, 3e2 * comparison.allowed_check))
    ticks = [10.0**k for k in range(-17, 7, 3) if 10.0**k < axes.get_xlim()[1]]
    axes.set_xticks(ticks, ["equal", *(f"$10^{{{round(math.log10(t))}}}$" for t in ticks[1:])])
    axes.set_xlabel("largest relative difference")
    for limit, marker in ((comparison.allowed, "o"), (comparison.allowed_check, "D")):
        axes.axvline(limit, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=0)
        axes.plot(
            limit,
            1.0,
            marker,
            ms=4.5,
            color=GREY,
            mfc=GREY if marker == "o" else "white",
            clip_on=False,
            transform=axes.get_xaxis_transform(),
        )
    _key(
        axes,
        ("o", BLUE, f"from {comparison.reference or 'each other'}"),
        (".", BLUE, "in each leaf"),
        ("D", "white", "finite differences"),
        (None, GREY, "allowed"),
    )


def _draw_time(axes: Any, comparison: Comparison) -> None:
    """Medians with the middle half of the runs."""
    places = []
    for y, row in enumerate(comparison.rows):
        timings = [(row.eager, BLUE, "o"), (row.compiled, GREEN, "s")]
        for timing, colour, marker in timings:
            if timing is None:
                continue
            places.append(timing.median)
            axes.plot([timing.low, timing.high], [y, y], color=colour, lw=2.2, alpha=0.45)
            axes.plot(timing.median, y, marker, ms=7, color=colour, mew=0)
            axes.annotate(
                duration(timing.median),
                (timing.median, y),
                (0, 8),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=colour,
            )
    axes.set_xscale("log")
    if places:
        axes.set_xlim(min(places) / 4, max(places) * 4)
    low, high = axes.get_xlim()
    steps = (1,) if high > 100 * low else (1, 2, 5)
    ticks = [n * 10.0**k for k in range(-7, 5) for n in steps if low <= n * 10.0**k <= high]
    axes.set_xticks(ticks, map(duration, ticks))
    axes.set_xticks([], minor=True)
    axes.set_xlabel("time for value and gradient, middle half of the runs")
    compiled = any(row.compiled for row in comparison.rows)
    _key(axes, ("o", BLUE, "eager"), *([("s", GREEN, "compiled")] if compiled else []))


def _draw_reason(axes: Any, y: int, row: Row) -> None:
    """Over both panels, why there is nothing in this row."""
    text = f"left out at {row.line}" if row.line else f"left out: {row.reason}"
    axes.figure.text(
        0.01,
        y,
        shorten(text, 125, placeholder=" ..."),
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=8.5,
        color=GREY,
        bbox=BLANK,
        parse_math=False,
    )


def _tidy(axes: Any, comparison: Comparison) -> None:
    rows = comparison.rows
    axes.set_ylim(len(rows) - 0.45, -0.65)
    axes.set_yticks(range(len(rows)), [row.backend for row in rows])
    axes.tick_params(axis="both", length=0, labelsize=9)
    axes.tick_params(axis="x", which="minor", length=0)
    axes.grid(axis="x", which="major", color=LINE, lw=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_size(9)
    axes.xaxis.label.set_color(GREY)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(LINE)
    for y in range(len(rows)):
        axes.axhline(y, color=LINE, lw=0.6, zorder=0)


def _key(axes: Any, *entries: tuple[str | None, str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            ls="" if marker else (0, (4, 3)),
            marker=marker,
            lw=0.9,
            ms=6,
            label=label,
            color=BLUE if colour == "white" else colour,
            mfc=colour,
            mew=1.2 if colour == "white" else 0,
        )
        for marker, colour, label in entries
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(axes.get_position().x0 - 0.01, 0.01),
        bbox_transform=axes.figure.transFigure,
        ncols=len(handles),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.4,
        columnspacing=1.2,
        borderaxespad=0,
    )


def _seen(difference: float | None) -> float:
    """On a logarithmic axis."""
    return EQUAL if not difference else min(difference, 1e6)
