"""Which exceptions of user code are storage errors that pass?"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from blockflow.wire.failures import describe
from blockflow.wire.storage_errors import MOST_LINKS, FailureKind, storage_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def full(*, file: str | None = None) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([] if file is None else [file]))


def raised(function: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, FailureKind.FULL),
        (errno.EDQUOT, FailureKind.FULL),
        (errno.EIO, FailureKind.STORAGE),
        (errno.ENOENT, FailureKind.CODE),
        (errno.EACCES, FailureKind.CODE),
        (errno.EROFS, FailureKind.CODE),
        (errno.EFBIG, FailureKind.CODE),
    ],
)
def test_number(number: int, kind: FailureKind) -> None:
    error = OSError(number, os.strerror(number), "/data/a")
    assert storage_error(error) == (kind, "" if kind is FailureKind.CODE else "/data/a")


@pytest.mark.parametrize(
    "text",
    [
        "write failed: errno = 28, error message = 'No space left on device'",
        "generic error: Unable to write: No space left on device (os error 28)",
        'RESOURCE_EXHAUSTED: Error writing "a": [OS error 28: ENOSPC]',
        "[Errno 28] what a library has kept of it",
        "tar: cannot write: No space left on device",
        "Disk quota exceeded",
    ],
)
def test_text_of_libraries(text: str) -> None:
    assert storage_error(RuntimeError(text)) == (FailureKind.FULL, "")


@pytest.mark.parametrize("text", ["28 tiles are missing", "errno = 2", "no space between the tiles", "os error 281"])
def test_other_text(text: str) -> None:
    assert storage_error(ValueError(text)) == (FailureKind.CODE, "")


def test_number_of_an_error_counts_more_than_its_text() -> None:
    error = OSError(errno.ENOENT, "not there; before: No space left on device")
    assert storage_error(error)[0] is FailureKind.CODE


def test_short_write_of_numpy() -> None:
    assert storage_error(OSError("1000 requested and 512 written"))[0] is FailureKind.STORAGE
    assert storage_error(ValueError("1000 requested and 512 written"))[0] is FailureKind.CODE


def test_wrapped_with_a_cause() -> None:
    def fails() -> None:
        try:
            raise full(file="/data/chunk")
        except OSError as error:
            raise RuntimeError("cannot encode the chunk") from error

    assert storage_error(raised(fails)) == (FailureKind.FULL, "/data/chunk")


def test_wrapped_without_a_cause() -> None:
    def fails() -> None:
        try:
            raise full(file="/data/chunk")
        except OSError:
            raise RuntimeError("cannot encode the chunk") from None

    assert storage_error(raised(fails)) == (FailureKind.FULL, "/data/chunk")


def test_in_a_group() -> None:
    group = ExceptionGroup("of tasks", [ValueError("other"), ExceptionGroup("more", [full(file="/data/a")])])
    assert storage_error(group) == (FailureKind.FULL, "/data/a")


def test_chain_that_runs_in_a_circle() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert storage_error(one) == (FailureKind.CODE, "")


def test_endless_chain() -> None:
    last = error = ValueError("the first")
    for number in range(2 * MOST_LINKS):
        last.__cause__ = ValueError(str(number))
        last = last.__cause__
    assert storage_error(error) == (FailureKind.CODE, "")


def test_file_of_a_write_that_names_none(tmp_path: Path) -> None:
    def fails() -> None:
        with open(tmp_path / "chunk", "wb") as _file:
            raise full()

    assert storage_error(raised(fails)) == (FailureKind.FULL, str(tmp_path / "chunk"))


def test_path_in_a_frame(tmp_path: Path) -> None:
    def fails(_place: Path) -> None:
        raise full()

    assert storage_error(raised(lambda: fails(tmp_path / "chunk"))) == (FailureKind.FULL, str(tmp_path / "chunk"))


class Evil(os.PathLike[str]):
    def __fspath__(self) -> str:
        raise ValueError("no path")


class Shy(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def test_evil_objects() -> None:
    def fails() -> None:
        _value, _number = Evil(), open(0, closefd=False)  # noqa: SIM115  # its name is a number
        raise full()

    kind, _ = storage_error(raised(fails))
    assert kind is FailureKind.FULL
    assert storage_error(Shy()) == (FailureKind.CODE, "")


def test_name_in_bytes() -> None:
    assert storage_error(OSError(errno.EIO, "no", b"/data/\xff"))[1] == os.fsdecode(b"/data/\xff")


def test_failure_says_it() -> None:
    text = describe(full(file="/data/a"))
    assert (text.kind, text.disk) == (FailureKind.FULL, "/data/a")


def test_zarr_on_a_full_disk() -> None:
    """/dev/full is one, and any library may write to it."""
    np = pytest.importorskip("numpy")
    with open("/dev/full", "wb") as file:
        error = raised(lambda: np.arange(10_000_000).tofile(file))
    kind, name = storage_error(error)
    assert kind is not FailureKind.CODE
    assert name in ("/dev/full", "")
