"""Foreign arrays: array-likes whose dtype is not numpy's, read and written through slices."""

from __future__ import annotations

from typing import Any

import numpy as np

from blockflow.errors import ArrayError

__all__ = ["Foreign", "in_numpy"]


class Foreign:
    """An array-like of another library, with a dtype of numpy.

    Args:
        data: Has ``shape`` and takes slices; what a slice gives is read with :func:`numpy.asarray`.
        dtype: What its elements are in numpy.
    """

    def __init__(self, data: Any, dtype: np.dtype[Any]) -> None:
        self.data = data
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis."""
        return tuple(self.data.shape)

    @property
    def read_only(self) -> bool:
        """Whether the other library refuses writes, as far as it says."""
        return not getattr(self.data, "writable", hasattr(self.data, "__setitem__"))

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        return np.asarray(self.data[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.data[key] = value


def in_numpy(data: Any, what: str) -> Any:
    """Return an array-like whose dtype is numpy's: the one given, or a :class:`Foreign` around it.

    Args:
        data: An array-like.
        what: Its name, for messages.

    Raises:
        ArrayError: It hides values behind a mask, or numpy has no dtype for it.

    >>> in_numpy(np.zeros(2), "source 0")
    array([0., 0.])
    """
    if isinstance(data, np.ma.MaskedArray):
        raise ArrayError(
            f"{what} is a masked array, and blocks hold no masks; pass filled(...), or data and mask apart"
        )
    try:
        np.dtype(data.dtype)
    except TypeError:
        dtype = getattr(data.dtype, "numpy_dtype", None)  # tensorstore has one
        if dtype is not None:
            return Foreign(data, np.dtype(dtype))
        raise ArrayError(
            f"{what} must have a dtype of numpy, got {type(data).__module__}.{type(data).__name__} of {data.dtype}; "
            "pass what its .numpy() or numpy.asarray gives"
        ) from None
    return data
