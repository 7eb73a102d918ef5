"""First blocks: do they all fail for the same reason, so that the rest would only be burnt?

A task whose code cannot work shows it at once. As long as none of its blocks has been done, and all failures have the
same type of error at the same place, each block that is beyond hope counts; after some of them nothing more is handed
out. Blocks that are under way go on: if one of them is done, so does the task. Only failures of this life of the
driver count, because code may have been changed before it was started again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockflow.state.events import BlockFailure

ENOUGH_BLOCKS = 10
"""Different blocks beyond hope. The first blocks lie in one corner of the volume, which may be an odd one; a bug costs
no more than this many, each tried a few times."""

ENOUGH_FAILURES = 3
"""Failures after which a block is beyond hope, even if it may be tried more often."""


class FirstBlocks:
    """What the failures of a task say, while none of its blocks is done."""

    def __init__(self) -> None:
        self.failure: BlockFailure | None = None
        """The first one."""
        self._alike = True
        self._hopeless: set[int] = set()

    def __len__(self) -> int:
        """Blocks beyond hope."""
        return len(self._hopeless)

    def failed(self, failure: BlockFailure, *, times: int, final: bool) -> None:
        """A block has failed, not for the first time perhaps."""
        if self.failure is None:
            self.failure = failure
        self._alike = self._alike and signature(failure) == signature(self.failure)
        if (final or times >= ENOUGH_FAILURES) and len(self._hopeless) < ENOUGH_BLOCKS:
            self._hopeless.add(failure.index)

    @property
    def say_no(self) -> bool:
        """Whether nothing speaks for trying any others."""
        return self._alike and len(self._hopeless) >= ENOUGH_BLOCKS


def signature(failure: BlockFailure) -> tuple[str, str]:
    """Type of error and place in the user's code: what tells one cause from another."""
    return failure.error.partition(":")[0], failure.where
