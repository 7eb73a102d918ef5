"""A log that cannot be written costs itself, and no block."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from blockflow.worker_output import ROTATED, WorkerOutput
from tests.run.scene import run, task_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
def test_what_cannot_be_written_is_dropped() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with WorkerOutput(descriptor, None) as output:
        assert output.write(b"abc") == 3
        assert output.write(memoryview(b"abcd")) == 4
    os.close(descriptor)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    output = WorkerOutput(descriptor, None)
    output.write(b"abc")
    output.write(b"abcd")
    free = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(free, descriptor)
    output.write(b"more\n")
    for each in (free, descriptor):
        os.close(each)
    assert (tmp_path / "log").read_text() == "\n[7 bytes are missing here: No space left on device]\nmore\n"


def test_log_that_is_too_large_is_rotated(tmp_path: Path) -> None:
    code = f"""
        import resource, sys
        from blockflow.log_files import open_log
        from blockflow.worker_output import redirect
        import os
        path = {str(tmp_path / "log")!r}
        os.dup2(open_log(path, adds=False), 1)
        redirect("stdout", 1, path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for number in range(45):
            print(f"line {{number:02}}" + "." * 40)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
    old, new = (tmp_path / f"log{ROTATED}").read_text(), (tmp_path / "log").read_text()
    whole = "".join(f"line {number:02}{'.' * 40}\n" for number in range(45))
    assert whole.endswith(old + new)
    assert max(len(old), len(new)) <= 1000


def test_block_that_prints_into_a_full_log_is_done(tmp_path: Path) -> None:
    def work(block: object) -> None:
        import sys

        full = open("/dev/full", "w")  # noqa: SIM115  # it stays open
        os.dup2(full.fileno(), 1)
        os.dup2(full.fileno(), 2)
        for _ in range(1000):
            print("into a full disk" * 10)
        sys.stdout.flush()
        sys.stderr.write("and this\n")

    assert run(task_of(work, 3, num_workers=1, max_retries=0))
