"""A run in a process of its own; its arguments are the run directory, the host, and a file for a line per block."""

from __future__ import annotations

import sys
import time

from blockflow import Roi, Task, run_blockwise


def main(run_dir: str, host: str, begun: str) -> int:
    def work(block: object) -> None:
        with open(begun, "a") as file:
            file.write("block\n")
        time.sleep(0.05)

    unit = Roi((0,), (1,))
    task = Task("t", Roi((0,), (400,)), unit, unit, work, read_write_conflict=False, num_workers=2)
    try:
        run_blockwise(task, run_dir=run_dir, progress=False, summary=False, host=host or None)
    except Exception as error:
        print("RAISED", type(error).__name__, error, "| context:", repr(error.__context__), flush=True)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
