"""What do the records say? Medians, ratios, and everything that went wrong, as one markdown page.

A ratio is ours divided by theirs; in brackets stand the smallest and the largest, of single rounds. Whoever wants a
verdict can compare with the goal that stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.environments import TITLES
from benchmarks.questions import MAKERS, question
from benchmarks.session import Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.measure import Measurement
    from benchmarks.question import Figure

OURS = "blockflow"

NOISE = 5.0
"""Per cent of the machine that others used, above which a remark is made."""


@dataclass(frozen=True, slots=True)
class Values:
    """One figure of one contender in each round, or a ratio in each round."""

    each: tuple[float, ...]
    middle: float

    def __str__(self) -> str:
        least, middle, most = (number(value) for value in (min(self.each), self.middle, max(self.each)))
        return middle if least == most else f"{middle} ({least}–{most})"


def values(record: Record, contender: str, figure: Figure) -> Values | None:
    """A figure of a contender in each round; None if it was not asked, or has no run that counts."""
    good: list[list[Measurement]] = [
        [
            taken.measured
            for taken in record.taken
            if (taken.contender, taken.label) == (contender, label) and not taken.measured.failure
        ]
        for label in (figure.labels if contender == OURS else figure.their_labels)
    ]
    if not all(good):
        return None
    # Of a run that was made less often than another, the last one stands for the rounds that it lacks.
    rounds = range(max(map(len, good)))
    each = [figure.value(*(measured[min(i, len(measured) - 1)] for measured in good)) for i in rounds]
    return Values(tuple(each), median(each))


def ratio(ours: Values, theirs: Values) -> Values | None:
    """Ours over theirs: of the medians, and in each round."""
    if not theirs.middle or 0 in theirs.each:
        return None
    rounds = range(max(len(ours.each), len(theirs.each)))
    each = [ours.each[min(i, len(ours.each) - 1)] / theirs.each[min(i, len(theirs.each) - 1)] for i in rounds]
    return Values(tuple(each), ours.middle / theirs.middle)


def number(value: float) -> str:
    """Three digits that count; whole numbers as they are.

    >>> number(123456.7), number(12.345), number(0.012345), number(-0.5), number(97336.0)
    ('123,000', '12.3', '0.0123', '-0.500', '97,336')
    """
    if value == int(value):
        return f"{value:,.0f}"
    if abs(value) >= 99.95:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}"


def newest(directory: Path) -> list[Record]:
    """The newest record of each question that has one, in the order of the questions."""
    found = []
    for name in MAKERS:
        paths = sorted(directory.glob(f"????-??-??-{name}.json"))
        if paths:
            found.append(Record.load(paths[-1]))
    return found


def write(directory: Path) -> Path:
    """Write the page about all records of a directory, and return its path."""
    records = newest(directory)
    parts = [
        "# Results",
        "Written by `python -m benchmarks`; what is measured and how: `docs/design/performance.md`. Figures are "
        "medians over rounds, with the smallest and the largest. Ratios are blockflow's figure over the peer's, with "
        "the smallest and the largest of single rounds.",
        "![overview](overview.svg)",
        *(section(record) for record in records),
    ]
    path = directory / "README.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def section(record: Record) -> str:
    """What is said about one question."""
    asked = question(record.question, quick=record.quick)
    machine = record.machine
    return "\n\n".join(
        [
            f"## {asked.title}",
            f"Goal: {asked.goal}.",
            _table(record, asked.figures),
            *_problems(record),
            f"`{record.command}`, {record.date[:10]}; {machine['processor']}, {machine['cores']} cores, "
            f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}, "
            f"blockflow {machine['commit']}. {_noise(record)}",
        ]
    )


def _table(record: Record, figures: Sequence[Figure]) -> str:
    """Figures as rows; contenders, and ratios to them, as columns."""
    asked = {taken.contender for taken in record.taken} | set(record.missing)
    names = [name for name in TITLES if name in asked]
    found = {name: [values(record, name, figure) for figure in figures] for name in names}
    columns = [(TITLES[name], found[name]) for name in names]
    columns += [
        (
            f"ratio to {TITLES[name]}",
            [
                ratio(ours, theirs) if figure.compared and ours and theirs else None
                for figure, ours, theirs in zip(figures, found[OURS], found[name], strict=True)
            ],
        )
        for name in names
        if name != OURS and OURS in found
    ]
    lines = [
        "| | " + " | ".join(title for title, _ in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(
            f"| {figure.name} | " + " | ".join(str(cells[row] or "–") for _, cells in columns) + " |"
            for row, figure in enumerate(figures)
        ),
        "| rounds | " + " | ".join(_rounds(record, name) for name in names) + " |" * (len(columns) - len(names) + 1),
    ]
    return "\n".join(lines)


def _rounds(record: Record, contender: str) -> str:
    """How many runs of each label counted, of how many."""
    every = [taken for taken in record.taken if taken.contender == contender]
    good: dict[str, int] = {}
    for taken in every:
        good[taken.label] = good.get(taken.label, 0) + (not taken.measured.failure)
    failed = sum(bool(taken.measured.failure) for taken in every)
    counts = sorted(set(good.values()))
    text = "–".join(map(str, [counts[0], counts[-1]] if len(counts) > 1 else counts)) or "0"
    return f"{text}, {failed} failed" if failed else text


def _problems(record: Record) -> list[str]:
    """Everything that went wrong, each different thing once, with its last lines."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for name, why in record.missing.items():
        said[TITLES[name], "", "has no environment"] = why.splitlines()
    for taken in record.taken:
        measured = taken.measured
        where = TITLES[taken.contender], taken.label
        if measured.failure:
            said[*where, f"failed: {measured.failure}"] = measured.last_lines
        if measured.left_behind:
            said[*where, f"left {measured.left_behind} processes behind, which were killed"] = []
    problems = []
    for (contender, label, what), lines in said.items():
        head = f"{contender}{f' ({label})' if label else ''} {what}."
        problems.append("\n".join([head, "```", *lines, "```"]) if lines else head)
    return problems


def _noise(record: Record) -> str:
    """How much of the machine somebody else used meanwhile."""
    wall = sum(taken.measured.wall_seconds for taken in record.taken)
    others = sum(max(0.0, taken.measured.other_cpu_seconds) for taken in record.taken)
    if not wall:
        return "Nothing was measured."
    share = 100 * others / (wall * record.machine["cores"])
    noisy = " **The machine was not quiet.**" if share > NOISE else ""
    return f"Other processes used {share:.0f} % of the machine meanwhile.{noisy}"
