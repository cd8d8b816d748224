"""A report as small multiples on a logarithmic scale, which a printer without colours can show too."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .report import Report
from .row import Row

__all__ = ["draw"]

PLACES = {"numpy": "s", "autograd": "^", "jax": "o", "torch": "D"}
"""A mark for each backend; it is filled where the row is compiled."""

COLUMNS = 3


def draw(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write ratios.svg and memory.svg into the folder; their paths. Needs matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    times = _page(
        report,
        folder / "ratios.svg",
        lambda row: [
            (row.by_best.median, "polyad / best of all ways"),
            (1 / row.by_usual.median, "polyad / usual way"),
        ],
        "time, polyad / another way: left of 1 polyad is faster",
    )
    memory = _page(
        report,
        folder / "memory.svg",
        lambda row: [
            (_memory(row, row.best), "polyad / best of all ways"),
            (_memory(row, row.usual), "polyad / usual"),
        ],
        "memory at the highest point, polyad / another way: left of 1 polyad needs less",
    )
    return times, memory


def _page(report: Report, file: Path, ratios: Callable[[Row], Sequence[tuple[float, str]]], title: str) -> Path:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [row for row in report.rows if row.polyad]
    groups = list(dict.fromkeys(row.group for row in rows))
    columns = max(1, min(COLUMNS, len(groups)))
    by_group = [[row for row in rows if row.group == group] for group in groups]
    bands = [by_group[i : i + columns] for i in range(0, len(groups), columns)]
    heights = [1.0 + 0.2 * max(map(len, band)) for band in bands] or [1.0]
    with mpl.rc_context({"svg.hashsalt": "polyad", "font.size": 7, "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.6 * columns, sum(heights) + 0.7), layout="constrained")
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        limits = _limits([ratio for row in rows for ratio, _ in ratios(row)])
        for i, band in enumerate(bands):
            for j, group in enumerate(band):
                _panel(figure.add_subplot(grid[i, j]), group, ratios, limits)
        figure.suptitle(title, fontsize=9)
        if rows:
            _legend(figure, [label for _, label in ratios(rows[0])])
        figure.savefig(file, metadata={"Date": None})
    return file


def _panel(
    axes: Any, rows: Sequence[Row], ratios: Callable[[Row], Sequence[tuple[float, str]]], limits: tuple[float, float]
) -> None:
    """One group: a line for each row, the first at the top; black against the best, grey against the usual."""
    axes.set_title(rows[0].group, fontsize=8, loc="left", fontweight="bold")
    axes.set_xscale("log", base=2)
    axes.set_xlim(*limits)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvspan(1 / 1.15, 1.15, color="0.93", zorder=0)
    axes.axvspan(1 / 1.05, 1.05, color="0.85", zorder=0)
    axes.axvline(1, color="0.4", linewidth=0.6, zorder=1)
    for y, row in enumerate(rows):
        (best, _), (usual, _) = ratios(row)
        filled = "black" if row.compiled else "white"
        if not math.isnan(usual):
            axes.plot(usual, y, "|", color="0.45", markersize=9, markeredgewidth=1.6, zorder=2)
        if not math.isnan(best):
            mark = PLACES[row.backend]
            axes.plot(best, y, mark, markerfacecolor=filled, markeredgecolor="black", markersize=4.5, zorder=3)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=5.5)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}")
    axes.tick_params(length=2)
    axes.grid(axis="x", color="0.9", linewidth=0.4, zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label(row: Row) -> str:
    name = row.name.removeprefix(f"{row.group}, ")
    return f"{row.backend}{' compiled' if row.compiled else ''}: {name}"


def _legend(figure: Any, labels: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    def mark(marker: str, label: str, filled: str = "white", colour: str = "black") -> Any:
        return Line2D([], [], linestyle="", marker=marker, markerfacecolor=filled, markeredgecolor=colour, label=label)

    entries = [mark(marker, f"{backend}, {labels[0]}") for backend, marker in PLACES.items()]
    entries += [mark("o", "filled: compiled", "black"), mark("|", labels[1], colour="0.45")]
    figure.legend(handles=entries, loc="outside lower center", ncols=3, frameon=False)


def _limits(ratios: Sequence[float]) -> tuple[float, float]:
    """Powers of two around all of them, and at least from a half to two."""
    known = [math.log2(ratio) for ratio in ratios if ratio > 0]
    return 2.0 ** min([-1, *map(math.floor, known)]), 2.0 ** max([1, *map(math.ceil, known)])


def _memory(row: Row, name: str) -> float:
    other = row.candidate(name)
    if row.polyad is None or other is None or not row.polyad.memory or not other.memory:
        return math.nan
    return row.polyad.memory / other.memory
