"""Records: what can be appended can be read, and nothing else is accepted."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import LedgerError
from blockflow.ledger import records as rec
from blockflow.ledger.records import blocks_of, decode_records, encode_records, join_records, runs_of

EVERY_KIND: list[rec.Record] = [
    rec.Began(1, "host", 2, "boot", 3, "0.1"),
    rec.WorkerKnown(1, 0, "host", 2),
    rec.WorkerGone(1),
    rec.BlocksDone(0, (5, 3, 2, 1), 2**63 - 1, 0),
    rec.BlocksSkipped(3, (0, 10**8)),
    rec.BlockFailed(0, 1, 2, True, "error", "traceback", "where"),
    rec.BlockLost(0, 1, 2, False),
    rec.Stopped(1, "done"),
    rec.Mishaps(0, 1, 2, 3),
]


def test_every_kind_is_read_as_it_was_written() -> None:
    assert decode_records(join_records(encode_records(EVERY_KIND))) == EVERY_KIND
    tags = [record.__struct_config__.tag for record in EVERY_KIND]
    assert tags == list(range(1, len(EVERY_KIND) + 1)), "a tag never changes its meaning"


def test_the_common_record_is_small() -> None:
    assert len(encode_records([rec.BlocksDone(0, (10**6, 1), 5 << 40, 10**6)])[0]) == 25


@pytest.mark.parametrize(
    "record",
    [
        rec.WorkerGone(-1),
        rec.WorkerGone(2**63),
        rec.WorkerKnown(1, 0, "x" * 256, 2),
        rec.BlocksDone(0, (), 1, 1),
        rec.BlocksDone(0, (1, 2) * (rec.MOST_RUNS + 1), 1, 1),
        rec.WorkerGone("one"),  # type: ignore[arg-type]
    ],
)
def test_values_out_of_bounds_are_refused(record: rec.Record) -> None:
    with pytest.raises(LedgerError, match="this cannot be recorded"):
        encode_records([record])


@pytest.mark.parametrize("runs", [(1,), (1, 2, 3), (5, 0), (1, 1, 1, 0)])
def test_runs_that_are_none_are_refused(runs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no length is 0"):
        rec.BlocksDone(0, runs, 1, 1)
    with pytest.raises(LedgerError, match="these are not records"):
        decode_records(join_records([msgspec.msgpack.encode([4, 0, runs, 1, 1])]))


@pytest.mark.parametrize("body", [b"", b"\x93\x03\x07\x08", b"\x92\x03", b"\x91" * 10_000, b"\xdd\xff\xff\xff\xff"])
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(LedgerError, match="these are not records"):
        decode_records(body)


@given(st.sets(st.integers(0, 60) | st.integers(10**17, 10**17 + 40)))
def test_runs_are_the_blocks(blocks: set[int]) -> None:
    packed = runs_of(np.array(sorted(blocks), dtype=np.int64))
    found: list[int] = []
    for runs in packed:
        assert rec.BlocksSkipped(0, runs).runs == runs
        for begin, count in zip(*blocks_of(runs), strict=True):
            found += range(int(begin), int(begin + count))
    assert found == sorted(blocks)


def test_many_runs_become_many_records() -> None:
    packed = runs_of(np.arange(0, 4 * rec.MOST_RUNS + 2, 2))
    assert [len(runs) for runs in packed] == [2 * rec.MOST_RUNS, 2 * rec.MOST_RUNS, 2]
    assert packed[-1] == (4 * rec.MOST_RUNS, 1)


@pytest.mark.parametrize("blocks", [[2, 1], [1, 1], [-1, 3]])
def test_blocks_must_be_sorted(blocks: list[int]) -> None:
    with pytest.raises(LedgerError, match="must be sorted"):
        runs_of(np.array(blocks))
