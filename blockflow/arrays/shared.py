"""Shared arrays: how do processes of one machine work on the same elements?

A :class:`SharedArray` is a handle of a few hundred bytes; its elements lie in memory that every process
with the handle can map (:mod:`blockflow.arrays.memory` says how, and why nothing stays behind). The process
that made it owns it; everybody else attaches when it first looks.

A mapping stays valid for as long as an ndarray uses it: closing, unlinking and the owner's death take away
the right to attach, never pages under a running computation.
"""

from __future__ import annotations

import mmap
import os
import platform
import weakref
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np

from blockflow.arrays.memory import Home, new_memory
from blockflow.errors import ArrayError, PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["SharedArray"]

Order: TypeAlias = Literal["C", "F"]


class SharedArray:
    """An n-D array in memory that other processes of this machine can map.

    Make one with :meth:`create` or :meth:`from_array`; never by calling the class. Pickling it (to a
    process of any start method, or to an unrelated one of the same user) sends the handle, not the
    elements. Elements are seen through :meth:`open` or :meth:`view`, or by indexing like any array. There
    is no lock: writers agree on regions, as blocks do.

    The memory is given back when the owner calls :meth:`unlink`, leaves ``with``, collects the object,
    exits or dies, and no process has it mapped any more.

    Attributes:
        shape: Extent per axis, in elements; may hold zeros.
        dtype: Of the elements; any but those that hold Python objects.
        order: How the elements lie in memory: "C", or "F" for a copy of a Fortran-ordered array.

    >>> with SharedArray.create((2, 3), "float32") as shared:
    ...     with shared.open() as array:
    ...         array[0] = 1
    ...     float(shared[...].sum())
    3.0
    """

    __slots__ = ("__weakref__", "_descriptor", "_home", "_maps", "_release", "dtype", "order", "shape")

    def __init__(self, home: Home, shape: tuple[int, ...], dtype: np.dtype[Any], order: Order) -> None:
        self._home = home
        self.shape = shape
        self.dtype = dtype
        self.order: Order = order
        self._maps: dict[bool, mmap.mmap] = {}
        self._descriptor: int | None = None
        """That of the owner, which a forked child inherits and may map too."""
        self._release: weakref.finalize[[int], Self] | None = None

    @classmethod
    def create(cls, shape: Sequence[int] | int, dtype: DTypeLike, *, order: Order = "C") -> Self:
        """A new array of zeros, owned by this process.

        Pages are taken when they are first written, as with :func:`numpy.zeros`.

        Args:
            shape: Extent per axis, in elements.
            dtype: Of the elements.
            order: "C" (last axis fastest) or "F" (first axis fastest).

        Raises:
            PlanError: A negative extent, an unknown order, or a dtype whose elements are Python objects or
                have no size.
            OSError: The machine has no room for it.

        >>> SharedArray.create(4, ">i2").view()
        array([0, 0, 0, 0], dtype='>i2')
        """
        shape, dtype = _checked(shape, dtype)
        if order not in ("C", "F"):
            raise PlanError(f"order of a shared array must be 'C' or 'F', got {order!r}")
        home, descriptor = new_memory(max(1, prod(shape) * dtype.itemsize))  # an empty file cannot be mapped
        shared = cls(home, shape, dtype, order)
        shared._descriptor = descriptor
        shared._release = weakref.finalize(shared, home.release, descriptor)
        shared.view()  # what does not fit into the address space fails here
        return shared

    @classmethod
    def from_array(cls, array: ArrayLike) -> Self:
        """A copy of an array, owned by this process.

        One pass over the bytes, without first filling the new memory with zeros: the kernel writes whole
        pages.

        Args:
            array: Anything that :func:`numpy.asarray` takes; Fortran order is kept, any other becomes C.

        Raises:
            PlanError: Elements are Python objects, or masked (the mask would be lost).
            OSError: The machine has no room for it.

        >>> SharedArray.from_array([[1, 2], [3, 4]])[1, 0]
        np.int64(3)
        """
        if isinstance(array, np.ma.MaskedArray):
            raise PlanError("a shared array holds no mask: pass array.filled(...) or share data and mask apart")
        values = np.asarray(array)
        order: Order = "F" if values.flags.f_contiguous and not values.flags.c_contiguous else "C"
        shared = cls.create(values.shape, values.dtype, order=order)
        if values.flags.forc and values.nbytes:
            assert shared._descriptor is not None
            _write(shared._descriptor, values.ravel(order).view(np.uint8).data)
        else:
            shared.view()[...] = values
        return shared

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def owned(self) -> bool:
        """Whether this process made the array and has not unlinked it.

        >>> shared = SharedArray.create(3, "u1")
        >>> shared.owned, shared.unlink(), shared.owned
        (True, None, False)
        """
        return self._descriptor is not None and self._home.pid == os.getpid()

    def view(self, *, read_only: bool = False) -> NDArray[Any]:
        """The elements, without a copy; attaches on first use and keeps the mapping until :meth:`close`.

        Args:
            read_only: Map the pages without the right to write; to try is a ``ValueError``. Other views, here
                and in other processes, keep theirs.

        Raises:
            ArrayError: Unlinked, or its owner is gone, or it belongs to another machine or user.

        >>> shared = SharedArray.from_array([1, 2, 3])
        >>> shared.view()[0] = 7
        >>> shared.view(read_only=True)
        array([7, 2, 3])
        """
        if read_only not in self._maps:
            self._maps[read_only] = self._map(read_only)
        return np.ndarray(self.shape, self.dtype, self._maps[read_only], order=self.order)

    @contextmanager
    def open(self, *, read_only: bool = False) -> Iterator[NDArray[Any]]:
        """The elements for the length of a ``with``; what it mapped is given up at its end.

        Args:
            read_only: As in :meth:`view`.

        Raises:
            ArrayError: As in :meth:`view`.

        >>> shared = SharedArray.from_array([1, 2, 3])
        >>> with shared.open(read_only=True) as array:
        ...     int(array.sum())
        6
        """
        kept = read_only in self._maps
        try:
            yield self.view(read_only=read_only)
        finally:
            if not kept:
                self._maps.pop(read_only, None)

    def close(self) -> None:
        """Give up this process's mappings (arrays that still use one keep it); it can be opened again.

        >>> shared = SharedArray.from_array([1, 2, 3])
        >>> shared.close()
        >>> int(shared[2])
        3
        """
        self._maps.clear()

    def unlink(self) -> None:
        """End it, as its owner: nobody can attach any more, and the memory goes with the last mapping of it.

        A second call does nothing.

        Raises:
            ArrayError: This process is not the owner.

        >>> shared = SharedArray.create(3, "u1")
        >>> shared.unlink()
        >>> shared.view()
        Traceback (most recent call last):
        ...
        blockflow.errors.ArrayError: cannot attach to a shared array of process ...
        """
        if self._release is None or self._home.pid != os.getpid():
            raise ArrayError(f"only its owner can unlink a shared array: this one belongs to {self._home}")
        self._maps.clear()
        self._descriptor = None
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self.owned:
            self.unlink()

    def __getitem__(self, key: Any) -> Any:
        return self.view()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.view()[key] = value

    def __len__(self) -> int:
        return len(self.view())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.view(), dtype=dtype, copy=copy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._home, self.shape, self.dtype, self.order)

    def __repr__(self) -> str:
        return f"<SharedArray {self.shape} {self.dtype} of {self._home}>"

    def _map(self, read_only: bool) -> mmap.mmap:
        access = mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE
        if self._descriptor is not None:
            return mmap.mmap(self._descriptor, 0, access=access)  # 0: all of it
        try:
            descriptor = self._home.attach(os.O_RDONLY if read_only else os.O_RDWR)
            try:
                return mmap.mmap(descriptor, 0, access=access)  # keeps a duplicate
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ArrayError(
                f"cannot attach to a shared array of {self._home} from process {os.getpid()} on "
                f"{platform.node()}: its owner must still run, on this machine and as this user, and not "
                f"have unlinked it ({error})"
            ) from error


def _write(descriptor: int, rest: memoryview) -> None:
    position = 0
    while rest:
        written = os.pwrite(descriptor, rest, position)  # at most 2 GiB at a time
        rest, position = rest[written:], position + written


def _checked(shape: Sequence[int] | int, dtype: DTypeLike) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        dtype = np.dtype(dtype)
        extents = np.empty(shape, np.dtype("V0")).shape
    except (TypeError, ValueError) as error:
        raise PlanError(f"a shared array needs a shape of whole numbers >= 0 and a dtype: {error}") from error
    if dtype.hasobject:
        raise PlanError(f"a shared array cannot hold Python objects, which live in one process: dtype is {dtype}")
    if dtype.itemsize == 0:
        raise PlanError(f"elements of a shared array need a size: dtype is {dtype}, say for instance 'S10'")
    base, inner = dtype.subdtype or (dtype, ())
    return extents + inner, base
