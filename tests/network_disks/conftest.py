"""Network file systems for the tests of this folder; what cannot be mounted here is skipped, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.network_disks.disks import Gluster, Vanishing, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """One directory as two hosts see it, each with the caches of GlusterFS."""
    reason = missing("glusterfs", "glusterfsd", "umount")
    if reason:
        pytest.skip(f"GlusterFS cannot be mounted: {reason}")
    gluster = Gluster(tmp_path_factory.mktemp("gluster"))
    try:
        yield gluster.mount(), gluster.mount()
    finally:
        gluster.close()


@pytest.fixture(scope="session")
def forgetful_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The same, where a kernel remembers for half a minute which names there are, and which there are not."""
    reason = missing("glusterfs", "glusterfsd", "umount")
    if reason:
        pytest.skip(f"GlusterFS cannot be mounted: {reason}")
    gluster = Gluster(tmp_path_factory.mktemp("gluster"))
    options = ("--attribute-timeout=30", "--entry-timeout=30", "--negative-timeout=30")
    try:
        yield gluster.mount(*options), gluster.mount(*options)
    finally:
        gluster.close()


@pytest.fixture
def vanishing(tmp_path: Path) -> Iterator[Vanishing]:
    """A disk that can vanish, or stand still."""
    reason = missing("bindfs", "umount")
    if reason:
        pytest.skip(f"bindfs cannot be mounted: {reason}")
    disk = Vanishing(tmp_path)
    try:
        yield disk
    finally:
        disk.close()
