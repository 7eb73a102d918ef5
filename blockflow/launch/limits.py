"""How much memory, and how long? What people write, checked, and as each cluster wants to read it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from blockflow.errors import PlanError

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", re.IGNORECASE)
_IN_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
_DAYS = re.compile(r"(\d+)-(\d+)")


def mebibytes(memory: Any) -> int:
    """Memory in MiB, rounded up.

    >>> mebibytes("32G"), mebibytes("1.5 GiB"), mebibytes("800MB"), mebibytes("1K")
    (32768, 1536, 800, 1)

    Raises:
        PlanError: It is not a number with a unit, or is nothing.
    """
    found = _MEMORY.fullmatch(memory.strip()) if isinstance(memory, str) else None
    if found is None or float(found[1]) == 0:
        raise PlanError(f"memory must be a number with a unit (K, M, G or T), such as '32G' or '800M', got {memory!r}")
    return -int(-float(found[1]) * _IN_MIB[found[2].upper()] // 1)


def seconds(time: Any) -> int:
    """A time limit in seconds, rounded up to whole minutes, which is what clusters count in.

    ``"8:00"`` is refused: eight minutes on Slurm, and eight hours on LSF.

    >>> seconds("8:00:00"), seconds("1-12:00:00"), seconds("2-00"), seconds("0:00:30")
    (28800, 129600, 172800, 60)

    Raises:
        PlanError: It is no time limit.
    """
    total = None
    if isinstance(time, timedelta):
        total = time.total_seconds()
    elif isinstance(time, str) and (found := _CLOCK.fullmatch(time.strip())):
        days, hours, minutes, rest = (int(part or 0) for part in found.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    elif isinstance(time, str) and (found := _DAYS.fullmatch(time.strip())):
        total = (int(found[1]) * 24 + int(found[2])) * 3600
    if total is None or total <= 0:
        raise PlanError(
            "time must be 'hours:minutes:seconds', 'days-hours:minutes:seconds', 'days-hours' or a timedelta, such as "
            f"'8:00:00', got {time!r}"
        )
    return -int(-total // 60) * 60
