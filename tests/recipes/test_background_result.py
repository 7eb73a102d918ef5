"""Result of the background recipe: backgrounds of frames, and the zarr group."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from blockflow.errors import ArrayError, OutOfBoundsError, PlanError
from blockflow.recipes.background_result import Background

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def example(count: int = 30) -> Background:
    rng = np.random.default_rng(count)
    return Background(
        images=rng.integers(0, 256, (3, 24, 20)).astype(np.uint8),
        index=np.sort(rng.integers(0, 3, count)),
        offset=rng.random(count),
        times=np.arange(4.0),
        used=np.array([True, False, True, True]),
        identifier="sparsemed:k=200^s=1^t=0^f=0.8^o=1",
    )


def test_the_background_of_a_frame() -> None:
    background = example()
    for frame in (0, 17, 29, -1):
        np.testing.assert_array_equal(background.at(frame), background.images[background.index[frame]])
    for frame in (30, -31):
        with pytest.raises(OutOfBoundsError, match=f"frame must be one of the 30 frames, got {frame}"):
            background.at(frame)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_corrected_frames(dtype: type[np.generic]) -> None:
    background = example()
    assert background.offset is not None
    frames = np.random.default_rng(1).integers(0, 256, (30, 24, 20)).astype(dtype)
    before = frames.copy()
    flat = frames.astype(float) - background.images[background.index]
    expected = flat - background.offset[:, None, None]
    np.testing.assert_array_equal(background.corrected(frames), expected)
    np.testing.assert_array_equal(background.corrected(frames[4:9], first=4), expected[4:9])
    np.testing.assert_array_equal(background.corrected(frames[:4], first=0), expected[:4])
    np.testing.assert_array_equal(replace(background, offset=None).corrected(frames), flat)
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize(
    ("shape", "first", "error", "message"),
    [
        ((30, 24, 21), None, PlanError, r"frames must have shape \(n, 24, 20\), got \(30, 24, 21\)"),
        ((24, 20), 0, PlanError, r"frames must have shape \(n, 24, 20\), got \(24, 20\)"),
        ((4, 24, 20), None, PlanError, "first must say with which of the 30 frames these 4 begin"),
        ((4, 24, 20), 27, OutOfBoundsError, r"frames \[27, 31\) must lie in the series \[0, 30\)"),
        ((4, 24, 20), -2, OutOfBoundsError, r"frames \[-2, 2\) must lie"),
    ],
)
def test_frames_that_are_not_of_the_series_are_refused(
    shape: tuple[int, ...], first: int | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        example().corrected(np.zeros(shape), first)


def test_zarr(tmp_path: Path) -> None:
    path = tmp_path / "background.zarr"
    for background in (example(30), replace(example(44), offset=None)):
        background.write_zarr(path)
        group = zarr.open_group(path, mode="r")
        assert group.attrs["blockflow background"] == background.identifier
        names = {"images", "index", "times", "used"} | ({"offset"} if background.offset is not None else set())
        assert set(group.keys()) == names
        for name in names:
            array = group[name]
            assert isinstance(array, zarr.Array)
            np.testing.assert_array_equal(np.asarray(array[:]), getattr(background, name))
            assert array.dtype == getattr(background, name).dtype
    assert os.listdir(tmp_path) == ["background.zarr"]


class Damaged:
    """Images that cannot be read after the first chunk."""

    def __init__(self, images: NDArray[Any]) -> None:
        self.images, self.shape, self.dtype = images, images.shape, images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: slice) -> NDArray[Any]:
        if key.start > 0:
            raise OSError("no more")
        return self.images[key]


def test_zarr_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "background.zarr"
    background = example()
    background.write_zarr(path)
    damaged: Any = Damaged(np.zeros((2000, 24, 20), np.uint8))
    with pytest.raises(OSError, match="no more"):
        replace(background, images=damaged).write_zarr(path)
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(np.asarray(group["images"]), background.images)
    assert os.listdir(tmp_path) == ["background.zarr"]


def test_nothing_else_is_replaced_by_a_zarr_group(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "group")
    for name in ("file", "folder", "group"):
        with pytest.raises(ArrayError, match=f"{name} is not a background and is not replaced"):
            example().write_zarr(tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"
