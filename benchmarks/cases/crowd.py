"""How much of a core does a driver need for hundreds of workers, and how long do they wait for a block?

``crowd.py <contender> <workers> <blocks of each>``. Workers are threads of two processes, each with a client and a
connection of its own, that sleep a second for each block. The wait is the time in ``acquire_block``, which also
reports the block before. What is measured begins when the last worker got its first block, and ends when the first one
gets no more.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from time import perf_counter

import contenders
import numpy  # noqa: F401

SECONDS = 1.0


def crowd(contender: str, directory: str, workers: int) -> None:
    """What a worker process does: many clients, and a file with when each waited and how long."""
    waits: list[list[tuple[float, float]]] = []  # of each client: when it got a block, and how long that took

    def work() -> None:
        mine: list[tuple[float, float]] = []
        waits.append(mine)
        client = contenders.load(contender).Client()
        while True:
            asked = time.monotonic()
            with client.acquire_block() as block:
                if block is None:
                    return
                granted = time.monotonic()
                mine.append((granted, granted - asked))
                time.sleep(SECONDS)

    threads = [threading.Thread(target=work) for _ in range(workers // contenders.WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open(os.path.join(directory, f"{os.getpid()}.waits"), "w") as file:
        json.dump(waits, file)


def used_cpu(samples: list[tuple[float, float]], begin: float, end: float) -> float:
    """CPU seconds a second of this process, between two times."""
    inside = [sample for sample in samples if begin <= sample[0] <= end]
    (first, before), (last, after) = inside[0], inside[-1]
    return (after - before) / (last - first)


def main(contender: str, workers: int, each: int) -> None:
    directory = os.getcwd()
    samples: list[tuple[float, float]] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.2):
            samples.append((time.monotonic(), time.process_time()))

    contenders.load(contender)
    began = perf_counter()
    work = functools.partial(crowd, contender, directory, workers)
    task = contenders.make_task(contender, "crowd", (10,), 0, (workers * each,), work, conflict=False)
    threading.Thread(target=sample, daemon=True).start()
    contenders.run(contender, [task])
    ended.set()
    clients: list[list[tuple[float, float]]] = []
    for name in os.listdir(directory):
        if name.endswith(".waits"):
            with open(os.path.join(directory, name)) as file:
                clients += json.load(file)
    if sum(map(len, clients)) != workers * each:
        sys.exit(f"{sum(map(len, clients))} of {workers * each} blocks were handed out")
    if not all(clients):
        sys.exit(f"{sum(not client for client in clients)} of {workers} workers got no block")
    begin = max(client[0][0] for client in clients)
    end = min(client[-1][0] for client in clients)
    if begin + SECONDS > end:
        sys.exit("the last worker began when the first one had ended: give each more blocks")
    waits = sorted(wait for client in clients for granted, wait in client if begin < granted <= end)
    contenders.report(
        began=began,
        blocks=workers * each,
        driver_cores=used_cpu(samples, begin, end),
        median_wait_seconds=waits[len(waits) // 2],
        p99_wait_seconds=waits[int(0.99 * len(waits))],
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
