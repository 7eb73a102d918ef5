"""Runs of these tests leave nothing in the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blockflow.logging import get_log_basedir, set_log_basedir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def logs(tmp_path: Path) -> Iterator[Path]:
    before = get_log_basedir()
    set_log_basedir(tmp_path / "logs")
    yield tmp_path / "logs"
    set_log_basedir(before)
