"""What are the limits? Each piece of a block's way through driver and worker, measured alone.

``python -m benchmarks.limits`` prints a table; the figures are smallest times of several repetitions, in microseconds.
The pieces are the product's own; only sockets and processes are left out, or measured by themselves.
"""

from __future__ import annotations

import socket
import threading
import time
from timeit import repeat
from typing import TYPE_CHECKING

from blockflow import Block, Roi, Task
from blockflow.plan.plan import compile_plan
from blockflow.scheduler import events as ev
from blockflow.scheduler.scheduler import Scheduler
from blockflow.wire.messages import (
    Granted,
    Report,
    Welcome,
    decode_from_driver,
    encode,
    layout_of,
    pack_runs,
    unpack_runs,
)
from blockflow.wire.session import WorkerSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blockflow.plan.plan import Plan

LEASE = 4096
"""Blocks in a lease."""

ROUND_TRIPS = 2000


def nothing(block: Block | None = None) -> None:
    """A block function."""


def smallest(action: Callable[[], object], number: int = 1, repetitions: int = 7) -> float:
    """Smallest time of one call in microseconds."""
    return 1e6 * min(repeat(action, number=number, repeat=repetitions)) / number


def python() -> Iterator[tuple[str, float]]:
    """What no worker written in Python can do without."""
    lock = threading.RLock()

    def locked() -> None:
        with lock:
            pass

    yield "call of an empty function", smallest(nothing, 100_000)
    yield "reading a clock", smallest(time.perf_counter, 100_000)
    yield "taking and leaving a lock", smallest(locked, 100_000) - smallest(nothing, 100_000)


def worker() -> Iterator[tuple[str, float]]:
    """A block in the worker, without the socket."""
    plan = compile_plan([line(LEASE)]).tasks[0]
    deep = compile_plan([conflicting(10)]).tasks[0]
    yield "making a Block", smallest(lambda: Block.of_grid(plan.grid, 7, total=plan.total, task_id="t"), 20_000)

    def both_rois() -> object:
        block = Block.of_grid(deep.grid, 7, total=deep.total, task_id="t")
        return block.read_roi.begin, block.read_roi.end, block.write_roi.begin, block.write_roi.end

    yield "and looking at begin and end of both ROIs (3-D)", smallest(both_rois, 5_000)

    def lease() -> None:
        session = WorkerSession()
        session.hello(run="r", task="t", process=None, host="h", pid=1, now=0.0)
        session.receive(Welcome(0, layout_of(plan.grid), plan.total, 10**8, None, True))
        session.ask(0.0)
        session.receive(Granted(1, 0, pack_runs(list(range(LEASE)))))
        while (given := session.next_block(0.0)) is not None:
            session.block_done(given, None, 0.0, 0.0, asks=True)

    yield "its session, a block of a lease", smallest(lease) / LEASE


def messages() -> Iterator[tuple[str, float]]:
    """What is said of a lease."""
    runs = pack_runs(list(range(LEASE)))
    scattered = pack_runs(list(range(0, 3 * LEASE, 3)))
    for what, packed in (("in a row", runs), ("apart", scattered)):

        def granted(packed: tuple[int, ...] = packed) -> None:
            decode_from_driver(encode(Granted(1, 0, packed)))
            unpack_runs(packed, 10**9)

        yield f"a grant of {LEASE} blocks {what}: said and understood", smallest(granted, 20)
    report = Report(1, LEASE, 1000, None, True, 1)
    yield "a report: said", smallest(lambda: encode(report), 20_000)


def round_trips() -> Iterator[tuple[str, float]]:
    """There and back on this machine, with a thread at the other end."""
    yield "round trip over a local socket", _round_trip(*socket.socketpair())


def _round_trip(here: socket.socket, there: socket.socket) -> float:
    def echo() -> None:
        while data := there.recv(100):
            there.sendall(data)

    def ask() -> None:
        here.sendall(b"x" * 50)
        here.recv(100)

    thread = threading.Thread(target=echo)
    thread.start()
    try:
        return smallest(ask, ROUND_TRIPS)
    finally:
        here.shutdown(socket.SHUT_WR)
        thread.join()
        here.close()
        there.close()


def scheduler() -> Iterator[tuple[str, float]]:
    """All blocks of a task handed out to two workers, and reported done."""
    for what, task in (("without conflicts", line(2**20)), ("3-D, 26 conflicts", conflicting(60))):
        plan = compile_plan([task])
        seconds, leases = min(_drive(plan) for _ in range(3))
        size = plan.tasks[0].grid.size
        yield f"scheduler, {what}: a block", 1e6 * seconds / size
        yield f"scheduler, {what}: a lease (of {size // leases} blocks)", 1e6 * seconds / leases


def _drive(plan: Plan) -> tuple[float, int]:
    """Seconds and leases until everything is done, if a block takes 15 microseconds."""
    began, now, leases = time.process_time(), 0.0, 0
    scheduler = Scheduler(plan, largest_lease=LEASE)
    granted: list[ev.GrantLease] = []

    def tell(*events: ev.Event) -> None:
        for event in events:
            granted.extend(said for said in scheduler.handle(event, now) if isinstance(said, ev.GrantLease))

    for worker in range(2):
        tell(ev.WorkerJoined(worker=worker, task=0), ev.BlocksAsked(worker=worker))
    while granted:
        lease = granted.pop(0)
        leases += 1
        seconds = 15e-6 * len(lease.indices)
        now += seconds
        done = ev.BlocksReported(worker=lease.worker, lease=lease.lease, upto=len(lease.indices), seconds=seconds)
        tell(done, ev.BlocksAsked(worker=lease.worker))
    return time.process_time() - began, leases


def line(blocks: int) -> Task:
    """Blocks in a row, without conflicts."""
    one = Roi((0,), (1,))
    return Task("t", Roi((0,), (blocks,)), one, one, nothing, read_write_conflict=False, num_workers=2)


def conflicting(edge: int) -> Task:
    """Blocks in a cube, each in conflict with its 26 neighbours."""
    grown = Roi((0, 0, 0), (10, 10, 10)), Roi((1, 1, 1), (8, 8, 8))
    return Task("t", Roi((0, 0, 0), (8 * edge + 2,) * 3), *grown, nothing, num_workers=2)


def main() -> None:
    """Print the table."""
    for part in (python, worker, messages, round_trips, scheduler):
        for what, microseconds in part():
            print(f"{microseconds:10.2f}  {what}")


if __name__ == "__main__":
    main()
