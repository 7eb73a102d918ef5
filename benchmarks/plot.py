"""The records as one picture: a panel for each question, a bar for each contender."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from benchmarks.environments import TITLES
from benchmarks.questions import question
from benchmarks.report import newest, number, values

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.session import Record

COLOURS = {"blockflow": "#0b6e99", "daisy2": "#e08e2b", "daisy1": "#c9b79c", "dask": "#8a6fb0"}

PANELS = (
    ("noop", "Blocks of nothing", "blocks/s", {"": "blocks/s, whole process"}),
    ("rois", "… that look at their ROIs, 3-D", "blocks/s", {"": "blocks/s, whole process"}),
    ("conflicts", "… with 26 conflicting neighbours", "blocks/s", {"": "blocks/s, whole process"}),
    ("chain", "… in two chained 3-D tasks", "blocks/s", {"": "blocks/s, whole process"}),
    ("tiny", "Ten blocks, start to finish", "s, whole process (less is better)", {"": "s, whole process"}),
    (
        "imports",
        "Starting up",
        "ms (less is better)",
        {"import": "import, ms beyond numpy", "worker": "worker, ms beyond python"},
    ),
    (
        "cpu",
        "Share of two cores in user code",
        "%, by CPU time of a block",
        {f"{ms} ms": f"{ms} ms: % in user code" for ms in (1, 10, 100)},
    ),
    (
        "gaussian",
        "Gaussian, zarr to zarr",
        "s, by block size (less is better)",
        {"128³": "128^3: s, whole process", "64³": "64^3: s, whole process"},
    ),
    (
        "huge",
        "First of 10⁹ blocks runs after",
        "s (less is better)",
        {"1-D": "1-D, run: s to first block", "3-D": "3-D, run: s to first block"},
    ),
    (
        "crowd",
        "Hundreds of workers: wait for a block",
        "ms (less is better)",
        {"median": "wait for a block, median ms", "p99": "wait for a block, p99 ms"},
    ),
)
"""Question, title, unit, and figures by the name of their group of bars."""


def draw(directory: Path) -> list[Path]:
    """Draw the records of a directory; returns the pictures' paths."""
    records = {record.question: record for record in newest(directory)}
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"}):
        canvas = Canvas(figsize=(14, 13), layout="constrained")
        axes = canvas.subplots(4, 3).flatten()
        for place, (name, title, unit, groups) in zip(axes, PANELS, strict=False):
            place.set_title(title, loc="left", fontweight="bold")
            if name in records:
                _bars(place, records[name], groups)
                place.set_xlabel(unit)
            else:
                _nothing(place)
        lines = axes[len(PANELS)]
        lines.set_title("Cost of a block, 3-D with conflicts", loc="left", fontweight="bold")
        if "scale" in records:
            _lines(lines, records["scale"])
        else:
            _nothing(lines)
        axes[-1].set_axis_off()
        axes[-1].text(0, 1, _about(records), va="top", linespacing=1.8)
        paths = [directory / "overview.svg", directory / "overview.png"]
        for path in paths:
            canvas.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _bars(axes: Axes, record: Record, groups: dict[str, str]) -> None:
    figures = {figure.name: figure for figure in question(record.question, quick=record.quick).figures}
    titles: list[str] = []
    right = 0.0
    for group, name in groups.items():
        for contender in TITLES:
            asked = {taken.label for taken in record.taken if taken.contender == contender}
            if not asked.issuperset(figures[name].labels):
                continue
            row = len(titles)
            titles.append(f"{TITLES[contender]}{f', {group}' if group else ''}")
            found = values(record, contender, figures[name])
            if found is None:
                axes.text(0, row, " failed", va="center")
                continue
            error = [[found.middle - min(found.each)], [max(found.each) - found.middle]]
            axes.barh(row, found.middle, color=COLOURS[contender], xerr=error, error_kw={"lw": 0.8})
            axes.text(max(0.0, *found.each), row, f"  {number(found.middle)}", va="center")
            right = max(right, *found.each)
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.set_xlim(right=1.25 * right or 1)
    axes.ticklabel_format(axis="x", style="plain")
    axes.locator_params(axis="x", nbins=5)


def _lines(axes: Axes, record: Record) -> None:
    figures = question("scale", quick=record.quick).figures
    for contender, colour in COLOURS.items():
        for how, style in (("workers", "-o"), ("hand", "--s")):
            points = [
                (float(figure.labels[0].split()[1]), value.middle)
                for figure in figures
                if figure.labels[0].startswith(how) and (value := values(record, contender, figure)) is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, label=f"{TITLES[contender]}, {how}")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("blocks in the task")
    axes.set_ylabel("µs per block (less is better)")
    axes.legend(frameon=False, fontsize=8)


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="#888888")
    axes.set_xticks([])
    axes.set_yticks([])


def _about(records: dict[str, Record]) -> str:
    machines = {
        f"{record.machine['processor']}, {record.machine['cores']} cores\n"
        f"{record.date[:10]}, blockflow {record.machine['commit']}{', quick sizes' if record.quick else ''}"
        for record in records.values()
    }
    how = "two workers each; medians over rounds, lines from\nthe smallest to the largest round"
    return "\n".join([*sorted(machines), how])
