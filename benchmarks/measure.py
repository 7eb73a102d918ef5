"""What did a command cost: time, CPU seconds of all its processes, and memory?

A command is measured as a whole process tree, in a fresh process each time:

1. This process becomes the reaper of orphans, so that the CPU seconds of *every* process that the command starts end
   up in its own account of waited-for children: those of workers that lead a session of their own, and those of
   workers that outlive the command.
2. It sleeps until the command ends, and wakes now and then, ever less often, to read the peak memory of the processes.
3. What is left behind is counted and ended.

Linux only: ``/proc``, ``pidfd`` and ``prctl`` are used.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Item = TypeVar("Item")

FIRST_LOOK_SECONDS = 0.02
LOOK_GROWTH = 1.3
LAST_LOOK_SECONDS = 0.5
"""A look costs about half a millisecond: at this rate a thousandth of a core."""

END_SECONDS = 5.0
"""How long processes may take to end after the command that started them."""

LAST_LINES = 15

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run of a command."""

    wall_seconds: float
    """From its start to the end of its first process."""
    cpu_seconds: float
    """User and system time of all its processes."""
    driver_mb: float
    """Peak resident memory of its first process, in 10^6 bytes; may miss its last half second."""
    worker_mb: float
    """The same of the largest other process; 0 if there is none."""
    other_cpu_seconds: float
    """CPU time that everybody else used on this machine meanwhile: how noisy it was."""
    left_behind: int
    """Processes that had to be killed after the command had ended."""
    reported: dict[str, Any] = field(default_factory=dict)
    """What the command printed as its last line, if that is a JSON object."""
    failure: str = ""
    """Why this run does not count; empty if it does."""
    last_lines: list[str] = field(default_factory=list)
    """The end of its output, if it failed."""


def run(
    command: Sequence[str | Path],
    *,
    directory: Path,
    variables: Mapping[str, str],
    timeout: float,
    reports: bool = True,
) -> Measurement:
    """Run a command to its end and measure it.

    Args:
        command: Program and arguments.
        directory: Where it runs; its output is left there.
        variables: Its environment.
        timeout: Seconds after which it is killed, with everything it started.
        reports: Whether it has to print a JSON object as its last line.
    """
    out, err = directory / "stdout.txt", directory / "stderr.txt"
    strangers = set(_children(os.getpid()))
    _reap_orphans(True)
    try:
        busy, used, began = _busy_seconds(), _used_by_children(), time.monotonic()
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=directory,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
            )
        peaks = _watch(process.pid, began + timeout)
        wall = time.monotonic() - began
        busy = _busy_seconds() - busy
        in_time = peaks is not None
        if not in_time:
            _kill_tree(process.pid)
        code = process.wait()
        left_behind = _end_orphans(strangers)
        cpu = _used_by_children() - used
    finally:
        _reap_orphans(False)
    driver, worker = peaks or (0.0, 0.0)
    reported = _last_object(out)
    failure = (
        f"took more than {timeout:.0f} s"
        if not in_time
        else f"ended with code {code}"
        if code
        else "printed no result"
        if reports and not reported
        else ""
    )
    return Measurement(
        wall_seconds=wall,
        cpu_seconds=cpu,
        driver_mb=driver,
        worker_mb=worker,
        other_cpu_seconds=busy - cpu,
        left_behind=left_behind,
        reported=reported,
        failure=failure,
        last_lines=_last_lines(out, err) if failure else [],
    )


def interleave(items: Sequence[tuple[Item, int]]) -> Iterator[tuple[int, Item]]:
    """Each item as often as it says, in rounds.

    >>> [item for _, item in interleave([("a", 3), ("b", 1), ("c", 2)])]
    ['a', 'b', 'c', 'a', 'c', 'a']
    """
    for number in range(max((times for _, times in items), default=0)):
        for item, times in items:
            if number < times:
                yield number, item


def _watch(pid: int, deadline: float) -> tuple[float, float] | None:
    """Peak memory of a process and of its largest descendant, when it has ended; None if it has not by then."""
    peaks: dict[int, float] = {pid: 0.0}
    pause = FIRST_LOOK_SECONDS
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while not poll.poll(1000 * max(0.0, min(pause, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return None
            for each in [pid, *_descendants(pid)]:
                # The newest look counts, not the largest: until a new process runs its own program, it has the
                # memory of the one that started it.
                peaks[each] = _peak_mb(each) or peaks.get(each, 0.0)
            pause = min(pause * LOOK_GROWTH, LAST_LOOK_SECONDS)
    finally:
        os.close(handle)
    driver = peaks.pop(pid)
    return driver, max(peaks.values(), default=0.0)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended while it was looked at
    return found


def _descendants(pid: int) -> list[int]:
    found = _children(pid)
    for child in found:
        found += _children(child)  # the list grows while it is walked, until the whole tree is in it
    return found


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0  # it has ended, and waits to be waited for


def _reap_orphans(yes: bool) -> None:
    """Whether processes whose parent ends become children of this one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot become the reaper of orphans")


def _end_orphans(strangers: set[int]) -> int:
    """Wait for what became a child of this process, kill what does not end, and return how many those were."""
    killed: set[int] = set()
    deadline = time.monotonic() + END_SECONDS
    while orphans := set(_children(os.getpid())) - strangers:
        for pid in orphans:
            if time.monotonic() >= deadline and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.005)
    return len(killed)


def _kill_tree(pid: int) -> None:
    for each in [pid, *_descendants(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def _used_by_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _busy_seconds() -> float:
    """CPU time used by everybody since the machine started; time that its host took away counts too."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _last_object(path: Path) -> dict[str, Any]:
    lines = path.read_text(errors="replace").splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _last_lines(*paths: Path) -> list[str]:
    lines: list[str] = []
    for path in paths:
        # A progress bar is one line that is written again and again.
        lines += [line.rpartition("\r")[2] for line in path.read_text(errors="replace").split("\n") if line.strip()]
    return lines[-LAST_LINES:]
