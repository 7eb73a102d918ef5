from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("matplotlib", reason="the demo needs the extra 'demo'")
pytest.importorskip("skimage", reason="the demo needs the extra 'demo'")

from blockflow import Block, Context, Roi, Task, logging, run_blockwise
from blockflow.arrays import Array, prepare_ds
from blockflow.demo.blocks import Job, connected, join, prepare, relabel, segment, tasks
from blockflow.demo.check import Verdict, compare, same_partition
from blockflow.demo.drawing import draw, in_colour, painted
from blockflow.demo.job import Outcome, run_demo
from blockflow.demo.picture import MOST_VALUES, Picture, as_picture, read_picture
from blockflow.errors import ArrayError, ArrayNotFoundError, RunError


def some_picture(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(3).random(shape, dtype=np.float32)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job of a picture that blocks do not divide, done in this process."""
    monkeypatch.setenv(Context.ENV_VARIABLE, Context(worker_id=7).to_env())
    job = prepare(tmp_path, some_picture(3, 90, 70))
    assert run_blockwise(tasks(job, 2), multiprocessing=False, progress=False, summary=False)
    return job


# --------------------------------------------------------------------------------------------------- picture


def test_the_default_picture_is_the_astronaut() -> None:
    picture = read_picture(None)
    assert picture.name == "astronaut"
    assert picture.data.shape == (3, 512, 512)
    assert picture.data.min() == 0
    assert picture.data.max() == 1


@pytest.mark.parametrize(
    ("shape", "channels_last", "expected"),
    [
        ((5, 6), True, (1, 5, 6)),
        ((5, 6, 3), True, (3, 5, 6)),
        ((3, 5, 6), True, (3, 5, 6)),
        ((5, 6, 3), False, (3, 5, 6)),
        ((3, 5, 4), True, (3, 3, 5)),
        ((3, 5, 4), False, (3, 5, 4)),
        ((5, 6, 4), True, (3, 5, 6)),
        ((5, 6, 2), True, (1, 5, 6)),
        ((4, 5, 6), False, (4, 5, 6)),
    ],
)
def test_channels_come_first_and_alpha_is_left_out(
    shape: tuple[int, ...], channels_last: bool, expected: tuple[int, ...]
) -> None:
    assert as_picture(some_picture(*shape), "it", channels_last=channels_last).shape == expected


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint64", "float16", "float64"])
def test_values_of_any_dtype_are_scaled_to_the_unit_interval(dtype: str) -> None:
    picture = as_picture(np.array([[0, 1], [1, 1]], dtype=dtype), "it", channels_last=True)
    assert picture.tolist() == [[[0, 1], [1, 1]]]


def test_a_picture_of_one_value_is_black() -> None:
    assert as_picture(np.full((2, 2), 9), "it", channels_last=True).tolist() == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((5, 6, 7)), "must have two axes, or three .* its shape is \\(5, 6, 7\\)"),
        (np.zeros(5), "its shape is \\(5,\\)"),
        (np.zeros((0, 5)), "from 1 to"),
        (np.broadcast_to(np.uint8(0), (MOST_VALUES, 2)), "from 1 to"),
        (np.array([[1, np.nan]]), "NaN or infinite"),
        (np.array([[1, np.inf]]), "NaN or infinite"),
        (np.array([["a"]]), "must be real numbers, they are <U1"),
        (np.array([[1j]]), "must be real numbers, they are complex128"),
    ],
)
def test_what_is_no_picture_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ArrayError, match=message):
        as_picture(values, "it", channels_last=True)


def test_pictures_are_read_from_files(tmp_path: Path) -> None:
    from skimage.io import imsave

    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    imsave(tmp_path / "a.png", colours, check_contrast=False)
    imsave(tmp_path / "a.tiff", colours[..., 0], check_contrast=False)
    np.save(tmp_path / "a.npy", colours)
    assert np.array_equal(read_picture(str(tmp_path / "a.png")).data, (colours / np.float32(23)).transpose(2, 0, 1))
    assert read_picture(str(tmp_path / "a.tiff")).data.shape == (1, 2, 4)
    assert read_picture(str(tmp_path / "a.npy")).name == "a.npy"


def test_pictures_are_read_from_zarr(tmp_path: Path) -> None:
    array = prepare_ds(tmp_path / "a.zarr", "raw", Roi((8, 8), (8, 16)), (4, 4), "uint16", num_channels=2)
    array[array.roi] = np.arange(16).reshape(2, 2, 4)
    assert read_picture(str(tmp_path / "a.zarr/raw")).data.shape == (2, 2, 4)
    prepare_ds(tmp_path / "a.zarr", "volume", Roi((0, 0, 0), (9, 8, 7)), dtype="uint8")
    with pytest.raises(ArrayError, match="volume is no picture"):
        read_picture(str(tmp_path / "a.zarr/volume"))
    with pytest.raises(ArrayNotFoundError, match="'raw', 'volume'"):
        read_picture(str(tmp_path / "a.zarr"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # imageio leaves a file open that it cannot read
def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    def message(name: str, text: str | None) -> str:
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ArrayError) as caught:
            read_picture(str(tmp_path / name))
        return str(caught.value)

    assert "there is no file" in message("nothing.png", None)
    lines = message("text.png", "no picture").splitlines()
    assert len(lines) == 1
    assert "text.png cannot be read as an image: " in lines[0]
    assert "text.npy cannot be read as an image: " in message("text.npy", "no numbers")
    gc.collect()  # here, where that warning is ignored


# ---------------------------------------------------------------------------------------------------- blocks


@settings(deadline=None)  # the first call imports skimage
@given(data=st.data())
def test_segments_do_not_depend_on_blocks_or_on_their_order(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A picture of few values, blocks of any shape, in any order; some run twice, as after a failure."""
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    step = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    values = data.draw(st.lists(st.integers(0, 2), min_size=height * width, max_size=height * width))
    picture = np.array(values, dtype=np.float32).reshape(1, height, width)
    whole = Roi((0, 0), (height, width))
    source, notes = Array(picture, roi=whole), tmp_path_factory.mktemp("notes")
    pieces, segments = (Array(np.zeros((height, width), np.uint32), roi=whole) for _ in range(2))
    template = Roi((0, 0), step)
    grid = Task("t", whole.grow(1, 1), template.grow(1, 1), template, fit="shrink").grid
    order = data.draw(st.permutations(range(grid.size)))
    again = data.draw(st.lists(st.sampled_from(order), max_size=3))
    for index in [*order, *again]:
        block = Block.of_grid(grid, index, total=((-1, height + 1), (-1, width + 1)), task_id="t")
        segment(source, pieces, [0.5, 1.5], notes, block)
    everything = Block(whole, whole, whole)
    join(notes, everything)
    relabel(pieces, segments, notes, everything)
    assert same_partition(segments.data, connected(picture[0]))


def test_a_block_takes_over_the_labels_of_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Context.ENV_VARIABLE, Context(worker_id=7).to_env())
    job = prepare(tmp_path, np.zeros((1, 40, 200), np.float32))
    assert run_blockwise(tasks(job, 1), multiprocessing=False, progress=False, summary=False)
    assert job.records["segment"].to_ndarray()[0].shape == (1, 5)
    assert len(np.unique(job.arrays["pieces"].to_ndarray())) <= 3
    assert len(np.unique(job.arrays["segments"].to_ndarray())) == 1


def test_blocks_give_what_the_whole_picture_gives(job: Job) -> None:
    verdict = compare(job)
    assert verdict.passed
    assert verdict.error == 0
    assert verdict.error_alone > 0.001
    assert verdict.segments == verdict.segments_found > 5
    times, workers = job.records["segment"].to_ndarray()
    assert times.shape == (2, 2)
    assert (workers == 7).all()
    assert times.min() > job.records["smooth"].to_ndarray()[0].min() > 1e9


def test_a_wrong_pixel_is_noticed(job: Job) -> None:
    pixel = Roi((40, 40), (1, 1))
    job.arrays["smooth"][pixel] = job.arrays["smooth"].to_ndarray(pixel) + np.float32(0.01)
    assert not compare(job).passed


def test_a_segment_cut_in_two_is_noticed(job: Job) -> None:
    labels = job.arrays["segments"].to_ndarray()
    names, counts = np.unique(labels, return_counts=True)
    row, column = np.argwhere(labels == names[counts.argmax()])[0]
    job.arrays["segments"][Roi((row, column), (1, 1))] = 2**31
    verdict = compare(job)
    assert verdict.error == 0
    assert not verdict.same_partition
    assert not verdict.passed


# --------------------------------------------------------------------------------------------------- drawing


def test_the_drawing_is_a_png(job: Job, tmp_path: Path) -> None:
    from skimage.io import imread

    draw(tmp_path / "a.png", job, "a picture", began=0.0)
    height, width, _ = imread(tmp_path / "a.png").shape
    assert height > 500
    assert width > 1500


def test_three_channels_are_colours_and_others_are_grey() -> None:
    picture = some_picture(3, 2, 4)
    assert np.array_equal(in_colour(picture)[1, 2], picture[:, 1, 2])
    assert in_colour(np.stack([np.zeros((2, 2)), np.ones((2, 2))])).tolist() == [[[0.5] * 3] * 2] * 2


def test_segments_are_separated_by_white_lines() -> None:
    image = painted(np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 9, 9], [1, 1, 9, 9]]))
    white = (image == 1).all(axis=-1)
    assert np.argwhere(white).tolist() == [[1, 2], [1, 3], [2, 1], [3, 1]]


# ------------------------------------------------------------------------------------------------------- job


def test_the_demo_runs_in_processes_and_again_in_its_own_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", some_picture(64, 80))
    before = logging.get_log_basedir()
    outcomes = [run_demo(str(tmp_path / "a.npy"), tmp_path / "out", workers=2, progress=False) for _ in range(2)]
    assert all(outcome.verdict.passed for outcome in outcomes)
    outcome = outcomes[-1]
    assert outcome.blocks == 21
    assert outcome.drawing.stat().st_size > 10_000
    assert logging.get_log_basedir() == before
    assert (tmp_path / "out" / "logs" / "join").is_dir()
    with pytest.raises(ArrayError, match="which the demo writes anew"):
        run_demo(str(outcome.store / "smooth"), tmp_path / "out", workers=2)
    assert outcome.drawing.exists()


def test_the_demo_never_writes_into_the_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "demo.zarr").mkdir()
    with pytest.raises(ArrayError, match="holds files that are not a demo's; pass another --output"):
        run_demo(None, tmp_path, workers=2)
    (tmp_path / "file").touch()
    with pytest.raises(ArrayError, match=r"cannot be used: .*; pass another --output"):
        run_demo(None, tmp_path / "file", workers=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.zarr", "file"]


def test_a_failed_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(job: Job, workers: int) -> list[Task]:
        return [Task("failing", job.whole, job.whole, job.whole, lambda block: 1 / 0, num_workers=workers)]

    monkeypatch.setattr("blockflow.demo.job.tasks", failing)
    np.save(tmp_path / "a.npy", some_picture(8, 8))
    with pytest.raises(RunError, match=r"what its workers printed is in .*logs"):
        run_demo(str(tmp_path / "a.npy"), tmp_path / "out", workers=1, progress=False)


def test_the_account_says_loudly_what_is_wrong() -> None:
    def account(**changes: Any) -> str:
        numbers: dict[str, Any] = {
            "error_alone": 0.25,
            "error": 0.0,
            "segments": 5,
            "segments_found": 5,
            "same_partition": True,
            "joined": 2,
        }
        return Outcome(
            picture=Picture("cat.png", some_picture(3, 10, 20)),
            verdict=Verdict(**numbers | changes),
            blocks=12,
            seconds=1.23,
            drawing=Path("out/demo.png"),
            store=Path("out/demo.zarr"),
        ).account()

    assert account().splitlines() == [
        "input      cat.png, 20 x 10 pixels, channels: 3",
        "run        12 blocks in 1.2 s",
        "smoothing  equal to that of the whole picture: largest difference 0 (without context 0.25)",
        "segments   5, the same as of the whole picture; 2 labels were joined over the borders of blocks",
        f"zarr       {Path('out/demo.zarr')}",
        f"drawing    {Path('out/demo.png')}",
    ]
    assert "smoothing  NOT EQUAL to" in account(error=0.1)
    assert "segments   6, NOT THE SAME as the 5 of" in account(segments_found=6, same_partition=False)
