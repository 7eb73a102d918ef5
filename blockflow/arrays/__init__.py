"""Arrays: how do world-unit ROIs read and write the voxels of zarr stores and memory?

The names below are imported when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockflow.arrays.array import Array
    from blockflow.arrays.opening import open_ds
    from blockflow.arrays.preparing import prepare_ds
else:  # hidden, or type checkers take any name for exported
    _MODULES = {"Array": "array", "open_ds": "opening", "prepare_ds": "preparing"}

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = ["Array", "open_ds", "prepare_ds"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
