"""Consolidated metadata: what a group says about all below it, and what is dropped when that changes.

It is a copy of the documents of its members in one. Readers take it for the truth and do not see what is added later,
so what adds to a group drops it. It is not made anew: of two processes that add at once, the slower one would write a
copy without what the other has added. ``zarr.consolidate_metadata`` makes it again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from zarr.core.buffer import default_buffer_prototype

from blockflow.arrays.store_calls import wait_for

if TYPE_CHECKING:
    from blockflow.arrays.places import Place

__all__ = ["drop_consolidated"]


def drop_consolidated(place: Place) -> None:
    """Drop the consolidated metadata of a place and of the groups above it, if they have any."""
    buffers = default_buffer_prototype()

    async def drop() -> None:
        for group in (place, *place.ancestors):
            key = f"{group.path}/zarr.json".lstrip("/")
            document = await group.store.get(key, buffers)
            said = {} if document is None else json.loads(document.to_bytes())
            if said.pop("consolidated_metadata", None) is not None:
                await group.store.set(key, buffers.buffer.from_bytes(json.dumps(said, indent=2).encode()))
            older = f"{group.path}/.zmetadata".lstrip("/")
            if await group.store.exists(older):
                await group.store.delete(older)

    wait_for(drop())
