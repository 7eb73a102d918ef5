"""A worker script on another machine: its driver does not see whether it lives.

It works on blocks one by one. The one that stays is told so: it stays at its first block until a file called ``go`` is
there, or in C code that keeps Python's lock, and then writes. All others wait until it has begun, and write at once:
into files named after the attempt, so that a write too many is seen.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import blockflow.net.link
from blockflow import Block, Client

if TYPE_CHECKING:
    from collections.abc import Callable

STAYS = "GUEST_STAYS"
"""The environment variable that tells it, and how."""

IN_PYTHON = "in Python"
IN_C = "in C"

IN_C_SECONDS = 60
"""How long it stays there."""


def wait_for(file: Path) -> None:
    """Wait for what others do."""
    while not file.exists():
        time.sleep(0.01)


def work(folder: Path, block: Block) -> None:
    """Write a file for a block."""
    name = f"{block.index}-{block.attempt}"
    (folder / f"began-{name}").touch()
    if STAYS in os.environ:
        (folder / "staying.draft").write_text(f"{os.getpid()} {block.index} {block.attempt}")
        (folder / "staying.draft").rename(folder / "staying")
        if os.environ[STAYS] == IN_C:
            ctypes.PyDLL(None).sleep(IN_C_SECONDS)
        else:
            wait_for(folder / "go")
    else:
        wait_for(folder / "staying")
    (folder / f"wrote-{name}").touch()


def serve(work: Callable[[Block], None], *, elsewhere: bool = True) -> None:
    """Work until there are no more blocks, as if on another machine or not."""
    if elsewhere:
        blockflow.net.link.this_place = lambda: "another machine"  # type: ignore[attr-defined]
    client = Client()
    while True:
        with client.acquire_block() as block:
            if block is None:
                return
            work(block)


if __name__ == "__main__":
    serve(functools.partial(work, Path(sys.argv[1])))
