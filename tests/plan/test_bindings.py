"""Identities of arrays as plain data: what is unknown is left out, and what is not known is refused."""

import msgspec
import pytest

from blockflow.plan.bindings import ArrayIdentity, TaskArrays


def test_what_is_unknown_is_left_out_and_comes_back() -> None:
    arrays = TaskArrays(task_id="t", outputs=(ArrayIdentity(kind="zarr", place="/a.zarr", shape=(4,), dtype="<u1"),))
    said = msgspec.to_builtins(arrays)
    assert said == {
        "task_id": "t",
        "outputs": ({"kind": "zarr", "place": "/a.zarr", "shape": (4,), "dtype": "<u1"},),
    }
    assert msgspec.convert(said, TaskArrays) == arrays


def test_a_field_of_a_later_version_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.convert({"kind": "zarr", "shape": (4,), "dtype": "<u1", "colour": "red"}, ArrayIdentity)
