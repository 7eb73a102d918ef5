"""Orders and reports: what was packed comes back, any number of reports from one read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.wire.orders import (
    ORDER_BYTES,
    REPORT_BYTES,
    pack_order,
    pack_report,
    unpack_order,
    unpack_reports,
)

numbers = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(numbers, numbers, numbers)))
def test_reports_come_back(reports: list[tuple[int, int, int]]) -> None:
    data = b"".join(pack_report(*report) for report in reports)
    assert len(data) == REPORT_BYTES * len(reports)
    assert unpack_reports(data) == reports


@given(numbers, numbers, numbers)
def test_orders_come_back(process: int, task: int, length: int) -> None:
    data = pack_order(process, task, length)
    assert len(data) == ORDER_BYTES
    assert unpack_order(bytearray(data)) == (process, task, length)


def test_half_a_report_is_a_bug() -> None:
    with pytest.raises(ValueError, match="zip"):
        unpack_reports(pack_report(1, 2, 3)[:-8])
