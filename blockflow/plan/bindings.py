"""Identities of arrays: what is known of an array that blocks read or write, as plain data.

:func:`blockflow.arrays.identity.identify` finds them out; a run directory records them, and refuses other arrays.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["ArrayIdentity", "Kind", "TaskArrays"]

Kind: TypeAlias = Literal["zarr", "file", "hdf5", "tiff", "memory", "other"]


class ArrayIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One array, as far as it can be told from any other without reading all of it."""

    kind: Kind
    """``"file"`` is a memory map or ``.npy`` file; ``"memory"`` ends with the process."""
    place: str = ""
    """Absolute path with all symlinks resolved, the path in the store or file included; or a URL. Empty in memory."""
    shape: tuple[int, ...]
    """Voxels per axis."""
    dtype: str
    """As numpy writes it, byte order included."""
    chunks: tuple[int, ...] | None = None
    """Voxels per axis."""
    shards: tuple[int, ...] | None = None
    """Voxels per axis."""
    layout: str = ""
    """Digest of everything else that says how voxels are stored: zarr's metadata without attributes, or strides."""
    part: tuple[tuple[int, int, int], ...] | None = None
    """Begin, end and step per axis, if only this part of the array is meant."""
    offset: tuple[int, ...] | None = None
    """World units per spatial axis, if the array says where it lies."""
    voxel_size: tuple[int, ...] | None = None
    """World units per spatial axis, if the array says so."""
    uid: str = ""
    """Random number that was written into the array when a run directory was bound to it; empty if there is none."""
    file: tuple[int, int, int] = (0, 0, 0)
    """Device, inode, and time of birth in nanoseconds (0 if unknown) of the file that makes it an array; zeros if no
    local file does."""
    content: str = ""
    """Digest of a sample of the voxels: ``"all:..."`` if all are in it, ``"some:..."`` if not; empty if none was taken.
    """


class TaskArrays(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The arrays of one task."""

    task_id: str
    outputs: tuple[ArrayIdentity, ...] = ()
    """What its blocks write."""
    inputs: tuple[ArrayIdentity, ...] = ()
    """What they read, with samples but for what blocks of the same run write."""
    mask: ArrayIdentity | None = None
    """What says which blocks have anything to do."""
