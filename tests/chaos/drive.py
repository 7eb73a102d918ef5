"""What is run here: a script of a user, with two tasks whose output tells in which order their blocks ran.

``first`` writes; ``second`` reads what ``first`` wrote, with context, and writes in place of its own. Every block
writes in two steps with a pause between them, so that whoever reads too early, or writes too late, leaves other bytes
than an undisturbed run does. Whatever a block function does is told in one file for each process.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from blockflow import Block, Roi, Task, run_blockwise

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 64
CONTEXT = 32


def tasks_in(folder: str, *, blocks: int, seconds: float, workers: int) -> list[Task]:
    """The tasks; ``second`` has one block less.

    Args:
        folder: Where everything is written.
        blocks: Of the first task.
        seconds: That a block takes.
        workers: Of each task.
    """

    def tell(what: str, block: Block) -> None:
        import os

        descriptor = os.open(f"{folder}/trace/{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{what} {block.task_id} {block.index} {block.attempt}\n".encode())
        os.close(descriptor)

    def write(block: Block, seed: int) -> None:
        import os
        import time
        import zlib

        begin, size = block.write_roi.begin[0], block.write_roi.shape[0]
        values = [zlib.crc32(f"{seed} {place}".encode()) & 0xFF for place in range(begin, begin + size)]
        descriptor = os.open(f"{folder}/{block.task_id}", os.O_WRONLY)
        for half in (0, 1):
            time.sleep(seconds / 2)
            at = half * size // 2
            os.pwrite(descriptor, bytes(values[at : at + size // 2]), begin + at)
        os.close(descriptor)

    def first(block: Block) -> None:
        tell("began", block)
        write(block, 1)
        tell("ended", block)

    def second(block: Block) -> None:
        import os
        import zlib

        tell("began", block)
        descriptor = os.open(f"{folder}/first", os.O_RDONLY)
        seen = os.pread(descriptor, block.read_roi.shape[0], block.read_roi.begin[0])
        os.close(descriptor)
        write(block, zlib.crc32(seen))
        tell("ended", block)

    total = Roi((0,), (blocks * BLOCK,))
    one = Roi((0,), (BLOCK,))
    above = Task("first", total, one, one, first, num_workers=workers, read_write_conflict=False)
    wide, inner = Roi((0,), (BLOCK + 2 * CONTEXT,)), Roi((CONTEXT,), (BLOCK,))
    return [Task("second", total, wide, inner, second, num_workers=workers, upstream_tasks=[above])]


def prepare(folder: Path, *, blocks: int) -> None:
    """Make the files that blocks write into."""
    (folder / "trace").mkdir(parents=True)
    for name in ("first", "second"):
        (folder / name).write_bytes(bytes(blocks * BLOCK))


def main(folder: str, plan: dict[str, Any], options: dict[str, Any]) -> int:
    """Run, and tell how it went; 0 if all is well."""
    result = run_blockwise(tasks_in(folder, **plan), progress=False, summary=False, **options)
    sys.stdout.write(json.dumps({name: state.completed_count for name, state in result.items()}) + "\n")
    return 0 if result else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])))
