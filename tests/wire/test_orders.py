"""Do reports of processes come back as they were sent?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blockflow.wire.orders import ENDED, REPORT_BYTES, STARTED, pack_report, unpack_reports

NUMBERS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(st.sampled_from([STARTED, ENDED]), NUMBERS, NUMBERS)))
def test_reports_come_back_as_they_were_sent(reports: list[tuple[int, int, int]]) -> None:
    packed = [pack_report(*report) for report in reports]
    assert {len(report) for report in packed} <= {REPORT_BYTES}
    assert unpack_reports(b"".join(packed)) == reports
