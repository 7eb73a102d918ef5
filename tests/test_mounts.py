"""Which file system does a path lie on?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blockflow import mounts

if TYPE_CHECKING:
    from pathlib import Path


def test_path_that_does_not_exist(tmp_path: Path) -> None:
    there = mounts.disk_of(str(tmp_path))
    assert mounts.disk_of(str(tmp_path / "a" / "b")) == there
    assert os.path.ismount(there.partition(" (")[0])


def test_link_leads_to_the_disk_behind_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert mounts.disk_of(str(tmp_path / "link" / "x")) == "/proc (proc)"


def test_escaped_mount_point() -> None:
    [mount] = mounts.parse_mounts(r"42 27 0:39 / /my\040data\134x rw - nfs4 server:/x rw")
    assert mount.place == r"/my data\x"


def test_innermost_and_newest_mount_holds_a_path() -> None:
    table = [mounts.Mount(kind, place, "0:1") for kind, place in (("ext4", "/"), ("nfs", "/a"), ("xfs", "/a"))]
    found = [mounts.mount_above(path, table) for path in ("/ab/c", "/a/c", "/a")]
    assert [mount.kind for mount in found if mount] == ["ext4", "xfs", "xfs"]


@pytest.mark.parametrize(
    ("kind", "caching"),
    [
        ("ext4", "none"),
        ("lustre", "none"),
        ("gpfs", "none"),
        ("ceph", "none"),
        ("fuse.ceph", "none"),
        ("nfs", "close-to-open"),
        ("nfs4", "close-to-open"),
        ("cifs", "names"),
        ("fuse.glusterfs", "glusterfs"),
        ("fuse.sshfs", "sshfs"),
        ("fuse.anything", "unknown"),
    ],
)
def test_what_a_file_system_caches(kind: str, caching: str) -> None:
    assert mounts.Mount(kind, "/x", "0:1").caching == caching


def test_disks_here_have_space() -> None:
    assert mounts.full_disk() == "" or "/" in mounts.full_disk()
