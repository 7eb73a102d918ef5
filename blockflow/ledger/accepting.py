"""How does a run go on with another plan?

Tasks are known by their ids. A task whose blocks are the same keeps everything. Of one whose blocks differ, those are
done that are covered by done blocks; how often and how long they ran is not known. All of it becomes a snapshot for the
new plan, in one step, behind which no record of the old plan counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from blockflow.ledger import records as rec
from blockflow.ledger.carry_over import carry_over
from blockflow.ledger.chunks import DTYPES, Chunks
from blockflow.ledger.identity import same_blocks
from blockflow.ledger.snapshot import SnapshotContents
from blockflow.scheduler.block_states import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockflow.ledger.history import History
    from blockflow.ledger.identity import PlanIdentity, TaskIdentity
    from blockflow.ledger.records import Record


def contents_for(history: History, plan: PlanIdentity, run: str) -> SnapshotContents:
    """What becomes of the notes of a run under another plan."""
    old = dict(enumerate(history.plan.tasks))
    new = {task.task_id: (number, task) for number, task in enumerate(plan.tasks)}
    notes: list[Record] = []
    for note in [*history.changes.notes(), *history.version_notes()]:
        if isinstance(note, rec.CodeKnown):
            number, task = new.get(old[note.task].task_id, (0, None))
            if task is not None:
                notes.append(structs.replace(note, task=number))
        elif isinstance(note, rec.WorkerKnown | rec.BlockFailed | rec.Mishaps | rec.BlocksOfVersion):
            number, task = new.get(old[note.task].task_id, (0, None))
            if isinstance(note, rec.WorkerKnown) or (task is not None and same_blocks(old[note.task], task)):
                notes.append(structs.replace(note, task=number))
        else:
            notes.append(note)
    return SnapshotContents(sequence=history.next_number - 1, run=run, plan=plan, notes=notes)


def blocks_for(history: History, task: TaskIdentity) -> Iterator[tuple[int, dict[str, bytes]]]:
    """What is known of the blocks of a task of another plan, as chunks for a snapshot."""
    for number, old in enumerate(history.plan.tasks):
        if old.task_id != task.task_id:
            continue
        if same_blocks(old, task):
            return history.encoded(number, None)
        return _covered(history, number, task)
    return iter(())


def _covered(history: History, number: int, task: TaskIdentity) -> Iterator[tuple[int, dict[str, bytes]]]:
    done = history.task(number).states == BlockState.DONE
    states = carry_over(history.grids[number], done, task.grid) * np.uint8(BlockState.DONE)
    layout = Chunks(task.grid.shape)
    for chunk, begin in enumerate(layout.edges.tolist()):
        here = states[begin : begin + layout.length(chunk)]
        if here.any():
            unknown = {name: np.zeros(len(here), dtype=dtype) for name, dtype in DTYPES.items()}
            yield chunk, {name: layout.encode(values) for name, values in {**unknown, "state": here}.items()}
