"""Does the account of a run say what happened, once and clearly?"""

from __future__ import annotations

import numpy as np

from blockflow import BlockStatus, Roi, Scheduler, Task
from blockflow.monitor.summary import FailureTeller, summary
from blockflow.result import result_of
from blockflow.scheduler.events import BlockFailure, TellFailure


def finished(blocks: int = 4, failing: frozenset[int] = frozenset(), **more: object) -> Scheduler:
    task = Task("smooth", Roi((0,), (blocks,)), Roi((0,), (1,)), Roi((0,), (1,)), max_retries=0, **more)  # type: ignore[arg-type]
    scheduler = Scheduler([task])
    while block := scheduler.acquire_block("smooth"):
        block.status = BlockStatus.FAILED if block.index in failing else BlockStatus.SUCCESS
        scheduler.release_block(block)
    return scheduler


def test_a_run_that_did_everything_says_so() -> None:
    text = summary(result_of(finished()), 75.0, "logs")
    assert text.splitlines()[1:] == [
        "Execution summary (1:15)",
        "task          blocks         done   skipped    failed  orphaned",
        "smooth             4            4         0         0         0",
        "all 4 blocks are done",
    ]


def test_skipped_blocks_are_told_from_those_that_ran() -> None:
    some = summary(result_of(finished(mask=np.array([True, False, False, True]))), 0.0, None)
    assert "all 4 blocks are done: 2 were run, 2 had been done before" in some
    everything = summary(result_of(finished(check_blocks=lambda indices: indices >= 0)), 0.0, None)
    assert "everything was done before: each block was found done, and nothing was run" in everything


def test_failures_are_grouped_by_cause_with_examples_and_where_to_look() -> None:
    text = summary(result_of(finished(9, frozenset({1, 3, 5, 7}))), 0.0, "daisy_logs")
    assert "NOT COMPLETE: 4 of 9 blocks are not done" in text
    assert "smooth: 4 failed: released with status FAILED (e.g. block 1, 3, 5)" in text
    assert text.endswith("what the workers printed: daisy_logs/<task>/worker_<n>.out and .err")


def test_equal_failures_are_told_three_times_and_then_only_counted() -> None:
    teller = FailureTeller(finished(10).plan)

    def tell(index: int, error: str) -> str | None:
        return teller.line(TellFailure(task=0, failure=BlockFailure(index=index, error=error), final=False))

    lines = [tell(index, f"ValueError: {index}") for index in range(5)]
    assert lines[0] == "smooth: block 0 at (0,) failed and is tried again: ValueError: 0"
    assert lines[2] is not None
    assert lines[2].endswith("more like this are only counted")
    assert lines[3:] == [None, None]
    assert tell(1, "OSError: other") is not None
