"""One block: every frame is in the share of one image."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blockflow.recipes.background_block import _share
from blockflow.recipes.background_input import Stack


@given(st.integers(1, 500), st.integers(1, 60), st.data())
def test_shares_are_whole_chunks_and_cover_all_frames(count: int, chunk: int, data: st.DataObject) -> None:
    images = data.draw(st.integers(1, 2 * count))
    stored = SimpleNamespace(shape=(count, 1, 1), dtype=np.dtype(np.uint8), chunks=(chunk, 1, 1), __getitem__=None)
    bounds = [_share(Stack(stored), image, images) for image in range(images + 1)]
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-1]) == (0, count)
    assert all(bound % chunk == 0 for bound in bounds[:-1])
