"""Identities of arrays, found out at the front door of a run.

What tells an array from one that was made later in its place:

- a random number (uid) that :func:`mark` writes into arrays that blocks write: an attribute of a zarr array or HDF5
  dataset, or blanks at the end of the header of a ``.npy`` file. Copies and backups of an array have it as well;
- device, inode and time of birth of the file that makes it an array, where nothing can be written into it;
- for what is only read: a digest of a sample of what is stored, which copies and backups have as well.

What is in memory is another array in every process.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import sys
import weakref
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import structs

from blockflow.arrays.array import Array
from blockflow.arrays.handles import memmap_handle
from blockflow.arrays.shared import SharedArray
from blockflow.arrays.window import Window
from blockflow.errors import ArrayNotFoundError
from blockflow.plan.bindings import ArrayIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["UID_ATTRIBUTE", "document_of", "identify", "mark", "same_array", "same_store", "sampled"]

UID_ATTRIBUTE = "blockflow_id"
"""Attribute of zarr arrays and HDF5 datasets that run directories are bound to."""

WHOLE_BYTES = 2**24
"""Up to so many bytes all voxels are part of a digest."""

_PIECES = 16
"""Places that a sample is taken from."""

_PIECE_BYTES = 2**16
"""Bytes taken from each place."""

_UID_BITS = 32
"""Of the uid in the header of a ``.npy`` file: that many blanks are nearly always there."""

_NPY_MAGIC = b"\x93NUMPY"
_BITS = bytes.maketrans(b" \t", b"01")


def identify(value: Any) -> ArrayIdentity:
    """Tell which array this is; reads metadata only, and always anew.

    Args:
        value: A :class:`~blockflow.arrays.Array`, zarr array, ndarray, memory map, HDF5 dataset, ``SharedArray``,
            ``TiffStack``, or anything else with ``shape`` and ``dtype``.

    Raises:
        ArrayNotFoundError: It was there when it was opened, and is gone.

    >>> identify(np.zeros((2, 3), "u1")).kind
    'memory'
    """
    offset = voxel_size = None
    data = value
    if isinstance(value, Array):
        offset, voxel_size, data = tuple(value.offset), tuple(value.voxel_size), value.data
    part = None
    if isinstance(data, Window):
        part = tuple((each.start, each.stop, each.step) for each in data.ranges)
        data = data.source
        while isinstance(data, Window):
            part = tuple(
                (outer[b:e:s].start, outer[b:e:s].stop, outer[b:e:s].step)
                for outer, (b, e, s) in zip(data.ranges, part, strict=True)
            )
            data = data.source
    return structs.replace(_of_data(data), part=part, offset=offset, voxel_size=voxel_size)


def mark(value: Any) -> ArrayIdentity:
    """Write a uid into an array if it has none and can be written to; returns its identity.

    Raises:
        ArrayNotFoundError: It was there when it was opened, and is gone.
    """
    found = identify(value)
    if found.uid:
        return found
    data = _base(value)
    with suppress(OSError, ValueError, TypeError, NotImplementedError):  # read-only: it has inode and birth
        if found.kind == "zarr":
            _mark_zarr(data)
        elif found.kind == "hdf5" and data.file.mode != "r":
            data.attrs[UID_ATTRIBUTE] = secrets.token_hex(16)
        elif found.kind == "file":
            _mark_npy(found.place)
    return identify(value)


def sampled(value: Any, *, most: int = WHOLE_BYTES) -> ArrayIdentity:
    """Tell which array this is, with a digest of a sample of its voxels; about a megabyte is read.

    Args:
        value: As for :func:`identify`.
        most: Up to so many bytes all voxels are read.

    >>> sampled(np.zeros(3)).content == sampled(np.zeros(3)).content != sampled(np.ones(3)).content
    True
    """
    found = identify(value)
    data = value.data if isinstance(value, Array) else value
    if found.kind == "zarr" and isinstance(_base(data), _zarr_array()):
        content = _zarr_content(_base(data), found)
    else:
        content = _content(data, most)
    uid = found.uid if found.kind != "memory" else ""  # the voxels say which one it is
    return structs.replace(found, uid=uid, content=content)


def same_array(one: ArrayIdentity, other: ArrayIdentity) -> bool:
    """Whether two identities are of one array, under whatever names: by file where there is one.

    Parts of one array count as that array.

    >>> line = np.zeros(4)
    >>> same_array(identify(line), identify(line[1:])), same_array(identify(line), identify(line.copy()))
    (True, False)
    """
    if one.kind != other.kind:
        return False
    if one.kind == "hdf5":  # one file has many
        inside, other_inside = (each.place.rpartition("::")[2] for each in (one, other))
        if inside != other_inside:
            return False
    if any(one.file) and any(other.file):
        return one.file[:2] == other.file[:2]
    if one.place or other.place:
        return one.place == other.place
    return bool(one.uid) and one.uid == other.uid


def _base(value: Any) -> Any:
    data = value.data if isinstance(value, Array) else value
    while isinstance(data, Window):
        data = data.source
    return data


def _of_data(data: Any) -> ArrayIdentity:
    if isinstance(data, np.ndarray):
        return _of_ndarray(data)
    if isinstance(data, _zarr_array()):
        return _of_zarr(data)
    if type(data).__module__.startswith("h5py."):
        return _of_dataset(data)
    if hasattr(data, "planes"):
        return _of_planes(data)
    kind: Any = "memory" if isinstance(data, SharedArray) else "other"
    return ArrayIdentity(kind=kind, shape=tuple(data.shape), dtype=_dtype(data.dtype), uid=_uid_in_memory(data))


def _zarr_array() -> tuple[type, ...]:
    zarr = sys.modules.get("zarr")
    return () if zarr is None else (zarr.Array,)  # what is one has imported it


def _dtype(dtype: Any) -> str:
    known = np.dtype(dtype)
    return known.str if known.fields is None else str(known.descr)


def _digest(parts: Iterable[bytes]) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


# --------------------------------------------------------------------------------------------------------------- zarr


def _fresh(data: Any) -> Any:
    """The array as its documents say now: an open one may be gone, and consolidated metadata be old."""
    import zarr

    try:
        return zarr.open_array(store=data.store, path=data.path, mode="r", zarr_format=data.metadata.zarr_format)
    except (FileNotFoundError, KeyError) as error:
        raise ArrayNotFoundError(f"the array {data.store_path} was there when it was opened, and is gone") from error


def _of_zarr(data: Any) -> ArrayIdentity:
    from zarr.storage import MemoryStore

    fresh = _fresh(data)
    metadata = fresh.metadata
    described = {key: each for key, each in metadata.to_dict().items() if key not in ("attributes", "dimension_names")}
    uid = fresh.attrs.asdict().get(UID_ATTRIBUTE, "")
    common: dict[str, Any] = {
        "shape": tuple(fresh.shape),
        "dtype": _dtype(fresh.dtype),
        "chunks": tuple(fresh.chunks),
        "shards": None if fresh.shards is None else tuple(fresh.shards),
        "layout": _digest([repr(sorted(described.items(), key=lambda pair: pair[0])).encode()]),
    }
    store = _wrapped(data.store)
    if isinstance(store, MemoryStore):
        return ArrayIdentity(kind="memory", uid=f"{_uid_in_memory(_of_store(store))}/{data.path}", **common)
    uid = uid if isinstance(uid, str) else ""
    document = document_of(data)
    if document is None:
        return ArrayIdentity(kind="zarr", place=str(data.store_path), uid=uid, **common)
    folder = os.path.dirname(document)
    return ArrayIdentity(kind="zarr", place=os.path.realpath(folder), uid=uid, file=_file(document), **common)


def document_of(data: Any) -> str | None:
    """The local file that makes a zarr array one; None if it is on no local file system."""
    from zarr.storage import FsspecStore, LocalStore

    store = _wrapped(data.store)
    root: Any = None
    if isinstance(store, LocalStore):
        root = store.root
    elif isinstance(store, FsspecStore) and "file" in store.fs.protocol:
        root = store.path
    if root is None:
        return None
    name = "zarr.json" if data.metadata.zarr_format == 3 else ".zarray"
    return os.path.join(os.path.abspath(root), data.path, name)


def same_store(one: Any, other: Any) -> bool:
    """Whether two stores are known to hold the same keys."""
    first, second = _of_store(_wrapped(one)), _of_store(_wrapped(other))
    return first is second or (type(first) is type(second) and not isinstance(first, dict) and first == second)


def _wrapped(store: Any) -> Any:
    """The store that does the work."""
    while hasattr(store, "_store"):
        store = store._store
    return store


def _of_store(store: Any) -> Any:
    """What all stores over one dictionary share."""
    return getattr(store, "_store_dict", store)


def _mark_zarr(data: Any) -> None:
    import zarr
    from zarr.storage import LocalStore

    store = _wrapped(data.store)
    if store.read_only and isinstance(store, LocalStore):
        store = LocalStore(store.root)
    if store.read_only:
        return
    array = zarr.open_array(store=store, path=data.path, mode="r+", zarr_format=data.metadata.zarr_format)
    array.attrs[UID_ATTRIBUTE] = secrets.token_hex(16)


def _zarr_content(data: Any, found: ArrayIdentity) -> str:
    """Digest of the beginnings of some chunks (shards), as they are stored."""
    from zarr.abc.store import RangeByteRequest
    from zarr.buffer import default_buffer_prototype

    from blockflow.arrays.store_calls import wait_for

    unit = found.shards or found.chunks
    assert unit is not None
    counts = [-(-extent // along) for extent, along in zip(found.shape, unit, strict=True)]
    total = int(np.prod(counts, dtype=np.int64))
    numbers = sorted({int(number) for number in np.linspace(0, max(0, total - 1), _PIECES)}) if total else []
    places = [tuple(int(i) for i in np.unravel_index(number, counts)) if counts else () for number in numbers]
    keys = [f"{data.path}/{data.metadata.encode_chunk_key(place)}".lstrip("/") for place in places]
    prototype = default_buffer_prototype()

    async def read() -> list[bytes]:
        found = []
        for key in keys:
            buffer = await data.store.get(key, prototype, RangeByteRequest(0, _PIECE_BYTES))
            found.append(b"" if buffer is None else b"+" + buffer.to_bytes())
        return found

    parts = wait_for(read())
    whole = len(numbers) == total and all(len(part) <= _PIECE_BYTES for part in parts)
    return ("all:" if whole else "some:") + _digest(parts)


# -------------------------------------------------------------------------------------------------------------- files


def _of_ndarray(data: np.ndarray[Any, Any]) -> ArrayIdentity:
    handle = memmap_handle(data)
    if handle is None:
        return ArrayIdentity(
            kind="memory", shape=data.shape, dtype=_dtype(data.dtype), uid=_uid_in_memory(_owner(data))
        )
    layout = _digest([repr((handle.offset, handle.strides)).encode()])
    place = os.path.realpath(handle.filename)
    return ArrayIdentity(
        kind="file",
        place=place,
        shape=data.shape,
        dtype=_dtype(data.dtype),
        layout=layout,
        uid=_npy_uid(place),
        file=_file(place),
    )


def _of_dataset(data: Any) -> ArrayIdentity:
    place = os.path.realpath(data.file.filename)
    uid = data.attrs.get(UID_ATTRIBUTE, "")
    return ArrayIdentity(
        kind="hdf5",
        place=f"{place}::{data.name}",
        shape=tuple(data.shape),
        dtype=_dtype(data.dtype),
        chunks=None if data.chunks is None else tuple(data.chunks),
        uid=uid if isinstance(uid, str) else "",
        file=_file(place),
    )


def _of_planes(data: Any) -> ArrayIdentity:
    """A stack of TIFF files, or of the pages of one."""
    files = [os.fspath(file) for file, _ in data.planes]
    names = [f"{os.path.basename(file)}/{page}".encode() for file, (_, page) in zip(files, data.planes, strict=True)]
    first = files[0]
    several = any(file != first for file in files)
    return ArrayIdentity(
        kind="tiff",
        place=os.path.realpath(os.path.dirname(first) if several else first),
        shape=tuple(data.shape),
        dtype=_dtype(data.dtype),
        layout=_digest(names),
        file=_file(first),
    )


def _file(path: str) -> tuple[int, int, int]:
    """Device, inode and time of birth of a file."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ArrayNotFoundError(f"the array at {path} cannot be looked at: {error}") from error
    born = getattr(status, "st_birthtime", None)  # macOS has it
    return status.st_dev, status.st_ino, _born(path) if born is None else int(born * 1e9)


def _born(path: str) -> int:
    """When a file was made, in nanoseconds since 1970: Linux tells it by ``statx`` only; 0 where it does not."""
    try:
        statx = ctypes.CDLL(None).statx
    except (AttributeError, OSError):
        return 0
    answer = ctypes.create_string_buffer(256)
    current_directory, wants_birth = -100, 0x800
    if statx(current_directory, os.fsencode(path), 0, wants_birth, answer):
        return 0
    if not int.from_bytes(answer.raw[:4], sys.byteorder) & wants_birth:
        return 0
    seconds = int.from_bytes(answer.raw[80:88], sys.byteorder, signed=True)
    return seconds * 10**9 + int.from_bytes(answer.raw[88:92], sys.byteorder)


def _npy_padding(path: str) -> tuple[int, bytes] | None:
    """Where the blanks begin that end the header of a ``.npy`` file, and what they are; None if they are too few."""
    with open(path, "rb") as file:
        begin = file.read(12)
        if begin[:6] != _NPY_MAGIC or len(begin) < 12:
            return None
        width = 2 if begin[6] == 1 else 4
        head = 8 + width
        length = int.from_bytes(begin[8 : 8 + width], "little")
        file.seek(head)
        header = file.read(min(length, 2**16))
    if len(header) != length or header[-1:] != b"\n":
        return None
    padding = header[-1 - _UID_BITS : -1]
    if len(padding) < _UID_BITS or padding.strip(b" \t"):
        return None
    return head + length - 1 - _UID_BITS, padding


def _npy_uid(path: str) -> str:
    """The uid in a header: a tab is a one, a space is a zero; all spaces are none."""
    try:
        found = _npy_padding(path)
    except OSError:
        return ""
    if found is None or not found[1].strip(b" "):
        return ""
    return f"{int(found[1].translate(_BITS), 2):08x}"


def _mark_npy(path: str) -> None:
    found = _npy_padding(path)
    if found is None:
        return
    blanks = f"{1 + secrets.randbelow(2**_UID_BITS - 1):0{_UID_BITS}b}".replace("0", " ").replace("1", "\t").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, blanks, found[0])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------------------- memory

_IN_MEMORY: dict[int, tuple[Any, str]] = {}
"""By :func:`id`: a weak reference to an object in memory, and its uid."""


def _owner(data: np.ndarray[Any, Any]) -> Any:
    """What holds the elements of an ndarray."""
    while isinstance(data.base, np.ndarray):
        data = data.base
    return data


def _uid_in_memory(holder: Any) -> str:
    """A random number that an object keeps as long as it lives, and no other one ever gets."""
    key = id(holder)
    known = _IN_MEMORY.get(key)
    if known is not None and known[0]() is holder:
        return known[1]
    uid = secrets.token_hex(16)
    try:
        reference: Any = weakref.ref(holder, lambda _: _IN_MEMORY.pop(key, None))
    except TypeError:  # a dictionary, say: it is kept, which costs nothing but memory that is in use anyway
        reference = lambda: holder  # noqa: E731
    _IN_MEMORY[key] = reference, uid
    return uid


def _content(data: Any, most: int) -> str:
    """Digest of all elements, or of boxes of them along the diagonal."""
    shape, itemsize = tuple(data.shape), np.dtype(data.dtype).itemsize
    if int(np.prod(shape, dtype=object)) * itemsize <= most:
        return "all:" + _digest([np.ascontiguousarray(data[...] if shape else np.asarray(data)).tobytes()])
    side = max(1, int((_PIECE_BYTES / itemsize) ** (1 / len(shape))))
    boxes = (
        tuple(
            slice(begin, min(extent, begin + side))
            for extent in shape
            for begin in [(max(0, extent - side) * step) // (_PIECES - 1)]
        )
        for step in range(_PIECES)
    )
    return "some:" + _digest(np.ascontiguousarray(data[box]).tobytes() for box in boxes)
