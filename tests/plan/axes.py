"""Axes for tests: any that can be planned, and what their blocks do by asking for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from blockflow.plan.axis import Span
from blockflow.plan.balance import balanced_axis
from blockflow.plan.regular import FITS, regular_axis

if TYPE_CHECKING:
    from blockflow.plan.axis import AxisLike
    from blockflow.plan.grid import Axis


def spans(axis: AxisLike) -> list[Span]:
    return [
        Span(axis.read_begin(i), axis.write_begin(i), axis.write_end(i), axis.read_end(i)) for i in range(axis.count)
    ]


def cuts(axis: AxisLike) -> list[int]:
    """n + 1 places where writes begin and end."""
    return [axis.write_begin(i) for i in range(axis.count)] + [axis.write_end(axis.count - 1)]


def widths(axis: AxisLike) -> list[int]:
    return [span.read_end - span.read_begin for span in spans(axis)]


@st.composite
def regular_axes(draw: st.DrawFn, most: int = 40) -> Axis:
    size = draw(st.integers(1, most))
    multiple_of = draw(st.integers(1, min(5, size)))
    fit = draw(st.sampled_from(FITS))
    return regular_axis(
        size,
        draw(st.none() | st.integers(multiple_of, size if fit == "valid" else most)),
        before=draw(st.integers(0, 9)),
        after=draw(st.integers(0, 9)),
        fit=fit,
        clip=draw(st.booleans()),
        multiple_of=multiple_of,
        offset=draw(st.integers(-5, 5)),
        voxel_size=draw(st.integers(1, 3)),
    )


@st.composite
def balanced_axes(draw: st.DrawFn, most: int = 120) -> Axis:
    max_size = draw(st.integers(1, 30))
    overlap = draw(st.integers(0, max_size - 1))
    exact = draw(st.booleans())
    return balanced_axis(
        draw(st.integers(1, most)),
        max_size,
        overlap=overlap,
        multiple_of=draw(st.integers(1, max_size - overlap)),
        min_size=None if exact else draw(st.none() | st.integers(overlap + 1, max_size)),
        workers=1 if exact else draw(st.integers(1, 5)),
        balance=draw(st.sampled_from(["more", "fewer", "nearest"])),
        exact=exact,
        offset=draw(st.integers(-5, 5)),
        voxel_size=draw(st.integers(1, 3)),
    )


def planned_axes() -> st.SearchStrategy[Axis]:
    """Any axis that can be planned."""
    return regular_axes() | balanced_axes()


@dataclass(frozen=True)
class Irregular:
    """An axis cut anywhere; nobody plans such ones, but the protocol allows them."""

    cuts: tuple[int, ...]
    before: int
    after: int

    @property
    def count(self) -> int:
        return len(self.cuts) - 1

    def write_begin(self, position: int, /) -> int:
        return self.cuts[position]

    def write_end(self, position: int, /) -> int:
        return self.cuts[position + 1]

    def read_begin(self, position: int, /) -> int:
        return max(self.cuts[position] - self.before, self.cuts[0])

    def read_end(self, position: int, /) -> int:
        return min(self.cuts[position + 1] + self.after, self.cuts[-1])
