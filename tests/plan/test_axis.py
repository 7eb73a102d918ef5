"""Do the grids of this package keep what the protocols promise?"""

from __future__ import annotations

import typing

from blockflow.plan import axis
from blockflow.plan.grid import Grid, RegularAxis
from blockflow.plan.tiling import tile


def test_grids_and_axes_have_everything_that_the_protocols_name() -> None:
    grid = tile(total=((0, 9),), read=((0, 3),), write=((1, 2),), fit="valid")
    for protocol, value in ((axis.GridLike, grid), (axis.AxisLike, grid.axes[0])):
        names = {name for name in vars(protocol) if not name.startswith("_")} | set(typing.get_type_hints(protocol))
        assert names
        assert all(hasattr(value, name) for name in names), names
    as_grid: axis.GridLike = Grid((RegularAxis(first=0, step=1, count=1, before=0, after=0),))
    assert as_grid.axes[0].write_end(0) == 1
