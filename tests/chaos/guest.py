"""A worker script on another machine: its driver does not see whether it lives.

It works on blocks one by one. The first worker that begins block 0 stays at it until a file called ``go`` is there, and
then writes, as all others do at once: into a file named after the attempt, so that a write too many is seen.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import blockflow.net.link
from blockflow import Block, Client


def work(folder: Path, block: Block) -> None:
    """Write a file for a block."""
    (folder / f"began-{block.index}-{block.attempt}").write_text(str(os.getpid()))
    if block.index == 0:
        try:
            os.close(os.open(folder / "first-began", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            while not (folder / "go").exists():
                time.sleep(0.01)
    (folder / f"wrote-{block.index}-{block.attempt}").touch()


def main(folder: Path) -> None:
    """Work until there are no more blocks."""
    blockflow.net.link.this_place = lambda: "another machine"  # type: ignore[attr-defined]
    client = Client()
    while True:
        with client.acquire_block() as block:
            if block is None:
                return
            work(folder, block)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
