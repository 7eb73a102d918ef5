"""Memory and time as people write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import PlanError
from blockflow.launch.limits import mebibytes, seconds


@given(st.integers(1, 10**6), st.sampled_from(["K", "M", "G", "T"]), st.sampled_from(["", "B", "iB"]))
def test_memory_is_counted_in_mebibytes_and_rounded_up(number: int, unit: str, suffix: str) -> None:
    in_bytes = number * 1024 ** ("KMGT".index(unit) + 1)
    assert mebibytes(f"{number}{unit}{suffix}") == -(-in_bytes // 2**20)
    assert mebibytes(f" {number} {unit.lower()}{suffix} ") == -(-in_bytes // 2**20)


@pytest.mark.parametrize("nonsense", ["", "32", 32, None, "G", "-1G", "0G", "1P", "1 G G", "1,5G", "1e3M", b"1G"])
def test_what_is_no_memory(nonsense: Any) -> None:
    with pytest.raises(PlanError, match=r"memory must be a number with a unit \(K, M, G or T\), such as '32G'.*got"):
        mebibytes(nonsense)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_time_is_counted_in_whole_minutes_and_rounded_up(days: int, hours: int, minutes: int, rest: int) -> None:
    total = timedelta(days=days, hours=hours, minutes=minutes, seconds=rest)
    if not total:
        return
    expected = -int(-total.total_seconds() // 60) * 60
    assert seconds(f"{days}-{hours}:{minutes:02}:{rest:02}") == expected
    assert seconds(total) == expected
    if not days:
        assert seconds(f"{hours}:{minutes:02}:{rest:02}") == expected


@pytest.mark.parametrize(
    "nonsense", ["8:00", "8", 8, None, "8:60:00", "8:00:60", "0:00:00", "1-", "-1", "1:2:3:4", "8h", timedelta(0)]
)
def test_what_is_no_time(nonsense: Any) -> None:
    with pytest.raises(PlanError, match=r"time must be 'hours:minutes:seconds'.*such as '8:00:00', got"):
        seconds(nonsense)
