"""Does a worker that reads and writes while it computes report the truth, and hold no more than it should?"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockflow import Block, Grid
from blockflow.errors import UnreachableError
from blockflow.ops import map_blocks
from blockflow.stages import Stages, work_in_stages
from blockflow.wire.held import Given, HeldLease

if TYPE_CHECKING:
    from blockflow.wire.failures import FailureText

SLOW = 0.003
"""Longer than handing on takes, so that stages run side by side."""


class Driver:
    """Hands out the blocks of a line, and takes reports."""

    forked = False

    def __init__(self, size: int, *, lost_after: int | None = None) -> None:
        self.grid = Grid.regular((size,), 1)
        self.lost_after = lost_after
        self.taken = 0
        self.most_held = 0
        self.reports: dict[int, FailureText | None] = {}
        self.lock = threading.Lock()

    def next_block(self) -> tuple[Given, Block] | None:
        with self.lock:
            if self.taken == self.lost_after:
                raise UnreachableError("gone")
            if self.taken == len(self.grid):
                return None
            index = self.taken
            self.taken += 1
            self.most_held = max(self.most_held, self.taken - len(self.reports))
        lease = HeldLease(1, 1, [index])
        block = Block.of_grid(self.grid, index, total=self.grid.total, task_id="t", attempt=index)
        return Given(lease, 0, index, index), block

    def block_done(self, given: Given, failure: FailureText | None, seconds: float, *, asks: bool) -> None:
        assert asks
        assert seconds > 0
        with self.lock:
            assert given.index not in self.reports
            self.reports[given.index] = failure


class Double:
    """Reads a number, doubles it, and writes that; raises where it should."""

    def __init__(self, driver: Driver, fails: dict[int, str], last_ahead: int = 10**6, seconds: float = SLOW) -> None:
        self.driver, self.fails, self.last_ahead, self.seconds = driver, fails, last_ahead, seconds
        self.written: dict[int, int] = {}
        self.failures: list[int] = []
        self.threads: set[str] = set()

    def _does(self, stage: str, block: Block) -> int:
        assert block.index is not None
        if self.seconds:
            time.sleep(self.seconds)  # the work
        if self.fails.get(block.index) == stage:
            raise SystemExit(3) if block.index % 2 else ValueError(f"no {stage}")
        return block.index

    def read(self, block: Block, state: str) -> int:
        assert state == "state"
        return self._does("read", block)

    def compute(self, block: Block, given: int, state: str) -> int:
        assert threading.current_thread() is threading.main_thread()
        return 2 * self._does("compute", block) + 0 * given

    def write(self, block: Block, made: int, state: str) -> None:
        self.threads.add(threading.current_thread().name)
        index = self._does("write", block)
        assert index not in self.driver.reports
        self.written[index] = made

    def failed(self, block: Block, error: BaseException, state: str) -> None:
        assert block.index is not None
        assert isinstance(error, ValueError | SystemExit)
        self.failures.append(block.index)

    def ahead(self, block: Block) -> bool:
        assert block.index is not None
        return block.index <= self.last_ahead


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.dictionaries(st.integers(0, 12), st.sampled_from(["read", "compute", "write"])))
def test_every_block_is_reported_once_with_what_happened_to_it(size: int, fails: dict[int, str]) -> None:
    driver = Driver(size)
    stages = Double(driver, fails)
    assert isinstance(stages, Stages)
    work_in_stages(driver, stages, "state")
    failing = {index for index in fails if index < size}
    assert sorted(driver.reports) == list(range(size))
    assert {index for index, failure in driver.reports.items() if failure} == set(stages.failures) == failing
    assert stages.written == {index: 2 * index for index in range(size) if index not in failing}
    assert driver.most_held <= 3
    assert all(
        "no " in failure.error or "SystemExit" in failure.error for failure in driver.reports.values() if failure
    )


def test_stages_run_side_by_side() -> None:
    begun = {(stage, index): threading.Event() for stage in ("read", "compute", "write") for index in range(8)}

    class Meeting(Double):
        def _does(self, stage: str, block: Block) -> int:
            assert block.index is not None
            begun[stage, block.index].set()
            if (stage, block.index) in (("read", 5), ("compute", 4), ("write", 3)):
                for each in (("read", 5), ("compute", 4), ("write", 3)):
                    assert begun[each].wait(60)
            return super()._does(stage, block)

    driver = Driver(8)
    stages = Meeting(driver, {})
    work_in_stages(driver, stages, "state")
    assert stages.threads == {"MainThread", "blockflow-write"}  # the first block one after the other
    assert driver.most_held == 3
    assert stages.written == {index: 2 * index for index in range(8)}
    assert not [thread for thread in threading.enumerate() if thread.name in ("blockflow-read", "blockflow-write")]


def test_short_blocks_stay_in_one_thread() -> None:
    driver = Driver(20)
    stages = Double(driver, {}, seconds=0)
    work_in_stages(driver, stages, "state")
    assert stages.threads == {"MainThread"}
    assert driver.most_held == 1


def test_in_the_end_no_block_is_taken_that_others_could_do() -> None:
    driver = Driver(8)
    work_in_stages(driver, Double(driver, {}, last_ahead=-1), "state")
    assert driver.most_held == 1


@pytest.mark.parametrize("after", [0, 1, 5])
def test_blocks_under_way_are_finished_when_the_driver_is_gone(after: int) -> None:
    driver = Driver(8, lost_after=after)
    stages = Double(driver, {})
    with pytest.raises(UnreachableError, match="gone"):
        work_in_stages(driver, stages, "state")
    assert sorted(driver.reports) == sorted(stages.written) == list(range(after))


def test_trouble_with_reports_ends_the_work() -> None:
    class Deaf(Driver):
        def block_done(self, given: Given, failure: FailureText | None, seconds: float, *, asks: bool) -> None:
            super().block_done(given, failure, seconds, asks=asks)
            if given.index == 3:
                raise OSError("deaf")

    driver = Deaf(10**6)
    with pytest.raises(OSError, match="deaf"):
        work_in_stages(driver, Double(driver, {}), "state")
    assert len(driver.reports) < 10


@pytest.mark.parametrize("overlap", [True, False])
def test_maps_in_workers(overlap: bool) -> None:
    class SlowSource:
        """An array whose voxels take a while to come."""

        def __init__(self, data: Any) -> None:
            self.data, self.shape, self.dtype = data, data.shape, data.dtype

        def __getitem__(self, key: Any) -> Any:
            time.sleep(SLOW)
            return self.data[key]

    def work(block: Any) -> Any:
        time.sleep(SLOW)
        if block[0] == 120:
            raise LookupError(str(threading.current_thread() is threading.main_thread()))
        return block + 1

    source = SlowSource(np.arange(200))
    out = np.zeros(200, int)
    options: dict[str, Any] = {"grid": 10, "num_workers": 2, "progress": False, "overlap_io": overlap, "max_retries": 1}
    with pytest.raises(LookupError, match="True"):
        map_blocks(work, source, out=out, **options)
    expected = np.arange(1, 201)
    expected[120:130] = 0
    assert out.tolist() == expected.tolist()
    sums = map_blocks(lambda block: int(block.sum()), source, collect=True, **options)
    assert sums == [int(np.arange(begin, begin + 10).sum()) for begin in range(0, 200, 10)]
