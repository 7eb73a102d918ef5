from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blockflow.arrays.shared import SharedArray
from blockflow.errors import ArrayError, PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]

DTYPES = [
    np.dtype(name)
    for name in (
        "?",
        "u1",
        "i2",
        "u8",
        "f2",
        "f4",
        "f8",
        "c8",
        "c16",
        ">i4",
        ">c16",
        "S3",
        "U2",
        "V5",
        "M8[s]",
    )
] + [
    np.dtype([("id", "<u8"), ("centre", ">f4", (3,)), ("flag", "?")], align=True),
]


@pytest.fixture(params=["anonymous memory", "locked file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where files would lie; runs a test once per kind of memory and checks that nothing stays behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param == "locked file":
        monkeypatch.delattr(os, "memfd_create")
    elif not sys.platform.startswith("linux"):
        pytest.skip("anonymous memory needs Linux")
    gc.collect()  # what earlier tests have left must not be counted, and go meanwhile
    before = _descriptors()
    yield tmp_path
    gc.collect()
    if "method" not in request.fixturenames:  # multiprocessing keeps some for its own servers
        assert _descriptors() == before
    assert list(tmp_path.glob("blockflow-*")) == []


def _descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def _run(code: str, shared: SharedArray) -> subprocess.CompletedProcess[bytes]:
    """Run code with the unpickled handle as `shared` in a process that has nothing to do with this one."""
    program = f"import pickle, sys\nshared = pickle.load(sys.stdin.buffer)\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(shared),
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )


def _add_one(shared: SharedArray) -> None:
    with shared.open() as array:
        array += 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3, 4), (3, 0, 2)])
def test_any_dtype_and_shape_starts_as_zeros_and_keeps_a_copy(
    folder: Path, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> None:
    with SharedArray.create(shape, dtype) as zeros:
        assert zeros.shape == shape
        assert zeros.ndim == len(shape)
        assert zeros.dtype == dtype
        assert zeros.nbytes == np.zeros(shape, dtype).nbytes
        assert zeros.view().tobytes() == np.zeros(shape, dtype).tobytes()
    raw = np.random.default_rng(0).integers(0, 2, max(1, int(np.prod(shape))) * max(1, dtype.itemsize), np.uint8)
    array = np.ndarray(shape, dtype, raw)
    with SharedArray.from_array(array) as copy:
        assert copy.dtype == dtype
        assert copy.view().dtype == dtype
        assert copy.view().tobytes() == array.tobytes()
        assert not np.shares_memory(copy.view(), array)


@settings(deadline=None, max_examples=50)
@given(
    array=hnp.arrays(hnp.array_dtypes() | hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)),
    axes=st.randoms(),
)
def test_a_pickled_handle_sees_the_same_bytes_in_any_memory_layout(array: np.ndarray[Any, Any], axes: Any) -> None:
    order = list(range(array.ndim))
    axes.shuffle(order)
    array = array.transpose(order)[::2] if array.ndim else array
    with SharedArray.from_array(array) as shared:
        other = pickle.loads(pickle.dumps(shared))
        assert other.view().tobytes() == array.tobytes()
        assert other.dtype == array.dtype


def test_order_is_kept_in_memory_and_in_handles(folder: Path) -> None:
    array = np.asfortranarray(np.arange(24).reshape(2, 3, 4))
    with SharedArray.from_array(array) as shared, SharedArray.create((3, 4), "f4", order="F") as zeros:
        assert shared.order == zeros.order == "F"
        assert shared.view().flags.f_contiguous
        assert pickle.loads(pickle.dumps(shared)).view().flags.f_contiguous
        assert zeros.view().flags.f_contiguous
        np.testing.assert_array_equal(shared, array)
    with SharedArray.from_array(np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2)) as shared:
        assert shared.order == "C"


def test_views_are_not_copies(folder: Path) -> None:
    with SharedArray.create((4, 5), "i4") as shared:
        other = pickle.loads(pickle.dumps(shared))
        shared.view()[1, 2] = 7
        assert other[1, 2] == 7
        other[3] = 9
        assert (shared[3] == 9).all()
        assert np.shares_memory(shared.view(), shared.view())
        assert np.shares_memory(np.asarray(shared), shared.view())
        assert np.asarray(shared, dtype="f8").dtype == np.float64
        assert len(shared) == 4
        assert not other.owned
        assert "process" in repr(shared)


def test_read_only_views_cannot_be_written_or_made_writeable(folder: Path) -> None:
    with SharedArray.create(3, "i4") as shared:
        for handle in (shared, pickle.loads(pickle.dumps(shared))):
            with handle.open(read_only=True) as array:
                with pytest.raises(ValueError, match="read-only"):
                    array[0] = 1
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.flags.writeable = True
                handle[0] += 5
                assert array[0] == shared[0]
        assert shared[0] == 10


def test_open_gives_up_what_it_mapped_and_nothing_else(folder: Path) -> None:
    with SharedArray.create(3, "i4") as shared:
        before = _descriptors()
        with shared.open() as array:
            array[0] = 1
        del array
        assert _descriptors() == before
        kept = shared.view()
        with shared.open():
            pass
        assert np.shares_memory(kept, shared.view())


def test_a_view_outlives_close_and_unlink(folder: Path) -> None:
    shared = SharedArray.from_array(np.arange(1000))
    array = shared.view()
    shared.close()
    assert shared[999] == 999
    other = pickle.loads(pickle.dumps(shared))
    attached = other.view()
    owned = [shared.owned]
    shared.unlink()
    shared.unlink()
    assert [*owned, shared.owned] == [True, False]
    attached[0] = 5
    assert array[0] == 5
    other.close()
    for handle in (shared, other):
        with pytest.raises(ArrayError, match=f"process {os.getpid()}"):
            handle.view()


def test_only_the_owner_unlinks(folder: Path) -> None:
    with SharedArray.create(3, "i4") as shared:
        with pickle.loads(pickle.dumps(shared)) as other, pytest.raises(ArrayError, match="only its owner"):
            other.unlink()
        assert shared[0] == 0


def test_an_owner_that_is_collected_gives_the_memory_back(folder: Path) -> None:
    shared = SharedArray.create(3, "i4")
    handle = pickle.dumps(shared)
    del shared
    gc.collect()
    with pytest.raises(ArrayError, match="must still run"):
        pickle.loads(handle).view()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # pytest's own threads, from 3.12
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_start_method(folder: Path, method: Any) -> None:
    context = multiprocessing.get_context(method)
    with SharedArray.from_array(np.arange(5)) as shared:
        shared.view()
        for _ in range(2):
            process = context.Process(target=_add_one, args=(shared,))
            process.start()
            process.join()
            assert process.exitcode == 0
        np.testing.assert_array_equal(shared, [2, 3, 4, 5, 6])


def test_a_forked_child_does_not_own(folder: Path) -> None:
    shared = SharedArray.from_array(np.arange(5))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            try:
                shared.unlink()
            except ArrayError:
                shared[0] = 7
                del shared
                gc.collect()
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert shared[0] == 7
    assert pickle.loads(pickle.dumps(shared))[0] == 7
    shared.unlink()


def test_an_unrelated_process(folder: Path) -> None:
    with SharedArray.from_array(np.arange(5)) as shared:
        done = _run("shared[1] = 42; print(shared[...].sum(), shared.owned)", shared)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"51 False\n", b"")
        assert shared[1] == 42


def test_a_killed_worker_takes_nothing_with_it(folder: Path) -> None:
    with SharedArray.from_array(np.arange(5)) as shared:
        done = _run("import os, signal; shared[1] = 42; os.kill(os.getpid(), signal.SIGKILL)", shared)
        assert done.returncode == -signal.SIGKILL
        assert shared[1] == 42
        assert pickle.loads(pickle.dumps(shared))[1] == 42


OWNER = """
import os, pickle, signal, sys, tempfile
tempfile.tempdir = sys.argv[1]
if sys.argv[2] == "locked file": del os.memfd_create
from blockflow.arrays.shared import SharedArray
shared = SharedArray.from_array(range(1000))
sys.stdout.buffer.write(pickle.dumps(shared)); sys.stdout.flush(); sys.stdout.buffer.close()
sys.stdin.read()
"""


def test_a_killed_owner_leaves_nothing(folder: Path, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["folder"]
    command = [sys.executable, "-c", OWNER, str(folder), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as owner:
        assert owner.stdout is not None
        shared = pickle.load(owner.stdout)
        array = shared.view()
        owner.kill()
    array[1] = 7
    assert array.sum() == 1000 * 999 // 2 + 6
    shared.close()
    if kind == "locked file":
        assert len(list(folder.iterdir())) == 1
        SharedArray.create(3, "u1").unlink()  # the next creation sweeps
    with pytest.raises(ArrayError, match=f"process {owner.pid} on"):
        shared.view()


def test_an_owner_that_ends_leaves_nothing(folder: Path, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["folder"]
    done = subprocess.run(
        [sys.executable, "-c", OWNER, str(folder), kind],
        input=b"",
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        check=True,
    )
    with pytest.raises(ArrayError, match="cannot attach"):
        pickle.loads(done.stdout).view()


@pytest.mark.parametrize(
    ("shape", "dtype", "order", "message"),
    [
        ((-1,), "u1", "C", "negative"),
        ((2.5,), "u1", "C", "shape of whole numbers"),
        ((2,), "nonsense", "C", "nonsense"),
        ((2,), object, "C", "Python objects"),
        ((2,), [("a", "O")], "C", "Python objects"),
        ((2,), "S", "C", "need a size"),
        ((2,), "u1", "K", "'C' or 'F', got 'K'"),
    ],
)
def test_what_cannot_be_shared_is_refused(shape: Any, dtype: Any, order: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        SharedArray.create(shape, dtype, order=order)


def test_a_mask_is_not_lost() -> None:
    with pytest.raises(PlanError, match="mask"):
        SharedArray.from_array(np.ma.masked_equal([1, 2], 2))


def test_a_subarray_dtype_becomes_axes(folder: Path) -> None:
    with SharedArray.create(2, ("i2", (3,))) as shared:
        assert (shared.shape, shared.dtype) == ((2, 3), np.dtype("i2"))


def test_no_room_is_an_error_and_leaves_nothing(folder: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        SharedArray.create(2**62, "u1")
