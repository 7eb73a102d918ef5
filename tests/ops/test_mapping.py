"""Does a map over blocks give what the function gives on the whole, whatever is read and written?"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import blockflow
from blockflow import Block, Command, Grid, Local, Roi
from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.arrays.shared import SharedArray
from blockflow.errors import (
    ArrayError,
    ArrayNotFoundError,
    BlockError,
    BlockflowError,
    GeometryError,
    MetadataError,
    NotShippableError,
    PlanError,
    RunError,
    ValueLossError,
)
from blockflow.ops import iter_blocks, map_blocks

HERE: dict[str, Any] = {"num_workers": 0, "progress": False}
THERE: dict[str, Any] = {"launcher": Local(2), "progress": False}
BOTH = pytest.mark.parametrize("where", [HERE, THERE], ids=["here", "workers"])
IMAGE = np.arange(12 * 10, dtype=np.uint16).reshape(12, 10)

ROOT = str(Path(blockflow.__file__).parents[1])


def _environment(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""  # it has ended, or is somebody else's


def same(block: Any) -> Any:
    return block


def plus_one(block: Any) -> Any:
    return block + 1


class TestGivenAndWritten:
    @given(
        data=st.data(),
        shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
        pad=st.sampled_from([None, "edge", "reflect", "symmetric", "wrap", "constant"]),
    )
    def test_blocks_are_given_what_padding_the_whole_gives(self, data: Any, shape: list[int], pad: Any) -> None:
        block = [data.draw(st.integers(1, 10)) for _ in shape]
        context = [data.draw(st.tuples(st.integers(0, 5), st.integers(0, 5))) for _ in shape]
        image = np.random.default_rng(0).integers(1, 255, shape)
        blocks = map_blocks(same, image, grid=block, context=context, pad=pad, collect=True, **HERE)
        grid = Grid.regular(shape, block, context, clip=False)
        whole = image if pad is None else np.pad(image, context, pad)
        for index, got in enumerate(blocks):
            box = grid.read_box(index)
            if pad is None:
                key = tuple(slice(max(0, b), min(n, e)) for (b, e), n in zip(box, shape, strict=True))
            else:
                key = tuple(slice(b + before, e + before) for (b, e), (before, _) in zip(box, context, strict=True))
            assert_array_equal(got, whole[key])

    @given(
        data=st.data(), shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), pad=st.sampled_from([None, "edge"])
    )
    def test_results_are_cropped_and_fill_the_output(self, data: Any, shape: list[int], pad: Any) -> None:
        block = [data.draw(st.integers(1, 10)) for _ in shape]
        context = data.draw(st.integers(0, 4))
        image = np.random.default_rng(0).random(shape)
        assert_array_equal(map_blocks(plus_one, image, grid=block, context=context, pad=pad, **HERE), image + 1)

    def test_other_modes_pad_what_is_inside(self) -> None:
        got = map_blocks(
            same,
            np.arange(4.0),
            grid=2,
            context=1,
            pad={"mode": "constant", "constant_values": 9},
            collect=True,
            **HERE,
        )
        assert [block.tolist() for block in got] == [[9, 0, 1, 2], [1, 2, 3, 9]]
        got = map_blocks(same, np.arange(4.0), grid=2, context=1, pad="mean", collect=True, **HERE)
        assert [block.tolist() for block in got] == [[1, 0, 1, 2], [1, 2, 3, 2]]

    def test_a_result_may_cover_what_the_block_writes_or_be_one_number(self) -> None:
        image = np.arange(10)
        inner = map_blocks(lambda block: block[1:-1] * 2, image, grid=3, context=1, pad="edge", **HERE)
        assert_array_equal(inner, image * 2)
        assert map_blocks(len, image, grid=4, **HERE).tolist() == [4, 4, 4, 4, 4, 4, 4, 4, 2, 2]

    def test_a_function_may_change_what_it_is_given(self) -> None:
        def spoil(block: Any) -> Any:
            block += 1
            return block

        image = IMAGE.copy()
        assert_array_equal(map_blocks(spoil, image, grid=4, context=2, **HERE), IMAGE + 1)
        assert_array_equal(image, IMAGE)

    @BOTH
    def test_several_sources_and_outputs(self, where: Any) -> None:
        total, difference = np.zeros((12, 10), np.int64), np.zeros((12, 10), np.int32)
        got = map_blocks(
            lambda a, b: (a + b, a.astype(int) - b),
            IMAGE,
            IMAGE[::-1].copy(),
            out=[total, difference],
            grid=(5, 3),
            context=1,
            **where,
        )
        assert got[0] is total
        assert got[1] is difference
        assert_array_equal(total, IMAGE.astype(int) + IMAGE[::-1])
        assert_array_equal(difference, IMAGE.astype(int) - IMAGE[::-1])

    def test_channels_are_read_and_written_whole(self) -> None:
        colours = np.arange(3 * 4 * 4).reshape(3, 4, 4)
        named = Array(colours, voxel_size=(1, 1))
        assert_array_equal(map_blocks(plus_one, named, grid=(2, 3), context=1, **HERE), colours + 1)
        grey = np.zeros((4, 4), int)
        map_blocks(lambda block: block.sum(axis=0), Array(colours, voxel_size=(1, 1)), out=grey, grid=2, **HERE)
        assert_array_equal(grey, colours.sum(axis=0))

    def test_voxels_of_other_sizes_are_put_at_the_same_place(self) -> None:
        fine = Array(np.arange(8), (40,), (2,))
        coarse = Array(np.zeros(4, int), (40,), (4,))
        map_blocks(lambda a: a.reshape(-1, 2).sum(axis=1), fine, out=coarse, grid=4, **HERE)
        assert coarse.to_ndarray().tolist() == [1, 5, 9, 13]
        both = map_blocks(lambda a, b: (len(a), len(b)), fine, coarse, grid=4, collect=True, **HERE)
        assert both == [(4, 2), (4, 2)]

    def test_plain_arrays_lie_where_the_first_array_lies(self) -> None:
        out = np.zeros(4, int)
        map_blocks(np.add, Array(np.arange(4), (80,), (8,)), np.ones(4, int), out=out, grid=3, **HERE)
        assert out.tolist() == [1, 2, 3, 4]

    def test_one_dtype_for_each_output(self) -> None:
        got = map_blocks(lambda b: (b, b), IMAGE, out=[None, None], dtype=["f4", "u8"], grid=5, **HERE)
        assert [str(each.dtype) for each in got] == ["float32", "uint64"]

    def test_as_many_workers_as_processors(self) -> None:
        assert_array_equal(map_blocks(plus_one, IMAGE, grid=(12, 10), progress=False), IMAGE + 1)

    def test_a_given_grid(self) -> None:
        grid = Grid.balanced((12, 10), max_size=5, overlap=2)
        assert_array_equal(map_blocks(plus_one, IMAGE, grid=grid, **HERE), IMAGE + 1)
        inner = Grid.regular((4, 4), 2, offset=(2, 2))
        out = np.zeros((12, 10), int)
        map_blocks(plus_one, Array(IMAGE), out=Array(out), grid=inner, **HERE)
        expected = np.zeros_like(out)
        expected[2:6, 2:6] = IMAGE[2:6, 2:6] + 1
        assert_array_equal(out, expected)

    def test_the_grid_is_that_of_the_chunks_if_none_is_given(self) -> None:
        assert map_blocks(np.shape, IMAGE, collect=True, **HERE) == [(12, 10)]
        stored = zarr.create_array({}, shape=(6, 6), chunks=(2, 2), shards=(4, 4), dtype="u1")
        assert map_blocks(np.shape, stored, collect=True, **HERE) == [(4, 4), (4, 2), (2, 4), (2, 2)]


def sources(folder: Path) -> dict[str, Any]:
    """The same image in every form."""
    import h5py
    import tifffile

    np.save(folder / "image.npy", IMAGE)
    np.save(folder / "stack.npy", np.stack([IMAGE * 0, IMAGE]))
    stored = prepare_ds(folder / "image.zarr", "raw", Roi((0, 0), (12, 10)), dtype="uint16", chunks=(4, 5))
    stored[stored.roi] = IMAGE
    with h5py.File(folder / "image.h5", "w") as file:
        file["a/raw"] = IMAGE
    (folder / "planes").mkdir()
    for number, plane in enumerate(IMAGE.reshape(12, 1, 10)):
        tifffile.imwrite(folder / "planes" / f"z{number}.tif", plane)
    memory = zarr.create_array({}, shape=(12, 10), chunks=(4, 5), dtype="uint16")
    memory[...] = IMAGE
    return {
        "ndarray": IMAGE,
        "fortran": np.asfortranarray(IMAGE),
        "npy": folder / "image.npy",
        "memmap": np.load(folder / "image.npy", mmap_mode="r"),
        "view of memmap": np.load(folder / "stack.npy", mmap_mode="r")[1],
        "zarr path": str(folder / "image.zarr" / "raw"),
        "zarr array": stored.data,
        "zarr in memory": memory,
        "Array": stored,
        "window": stored[Roi((0, 0), (12, 10))],
        "SharedArray": SharedArray.from_array(IMAGE),
        "hdf5 path": folder / "image.h5" / "a" / "raw",
        "hdf5 dataset": h5py.File(folder / "image.h5", "r")["a/raw"],
    }


class TestArrays:
    @BOTH
    def test_every_kind_of_source_is_read(self, where: Any, tmp_path: Path) -> None:
        given = sources(tmp_path)
        names = list(given)
        got = map_blocks(
            lambda *blocks: [block.tolist() for block in blocks],
            *given.values(),
            grid=(5, 4),
            context=1,
            collect=True,
            **where,
        )
        for index, blocks in enumerate(got):
            box = Grid.regular((12, 10), (5, 4), 1).read_box(index)
            expected = IMAGE[tuple(slice(*pair) for pair in box)].tolist()
            for name, block in zip(names, blocks, strict=True):
                assert block == expected, name
        planes = map_blocks(same, tmp_path / "planes", grid=(5, 1, 4), **where)
        assert_array_equal(planes[:, 0], IMAGE)

    @BOTH
    def test_every_kind_of_output_is_written(self, where: Any, tmp_path: Path) -> None:
        np.save(tmp_path / "there.npy", IMAGE * 0)
        np.save(tmp_path / "stack.npy", np.stack([IMAGE * 0, IMAGE * 0]))
        window = prepare_ds(tmp_path / "w.zarr", "x", Roi((0, 0), (16, 12)), dtype="u2", chunks=(4, 4))
        plain = np.zeros((2, 12, 10), np.uint16)
        outputs = {
            "ndarray": np.zeros((12, 10), np.uint16),
            "view": plain[1],
            "memmap": np.load(tmp_path / "there.npy", mmap_mode="r+"),
            "view of memmap": np.load(tmp_path / "stack.npy", mmap_mode="r+")[1],
            "new npy": tmp_path / "new.npy",
            "new zarr": tmp_path / "new.zarr",
            "zarr array": zarr.create_array(tmp_path / "z.zarr", shape=(12, 10), chunks=(4, 5), dtype="u2"),
            "zarr in memory": zarr.create_array({}, shape=(12, 10), chunks=(4, 5), dtype="u2"),
            "window": window[Roi((0, 0), (12, 10))],
            "SharedArray": SharedArray.create((12, 10), np.uint16),
            "in shared memory": None,
        }
        got = map_blocks(
            lambda block: (block + 1,) * len(outputs), IMAGE, out=list(outputs.values()), grid=(4, 10), **where
        )
        for name, out, result in zip(outputs, outputs.values(), got, strict=True):
            assert out is result or out is None or isinstance(out, Path), name
            assert_array_equal(np.asarray(result), IMAGE + 1, err_msg=name)
        assert_array_equal(np.load(tmp_path / "there.npy"), IMAGE + 1)
        assert_array_equal(np.load(tmp_path / "new.npy"), IMAGE + 1)
        assert_array_equal(np.load(tmp_path / "stack.npy"), [IMAGE * 0, IMAGE + 1])
        assert_array_equal(plain, [IMAGE * 0, IMAGE + 1])
        assert open_ds(tmp_path / "new.zarr").data.chunks == (4, 10)

    @BOTH
    @pytest.mark.parametrize("pad", [None, "reflect", "constant"])
    @pytest.mark.parametrize("cache_bytes", [0, 100, 10**6])
    def test_what_is_kept_of_a_source_changes_nothing(
        self, where: Any, pad: Any, cache_bytes: int, tmp_path: Path
    ) -> None:
        stored = zarr.create_array(tmp_path / "z.zarr", shape=IMAGE.shape, chunks=(4, 3), dtype="u2")
        stored[...] = IMAGE
        options: dict[str, Any] = {"grid": (3, 4), "context": (2, 1), "pad": pad, "collect": True, **where}
        for got, expected in zip(
            map_blocks(same, stored, cache_bytes=cache_bytes, **options),
            map_blocks(same, IMAGE, **options),
            strict=True,
        ):
            assert_array_equal(got, expected)

    @BOTH
    def test_hdf5_is_written_in_this_process_only(self, where: Any, tmp_path: Path) -> None:
        import h5py

        with h5py.File(tmp_path / "x.h5", "w") as file:
            out = file.create_dataset("a", (12, 10), "u2")
            if where is HERE:
                map_blocks(plus_one, IMAGE, out=out, grid=5, **where)
                assert_array_equal(out[...], IMAGE + 1)
            else:
                with pytest.raises(BlockflowError, match=r"got h5py\..*Dataset; use num_workers=0"):
                    map_blocks(plus_one, IMAGE, out=out, grid=5, **where)

    def test_a_new_file_lies_where_the_source_lies(self, tmp_path: Path) -> None:
        source = Array(np.ones((2, 12, 10), "u1"), (80, 0), (8, 4), axis_names=("c", "y", "x"), units=("nm", "nm"))
        map_blocks(same, source, out=tmp_path / "a.zarr" / "x", grid=(5, 10), dtype="f4", **HERE)
        out = open_ds(tmp_path / "a.zarr", "x")
        assert (out.roi, out.shape, str(out.dtype)) == (source.roi, (2, 12, 10), "float32")
        assert out.axis_names == ("c", "y", "x")
        assert out.data.chunks == (2, 5, 10)

    def test_what_the_grid_leaves_out_stays_as_it_was(self) -> None:
        out = np.full((12, 10), 7, np.uint16)
        map_blocks(plus_one, IMAGE, out=out, grid=(6, 5), mask=np.array([[True, False], [False, False]]), **THERE)
        expected = np.full((12, 10), 7)
        expected[:6, :5] = IMAGE[:6, :5] + 1
        assert_array_equal(out, expected)

    @BOTH
    def test_an_array_in_memory_may_be_changed_in_place(self, where: Any) -> None:
        image = IMAGE.copy()
        assert map_blocks(plus_one, image, out=image, grid=5, **where) is image
        assert_array_equal(image, IMAGE + 1)

    @BOTH
    def test_in_place_with_context_blocks_see_what_was_there_before(self, where: Any) -> None:
        line = np.arange(12)
        map_blocks(lambda block: np.cumsum(block), line, out=line, grid=3, context=((2, 0),), **where)
        assert line.tolist() == map_blocks(np.cumsum, np.arange(12), grid=3, context=((2, 0),), **HERE).tolist()

    def test_a_file_must_not_be_changed_in_place(self, tmp_path: Path) -> None:
        stored = prepare_ds(tmp_path / "a.zarr", "x", Roi((0,), (8,)), dtype="u1", chunks=(4,))
        np.save(tmp_path / "a.npy", np.zeros(8))
        for array in (stored, tmp_path / "a.npy", np.load(tmp_path / "a.npy", mmap_mode="r+")):
            with pytest.raises(
                PlanError, match=r"^out must not be source 0, under whatever name: a block that is done again"
            ):
                map_blocks(plus_one, array, out=array, grid=4, **HERE)

    def test_parts_of_one_file_that_do_not_meet_are_different(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.stack([IMAGE, IMAGE * 0]))
        read, write = (np.load(tmp_path / "a.npy", mmap_mode=mode) for mode in ("r", "r+"))
        map_blocks(plus_one, read[0, ::-1], out=write[1, ::-1], grid=5, **THERE)
        assert_array_equal(np.load(tmp_path / "a.npy"), [IMAGE, IMAGE + 1])
        with pytest.raises(PlanError, match=r"^out must not be source 0"):
            map_blocks(plus_one, read[0], out=write[0], grid=5, **THERE)
        with pytest.raises(PlanError, match=r"^out must not be source 0"):
            map_blocks(plus_one, write[0], out=write[0, ::-1], grid=5, **THERE)
        shared = SharedArray.from_array(IMAGE)
        with pytest.raises(PlanError, match=r"^out must not be source 0"):
            map_blocks(plus_one, shared, out=pickle.loads(pickle.dumps(shared)), grid=5, **THERE)


class TestCasting:
    def test_values_that_fit_are_stored_and_others_refused(self) -> None:
        out = np.zeros(4, np.uint8)
        map_blocks(lambda block: block * 1.0, np.arange(4), out=out, grid=2, **HERE)
        assert out.tolist() == [0, 1, 2, 3]
        with pytest.raises(
            ValueLossError, match=r"^block 1 at \(1,\): result 0 must be from 0 to 255 .*got 256 to 257"
        ):
            map_blocks(
                lambda block: block * 0 + [256, 257] if block[0] else block, np.arange(4), out=out, grid=2, **HERE
            )

    def test_numpy_rules_as_asked(self) -> None:
        out = np.zeros(2, np.uint8)
        map_blocks(same, np.array([3.9, 300.0]), out=out, grid=2, casting="unsafe", **HERE)
        assert out[0] == 3
        with pytest.raises(ValueLossError, match=r"float64 must not be cast to uint8 with casting='same_kind'"):
            map_blocks(same, np.array([3.0]), out=out[:1], grid=1, casting="same_kind", **HERE)


class TestResults:
    @BOTH
    def test_collected_in_the_order_of_the_grid(self, where: Any) -> None:
        sums = map_blocks(np.sum, IMAGE, grid=(6, 5), collect=True, **where)
        assert sums == [IMAGE[y : y + 6, x : x + 5].sum() for y in (0, 6) for x in (0, 5)]
        masked = map_blocks(np.sum, IMAGE, grid=(6, 5), collect=True, mask=np.eye(2, dtype=bool), **where)
        assert masked == [sums[0], None, None, sums[3]]

    @BOTH
    def test_some_written_and_some_collected(self, where: Any) -> None:
        out = np.zeros((12, 10), np.uint16)
        counts = map_blocks(
            lambda block: (block, np.argwhere(block > 100)), IMAGE, out=out, grid=6, collect=True, **where
        )
        assert_array_equal(out, IMAGE)
        assert sum(map(len, counts)) == (IMAGE > 100).sum()

    @BOTH
    @pytest.mark.parametrize("ordered", [True, False])
    def test_blocks_come_with_their_results(self, where: Any, ordered: bool) -> None:
        got = [
            (block.index, block.write_roi.begin[0], result)
            for block, result in iter_blocks(np.sum, np.arange(40), grid=4, ordered=ordered, **where)
        ]
        expected = [(i, 4 * i, 16 * i + 6) for i in range(10)]
        assert (got if ordered else sorted(got)) == expected

    @BOTH
    def test_ordered_blocks_behind_those_that_are_left_out(self, where: Any) -> None:
        mask = np.array([False, True, False, True])
        assert [b.index for b, _ in iter_blocks(np.sum, np.arange(8), grid=2, mask=mask, **where)] == [1, 3]

    @BOTH
    def test_leaving_the_loop_stops_the_run(self, where: Any, tmp_path: Path) -> None:
        def note(block: Any) -> int:
            (tmp_path / f"block{block[0]}").touch()
            return int(block[0])

        for _, result in iter_blocks(note, np.arange(100_000), grid=1, **where):
            if result == 3:
                break
        assert 4 <= len(list(tmp_path.glob("block*"))) < 100_000
        assert not list(Path(tempfile.gettempdir()).glob(f"blockflow-*/*-{os.getpid()}-*"))

    @pytest.mark.parametrize("workers", ["launcher=blockflow.Local(2)", "num_workers=None"])
    @pytest.mark.parametrize("ending", ["break", "raise KeyError", "sys.exit()"])
    def test_nothing_goes_on_when_somebody_leaves(self, workers: str, ending: str, tmp_path: Path) -> None:
        script = textwrap.dedent(
            f"""
            import os, sys, threading, time
            import numpy as np
            import blockflow
            from blockflow.ops import iter_blocks

            def work(block):
                time.sleep(0.05 if block[0] < 20 else 3600)
                return block

            os.sched_getaffinity = lambda pid: {{0, 1}}
            results = iter_blocks(work, np.arange(1000), grid=2, {workers}, progress=False)
            try:
                for block, result in results:
                    if block.index == 5:
                        print("leaving", flush=True)
                        {ending}
            except KeyError:
                pass
            """
        )
        mark = f"blockflow-leaving-{os.getpid()}-{workers[0]}-{ending.split()[0]}"
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ROOT, "TMPDIR": str(tmp_path), "MARK": mark},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        assert done.stdout == "leaving\n"
        assert done.stderr == ""
        assert not list(tmp_path.glob("blockflow-*"))
        assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in _environment(pid)]

    def test_classes_of_this_process_come_back_as_themselves(self) -> None:
        class Found:
            def __init__(self, total: int) -> None:
                self.total = total

        found = map_blocks(lambda block: Found(int(block.sum())), np.arange(4), grid=2, collect=True, **THERE)
        assert [type(each) for each in found] == [Found, Found]
        assert [each.total for each in found] == [1, 5]

    def test_what_cannot_be_pickled_is_named(self) -> None:
        with pytest.raises(RunError, match="what the function returned for block 0 cannot be kept"):
            map_blocks(lambda block: threading.Lock(), np.arange(4), grid=4, collect=True, max_retries=0, **THERE)


class TestBlockCalls:
    @BOTH
    def test_the_function_reads_and_writes_by_itself(self, where: Any) -> None:
        def copy(block: Block, image: Array, out: Array) -> tuple[int, ...]:
            out[block.write_roi] = image.to_ndarray(block.write_roi) + 1
            assert block.position is not None
            return block.position

        out = np.zeros((12, 10), np.uint16)
        assert map_blocks(copy, IMAGE, out=out, grid=(6, 10), call="block", collect=True, **where) == [(0, 0), (1, 0)]
        assert_array_equal(out, IMAGE + 1)
        assert map_blocks(lambda block, image: None, IMAGE, grid=6, call="block", **where) is None

    @BOTH
    def test_setup_is_called_once_in_each_process(self, where: Any, tmp_path: Path) -> None:
        def setup() -> int:
            (tmp_path / f"setup-{os.getpid()}").touch()
            return 5

        def teardown(state: int) -> None:
            (tmp_path / f"teardown-{state}").touch()

        got = map_blocks(lambda block, state: block + state, IMAGE, grid=3, setup=setup, teardown=teardown, **where)
        assert_array_equal(got, IMAGE + 5)
        assert 1 <= len(list(tmp_path.glob("setup-*"))) <= 2
        assert (tmp_path / "teardown-5").exists()


class TwoArguments(ValueError):
    def __init__(self, first: str, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.second = second


class Stubborn(ValueError):
    def __reduce__(self) -> Any:
        raise TypeError("never")


class TestFailures:
    @BOTH
    def test_exceptions_keep_type_and_message(self, where: Any) -> None:
        def fail(block: Any) -> None:
            if block[0] == 4:
                raise TwoArguments("one", 2)

        with pytest.raises(TwoArguments, match=r"^one and 2$") as info:
            map_blocks(fail, np.arange(8), grid=4, collect=True, max_retries=0, **where)
        assert info.value.second == 2
        if where is THERE:
            assert isinstance(info.value.__cause__, BlockError)
            text = str(info.value.__cause__)
            assert text.startswith(
                "block 1 at (1,) failed with TwoArguments: one and 2; what the workers printed is in"
            )
            assert 'raise TwoArguments("one", 2)' in text

    def test_exceptions_that_only_pickle_in_parts(self) -> None:
        def fail(block: Any) -> None:
            raise Stubborn("no")

        with pytest.raises(Stubborn, match=r"^no$"):
            map_blocks(fail, np.arange(8), grid=4, collect=True, max_retries=0, **THERE)

    def test_exceptions_that_cannot_be_sent_are_told_in_words(self) -> None:
        def fail(block: Any) -> None:
            error = ValueError("held")
            error.lock = threading.Lock()  # type: ignore[attr-defined]
            raise error

        with pytest.raises(
            BlockError, match=r"^block 0 at \(0,\), the first of 2 that are not done, failed with ValueError"
        ):
            map_blocks(fail, np.arange(8), grid=4, collect=True, max_retries=0, **THERE)

    def test_a_process_that_dies(self) -> None:
        def die(block: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(BlockError, match=r"^block 0 at \(0,\) failed with "):
            map_blocks(die, np.arange(4), grid=4, collect=True, **THERE)

    def test_blocks_are_tried_again_and_the_others_are_done(self, tmp_path: Path) -> None:
        def fail_once(block: Any) -> Any:
            if block[0] == 4 and not (tmp_path / "failed").exists():
                (tmp_path / "failed").touch()
                raise OSError("once")
            return block

        assert_array_equal(map_blocks(fail_once, np.arange(8), grid=4, **THERE), np.arange(8))
        out = np.zeros(8, int)
        with pytest.raises(ZeroDivisionError):
            map_blocks(lambda block: block - 4 // (int(block[0]) - 4), np.arange(8), out=out, grid=4, **THERE)
        assert out.tolist() == [1, 2, 3, 4, 0, 0, 0, 0]

    def test_workers_that_end_after_some_blocks(self) -> None:
        pids = map_blocks(lambda b: os.getpid(), np.arange(20), grid=1, collect=True, blocks_per_process=2, **THERE)
        assert max(map(pids.count, pids)) == 2

    def test_workers_that_cannot_begin(self) -> None:
        def setup() -> None:
            raise MemoryError("too large a model")

        with pytest.raises(MemoryError, match=r"^too large a model$") as info:
            map_blocks(same, np.arange(4), grid=4, setup=setup, collect=True, **THERE)
        assert isinstance(info.value.__cause__, RunError)
        assert str(info.value.__cause__).startswith("1 of 1 blocks are not done: ")
        with pytest.raises(RunError, match=r"^1 of 1 blocks are not done: .*; what the workers printed is in"):
            map_blocks(same, np.arange(4), grid=4, setup=lambda: os._exit(3), collect=True, **THERE)

    def test_failures_while_iterating_come_in_the_end(self) -> None:
        got: list[int | None] = []
        with pytest.raises(IndexError):
            got.extend(b.index for b, _ in iter_blocks(lambda b: b[3], np.arange(10), grid=4, max_retries=0, **THERE))
        assert got == [0, 1]

    def test_what_cannot_be_sent(self) -> None:
        lock = threading.Lock()
        with pytest.raises(NotShippableError, match="lock"):
            map_blocks(lambda block: lock.locked(), np.arange(4), grid=2, collect=True, **THERE)
        with pytest.raises(NotShippableError, match="lock"):
            list(iter_blocks(lambda block: lock.locked(), np.arange(4), grid=2, **THERE))


class TestOtherMachines:
    def test_workers_that_a_command_starts(self, tmp_path: Path) -> None:
        np.save(tmp_path / "image.npy", IMAGE)
        options: dict[str, Any] = {
            "grid": 6,
            "launcher": Command("sh -c {command}", workers=2),
            "host": "127.0.0.1",
            "progress": False,
        }
        source = tmp_path / "image.npy"
        out = map_blocks(plus_one, source, out=tmp_path / "out.npy", run_dir=tmp_path / "a", **options)
        assert_array_equal(out, IMAGE + 1)
        sums = map_blocks(np.sum, source, collect=True, run_dir=tmp_path / "b", **options)
        again = [result for _, result in iter_blocks(np.sum, source, run_dir=tmp_path / "c", **options)]
        assert sums == again == map_blocks(np.sum, IMAGE, grid=6, collect=True, **HERE)

    def test_refused(self, tmp_path: Path) -> None:
        command = Command("sh -c {command}", workers=2)
        remote: dict[str, Any] = {"launcher": command, "num_workers": None, "run_dir": tmp_path / "run"}
        refused("num_workers=0 is this process, which needs no launcher", IMAGE, **remote | {"num_workers": 0})
        refused("keep results and exceptions in the run directory: pass run_dir", IMAGE, **remote | {"run_dir": None})
        refused("launcher must be Local, Slurm", IMAGE, launcher="slurm")
        for image in (IMAGE, SharedArray.from_array(IMAGE)):
            refused("see files only, and <Array [0:12, 0:10]", image, out=tmp_path / "o.npy", **remote)


class TestResuming:
    @BOTH
    def test_what_is_done_is_not_done_again(self, where: Any, tmp_path: Path) -> None:
        def twice(block: Any) -> Any:
            if block[0] and not (tmp_path / "go").exists():
                raise OSError("not yet")
            (tmp_path / f"done-{block[0]}-{len(list(tmp_path.glob('done-*')))}").touch()
            return block * 2, int(block.sum())

        options: dict[str, Any] = {
            "out": tmp_path / "out.npy",
            "grid": 4,
            "collect": True,
            "run_dir": tmp_path / "run",
            "max_retries": 0,
        }
        with pytest.raises(OSError, match="not yet"):
            map_blocks(twice, np.arange(8), **options, **where)
        (tmp_path / "go").touch()
        for _ in range(2):
            assert map_blocks(twice, np.arange(8), **options, **where) == [6, 22]
        assert_array_equal(np.load(tmp_path / "out.npy"), np.arange(8) * 2)
        assert len(list(tmp_path.glob("done-*"))) == 2
        del options["collect"]
        assert [result for _, result in iter_blocks(twice, np.arange(8), **options, **where)] == [6, 22]

    def test_results_that_were_not_kept(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"grid": 4, "run_dir": tmp_path / "run", "call": "block", **HERE}
        map_blocks(lambda block, line: 1, np.arange(8), **options)
        with pytest.raises(RunError, match="the results of 2 blocks, 0 the first, are missing in"):
            map_blocks(lambda block, line: 1, np.arange(8), collect=True, **options)

    def test_outputs_in_memory_are_refused(self, tmp_path: Path) -> None:
        for out in (None, np.zeros(8), SharedArray.create(8, "u1")):
            with pytest.raises(PlanError, match="with run_dir, out must be a file"):
                map_blocks(same, np.arange(8), out=out, grid=4, run_dir=tmp_path / "run", **HERE)


def refused(
    message: str, *sources: Any, error: type[Exception] = PlanError, function: Any = same, **options: Any
) -> None:
    with pytest.raises(error) as info:
        map_blocks(function, *sources, **{"grid": 4, **HERE, **options})
    assert message in str(info.value)
    assert isinstance(info.value, ValueError | BlockflowError)


class TestRefused:
    def test_iterating_refuses_before_the_first_step(self) -> None:
        with pytest.raises(PlanError, match="num_workers must be"):
            iter_blocks(same, IMAGE, num_workers=-1)

    def test_arguments(self, tmp_path: Path) -> None:
        line = np.arange(8)
        refused("function must be callable, got 3", line, function=3)
        refused("call must be one of 'array', 'block', got 'source'", line, call="source")
        refused("casting must be one of 'checked', 'no'", line, casting="loose")
        refused("num_workers must be a whole number >= 0, or None for all processors, got -1", line, num_workers=-1)
        refused("cache_bytes must be a whole number >= 0, got -1", line, cache_bytes=-1)
        refused("teardown gets what setup returns", line, teardown=print)
        refused("pad is for call='array'", line, call="block", pad="edge")
        refused("pad must be None, a mode of numpy.pad, or a dict of its arguments: got 'mirror'", line, pad="mirror")
        refused("a map needs at least one source, or an output that exists", collect=True)
        refused("out does not exist, and there is no source", out=tmp_path / "x.npy")
        refused("source 0 must be a path, an Array, or an array with shape, dtype and []: list has no shape", [1, 2])
        refused("grid must be a Grid, or the shape of a block in voxels, got 'large'", line, grid="large")
        refused("dtype must be one, or one for each of 1 outputs, got 2", line, dtype=["u1", "u2"])
        refused("axis 1: block must be a whole number of at least 1, got 'x'", np.zeros((8, 8)), grid=(4, "x"))
        refused("a grid has its own context", line, grid=Grid.regular((8,), 4), context=2)
        refused("pad has nothing to do", line, grid=Grid.regular((8,), 4, 1), pad="edge")
        refused("the function must return an array for out, it returned None", line, function=lambda block: None)
        refused(
            "must return a tuple of 2 values, one for each of 1 outputs and one to collect: it returned ndarray",
            line,
            out=line.copy(),
            collect=True,
        )
        refused(
            "must return a tuple of 3 values, one for each of 3 outputs: it returned 2 values",
            line,
            function=lambda b: (b, b),
            out=[None] * 3,
        )

    def test_shapes(self) -> None:
        line = np.arange(8)
        refused(
            "all sources must cover the same region: axis 0 of source 0 is [0, 8), that of source 1 is [0, 7)",
            line,
            np.arange(7),
            error=GeometryError,
        )
        refused(
            "blocks must write inside out: axis 0 is written in [0, 8), and out has [0, 7)",
            line,
            out=np.zeros(7),
            error=GeometryError,
        )
        refused(
            "blocks must write inside the sources: axis 0 is written in [0, 9), and the sources has [0, 8)",
            line,
            grid=Grid.regular((9,), 3),
            error=GeometryError,
        )
        refused("source 0 must have 2 axes or more", line, grid=(4, 4), error=GeometryError)
        refused(
            "source 1 must have 1 spatial axes, as the blocks have, got 2",
            Array(line),
            Array(np.zeros((8, 8))),
            error=GeometryError,
        )
        refused(
            "block 0 at (0,): result 0 must have shape (5,), as it was given, or (4,), as the block writes; got (3,) "
            "(axis 0 has 3)",
            line,
            function=lambda block: block[:3],
            context=1,
            error=GeometryError,
        )
        refused(
            "block 0 at (0,): result 0 must have shape (4,); got (2, 4)",
            line,
            function=lambda b: np.stack([b, b]),
            error=GeometryError,
        )
        refused(
            "blocks must begin and end between voxels of out: on axis 0 block 0 ends at 3, and voxels measure 2",
            Array(line),
            out=Array(np.zeros(4), voxel_size=(2,)),
            grid=3,
            error=GeometryError,
        )
        refused("mask", line, mask=np.zeros(7, bool))

    def test_damaged_metadata_says_which_argument(self, tmp_path: Path) -> None:
        prepare_ds(tmp_path / "a.zarr", "x", Roi((0,), (8,)), dtype="i8").data.attrs["voxel_size"] = [0.5]
        refused("source 0: ", tmp_path / "a.zarr" / "x", error=MetadataError)

    def test_storage(self, tmp_path: Path) -> None:
        line = np.arange(8)
        frozen = np.zeros(8)
        frozen.flags.writeable = False
        refused("out must be writable, got a read-only ndarray", line, out=frozen)
        refused("nothing is at", tmp_path / "none.npy", error=ArrayNotFoundError)
        refused("no array at", tmp_path / "none.zarr", error=ArrayNotFoundError)
        refused("nothing is at", tmp_path / "none.h5" / "x", error=ArrayNotFoundError)
        refused("nothing is at", tmp_path / "none.tif", error=ArrayNotFoundError)
        refused("out must exist if it is in an HDF5 file", line, out=tmp_path / "none.h5" / "x", error=ArrayError)
        refused(
            "have no common divisor but 1; make the grid with multiple_of=",
            np.arange(100),
            grid=Grid.balanced((100,), max_size=18),
            out=tmp_path / "x.zarr",
        )
        refused(
            "a zarr array is made with one channel axis at most",
            Array(np.zeros((2, 2, 8)), voxel_size=(1,)),
            out=tmp_path / "x.zarr",
            grid=(4,),
        )
        stored = prepare_ds(tmp_path / "a.zarr", "x", Roi((0,), (8,)), dtype="i8", chunks=(4,))
        refused("chunk", line, out=stored, grid=3, num_workers=1)
        assert_array_equal(map_blocks(same, line, out=stored, grid=3, **HERE).to_ndarray(), line)
        refused(
            "must be an ndarray, memmap, SharedArray or zarr array to be written by other processes",
            line,
            out=Strange(),
            num_workers=1,
        )


class Strange:
    """Something that takes writes nobody else may see."""

    shape = (8,)
    dtype = np.dtype(int)

    def __getitem__(self, key: Any) -> Any:
        return np.zeros(8, int)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        raise AssertionError
