"""Dependencies between tasks: which blocks of one grid read what a block of another grid writes?

Geometry alone decides. Block b of a task waits for every block of an upstream task whose write box meets b's read
box; the blocks downstream of a block are exactly those that wait for it. The positions whose intervals meet a given
interval are consecutive, so both sets are a product of one range of positions per axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockflow.plan.slices import Indices, Positions, Slices

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blockflow.geometry import Box
    from blockflow.plan.grid import Grid


@dataclass(frozen=True, slots=True)
class Link:
    """What one grid writes and another one reads."""

    upstream_grid: Grid
    downstream_grid: Grid

    def upstream(self, positions: Positions) -> Slices:
        """The blocks of the upstream grid that blocks at `positions` of the downstream grid wait for."""
        return _product(
            above.writing(below.read_begin(here), below.read_end(here))
            for above, below, here in zip(self.upstream_grid.axes, self.downstream_grid.axes, positions, strict=True)
        )

    def downstream(self, positions: Positions) -> Slices:
        """The blocks of the downstream grid that wait for blocks at `positions` of the upstream grid."""
        return _product(
            below.reading(above.write_begin(here), above.write_end(here))
            for above, below, here in zip(self.upstream_grid.axes, self.downstream_grid.axes, positions, strict=True)
        )

    def waiting(self) -> Box:
        """The positions of the downstream grid that wait for anything at all: one range per axis."""
        if self.upstream_grid.size == 0:
            return ((0, 0),) * len(self.upstream_grid.shape)
        return tuple(
            below.reading(above.begin, above.end)
            for above, below in zip(self.upstream_grid.axes, self.downstream_grid.axes, strict=True)
        )


def _product(ranges: Iterable[tuple[Indices, Indices]]) -> Slices:
    starts, stops = zip(*ranges, strict=True)
    counts = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
    return Slices(starts=starts, counts=counts, steps=(1,) * len(starts))
