"""Which file system does a path lie on?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blockflow import mounts

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_path_that_does_not_exist(tmp_path: Path) -> None:
    there = mounts.disk_of(str(tmp_path))
    assert mounts.disk_of(str(tmp_path / "a" / "b")) == there
    assert os.path.ismount(there.partition(" (")[0])


def test_link_leads_to_the_disk_behind_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert mounts.disk_of(str(tmp_path / "link" / "x")) == "/proc (proc)"


def test_escaped_mount_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert mounts._unescaped(r"/my\040data\134x") == r"/my data\x"


def test_disks_here_have_space() -> None:
    assert mounts.full_disk() == "" or "/" in mounts.full_disk()
