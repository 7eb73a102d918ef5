"""Blocks that take too long: does nobody else run one while C code of the process that is ended still writes?"""

from __future__ import annotations

import functools
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from blockflow import Block, Roi, Task, run_blockwise
from tests.chaos.guest import serve
from tests.chaos.scene import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXIT_SECONDS = 1.0
"""How long the process takes to end: one with a hundred gigabytes does."""

LINE = 64
"""Bytes of a line: of one write, so that lines of two processes do not mix."""


def write_for_ever(path: str, block: Block) -> None:
    """A block function that writes, and does not end; and a process that takes its time to end, and writes on."""
    descriptor = os.open(f"{path}.{block.index}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    leave = os._exit

    def slowly(code: int) -> None:
        threading.Event().wait(EXIT_SECONDS)
        leave(code)

    os._exit = slowly  # type: ignore[assignment]
    while True:
        os.write(descriptor, f"{block.attempt}".encode().ljust(LINE - 1) + b"\n")
        time.sleep(0.001)


def run_script(path: str, *, elsewhere: bool) -> None:
    """A worker script, as if on another machine or not: the first attempt at the block never ends."""
    serve(functools.partial(work, path), elsewhere=elsewhere)


def work(path: str, block: Block) -> None:
    """Write, in the first attempt for ever."""
    try:
        os.close(os.open(f"{path}.first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        with open(f"{path}.{block.index}", "ab", buffering=0) as file:
            file.write(f"{block.attempt}".encode().ljust(LINE - 1) + b"\n")
    else:
        write_for_ever(path, block)


def starting_scripts(path: str, root: str, *, elsewhere: bool) -> Callable[[], None]:
    """A process function that runs a worker script."""

    def start() -> None:
        import subprocess
        import sys

        code = f"from tests.chaos.test_timeouts import run_script; run_script({path!r}, elsewhere={elsewhere})"
        sys.exit(subprocess.call([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": root}))

    return start


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_block_that_took_too_long_runs_again_when_its_process_is_gone(tmp_path: Path, *, elsewhere: bool) -> None:
    path = tmp_path / "written"
    one = Roi((0,), (1,))
    two = Roi((0,), (2,))
    start = starting_scripts(str(path), str(ROOT), elsewhere=elsewhere)
    task = Task("write", two, one, one, start, num_workers=2, timeout=1.0, max_retries=5)
    result = run_blockwise(
        [task], progress=False, summary=False, run_dir=tmp_path / "run", host="127.0.0.1" if elsewhere else None
    )
    assert result, result
    written = [[int(line) for line in (tmp_path / f"written.{index}").read_bytes().split()] for index in (0, 1)]
    assert max(len(set(attempts)) for attempts in written) > 1, "one of the blocks ran again"
    for attempts in written:
        assert attempts == sorted(attempts), "the process that was ended wrote after another one had begun"
