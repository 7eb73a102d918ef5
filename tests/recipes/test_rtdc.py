"""RT-DC files: what is in them, what stays, and what a crash leaves."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow.errors import ArrayError, MetadataError
from blockflow.recipes.rtdc import frames_per_chunk, write_rtdc

if TYPE_CHECKING:
    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")

COUNT = 40
IDENTIFIER = "sparsemed:k=200^s=1^t=0^f=0.8^o=1"


def images(number: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(number).integers(0, 256, (number, 24, 30)).astype(dtype)


def index(number: int, count: int = COUNT) -> NDArray[np.int64]:
    return np.arange(count) * number // count


def measurement(path: Path, count: int = COUNT) -> Path:
    with h5py.File(path, "w") as file:
        file["events/image"] = np.zeros((count, 24, 30), np.uint8)
        file["events/deform"] = np.linspace(0, 1, count)
        file["events/trace/fl1_raw"] = np.zeros((count, 9))
        file["logs/acquisition"] = np.array([b"one", b"two"])
        file["tables/pressure"] = np.arange(3.0)
        file.attrs.update(
            {
                "experiment:event count": count,
                "experiment:date": "2024-01-02",
                "experiment:time": "10:11:12",
                "setup:identifier": "device 7",
                "imaging:frame rate": 2000.0,
            }
        )
    return path


def basins(file: Any) -> list[dict[str, Any]]:
    texts = [b"\n".join(lines[()].tolist()) for lines in file["basins"].values()]
    for key, text in zip(file["basins"], texts, strict=True):
        assert key == hashlib.md5(text).hexdigest()
    return [json.loads(text) for text in texts]


def add_basin(file: Any, **basin: Any) -> None:
    lines = json.dumps(basin, indent=2).encode().split(b"\n")
    key = hashlib.md5(b"\n".join(lines)).hexdigest()
    file[f"basins/{key}"] = np.array(lines)


def background_of(file: Any) -> NDArray[Any]:
    """What a reader makes of the one internal basin."""
    (basin,) = [basin for basin in basins(file) if basin["name"] == "background images"]
    (group,) = basin["paths"]
    return np.asarray(file[group]["image_bg"][()][file["events"][basin["mapping"]][()]])


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_a_new_file(tmp_path: Path, dtype: type[np.generic], compress: bool) -> None:
    path = tmp_path / "background.rtdc"
    offset = np.linspace(-1, 1, COUNT)
    write_rtdc(path, images(3, dtype), index(3), offset, IDENTIFIER, compress=compress)
    with h5py.File(path) as file:
        assert set(file) == {"basin_events", "basins", "events"}
        assert set(file["events"]) == {"basinmap0", "bg_off"}
        stored = file["basin_events/image_bg"]
        np.testing.assert_array_equal(stored[()], images(3, dtype))
        assert stored.dtype == dtype
        assert (stored.compression == "gzip") is compress
        assert stored.fletcher32
        assert stored.attrs["CLASS"] == b"IMAGE"
        np.testing.assert_array_equal(background_of(file), images(3, dtype)[index(3)])
        np.testing.assert_array_equal(file["events/bg_off"][()], offset)
        for dataset in (stored, file["events/bg_off"]):
            assert dataset.attrs["dcnum ppid background"] == IDENTIFIER
            assert dataset.attrs["dcnum ppid generation"] == "13"
        assert file.attrs["experiment:event count"] == COUNT
        assert basins(file)[0]["description"] == f"Pipeline identifier: {IDENTIFIER}"


def test_the_measurement_itself_keeps_what_it_has(tmp_path: Path) -> None:
    path = measurement(tmp_path / "m.rtdc")
    path.chmod(0o600)
    write_rtdc(path, images(3), index(3), np.zeros(COUNT), IDENTIFIER, source=path)
    with h5py.File(path) as file:
        assert set(file["events"]) == {"image", "deform", "trace", "basinmap0", "bg_off"}
        assert set(file) == {"basin_events", "basins", "events", "logs", "tables"}
        assert file.attrs["setup:identifier"] == "device 7"
        np.testing.assert_array_equal(background_of(file), images(3)[index(3)])
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["m.rtdc"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    path = measurement(tmp_path / "m.rtdc")
    link = tmp_path / "link.rtdc"
    link.symlink_to(path)
    write_rtdc(link, images(3), index(3), None, IDENTIFIER, source=path.resolve())
    assert link.is_symlink()
    with h5py.File(path) as file:
        assert "basin_events/image_bg" in file


def test_writing_again_replaces_and_never_mixes(tmp_path: Path) -> None:
    path = measurement(tmp_path / "m.rtdc")
    for number in (3, 7, 5):
        offset = np.full(COUNT, float(number)) if number != 5 else None
        write_rtdc(path, images(number), index(number), offset, f"sparsemed:k={number}", source=path)
        with h5py.File(path) as file:
            np.testing.assert_array_equal(background_of(file), images(number)[index(number)])
            assert ("bg_off" in file["events"]) is (number != 5)
            assert [name for name in file["events"] if name.startswith("basinmap")] == ["basinmap0"]


def test_backgrounds_that_others_left_are_removed_and_their_other_basins_stay(tmp_path: Path) -> None:
    path = measurement(tmp_path / "m.rtdc")

    with h5py.File(path, "a") as file:
        file["events/image_bg"] = np.zeros((COUNT, 24, 30), np.uint8)
        file["events/bg_off"] = np.zeros(COUNT)
        file["basin_events/image_bg"] = images(9)
        file["basin_events/userdef1"] = np.arange(9)
        for number in range(4):
            file[f"events/basinmap{number}"] = index(9) + number
        for name, mapping, features in (
            ("stale", "basinmap0", ["image_bg"]),
            ("lost", "basinmap9", ["image_bg"]),
            ("mixed", "basinmap1", ["image_bg", "userdef1"]),
            ("twice", "basinmap3", ["userdef1"]),
            ("twice", "basinmap3", ["bg_off", "userdef1"]),
        ):
            add_basin(file, name=name, type="internal", mapping=mapping, paths=["basin_events"], features=features)
        add_basin(file, name="elsewhere", type="file", mapping="basinmap2", paths=["/x"], features=["image_bg"])
    write_rtdc(path, images(3), index(3), None, IDENTIFIER)
    with h5py.File(path) as file:
        found = {basin["name"]: basin for basin in basins(file)}
        assert set(found) == {"mixed", "twice", "elsewhere", "background images"}
        assert len(file["basins"]) == 4
        assert len(file["basins"]) == 4
        assert found["mixed"]["features"] == ["userdef1"]
        assert found["background images"]["mapping"] == "basinmap0"
        assert set(file["events"]) - set(found) >= {"basinmap0", "basinmap1", "basinmap2", "basinmap3"}
        assert "image_bg" not in file["events"]
        assert "bg_off" not in file["events"]
        assert file["basin_events/userdef1"].shape == (9,)
        np.testing.assert_array_equal(file["basin_events/image_bg"][()], images(3))


def test_a_new_file_refers_to_its_measurement(tmp_path: Path) -> None:
    source = measurement(tmp_path / "m.rtdc").resolve()
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "b.rtdc"
    for number in (3, 4):
        write_rtdc(path, images(number), index(number), None, IDENTIFIER, source=source)
        with h5py.File(path) as file:
            (basin,) = [basin for basin in basins(file) if basin["type"] == "file"]
            assert basin["paths"] == [str(source), os.path.join("..", "m.rtdc")]
            assert basin["features"] == ["deform", "image", "trace"]
            np.testing.assert_array_equal(background_of(file), images(number)[index(number)])
            assert file.attrs["imaging:frame rate"] == 2000
            assert file["logs/acquisition"][()].tolist() == [b"one", b"two"]
            assert file["tables/pressure"].shape == (3,)
        with h5py.File(path, "a") as file:
            file.require_dataset("basin_events/userdef1", (3,), int)
            add_basin(file, name=f"user's {number}", type="internal", features=["userdef1"], paths=["basin_events"])
    with h5py.File(path) as file:
        assert "user's 3" in [basin["name"] for basin in basins(file)]


def test_the_identifier_of_a_measurement(tmp_path: Path) -> None:
    source = measurement(tmp_path / "m.rtdc").resolve()
    for attributes, expected in (
        ({}, "07554b94-2f59-b7ef-b82b-0b5a7a887157"),  # MD5 of "10:11:12_2024-01-02_device 7"
        ({"experiment:run identifier": "run 5"}, "run 5"),
        ({"experiment:run identifier": np.bytes_("run 5")}, None),
        ({"experiment:run identifier": "", "experiment:time": ""}, None),
    ):
        with h5py.File(source, "a") as file:
            file.attrs.update(attributes)
        path = tmp_path / "b.rtdc"
        write_rtdc(path, images(3), index(3), None, IDENTIFIER, source=source)
        with h5py.File(path) as file:
            (basin,) = [basin for basin in basins(file) if basin["type"] == "file"]
        assert basin["identifier"] == expected


def test_events_of_something_else_are_not_mixed_in(tmp_path: Path) -> None:
    source = measurement(tmp_path / "m.rtdc").resolve()
    other = measurement(tmp_path / "other.rtdc", COUNT).resolve()
    long = measurement(tmp_path / "long.rtdc", COUNT + 1)
    write_rtdc(tmp_path / "b.rtdc", images(3), index(3), None, IDENTIFIER, source=source)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(MetadataError, match=r"long.rtdc must hold the events .* it has 41 \(deform\), .* 40 frames"):
        write_rtdc(long, images(3), index(3), None, IDENTIFIER)
    with pytest.raises(MetadataError, match=r"b.rtdc refers to the measurement .*m.rtdc, .* from .*other.rtdc"):
        write_rtdc(tmp_path / "b.rtdc", images(3), index(3), None, IDENTIFIER, source=other)
    with pytest.raises(MetadataError, match=r"it has 40 \(experiment:event count\), the background has 39 frames"):
        write_rtdc(tmp_path / "b.rtdc", images(3), index(3, 39), None, IDENTIFIER)
    assert before == {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}


def test_a_file_with_a_background_only_can_get_that_of_other_frames(tmp_path: Path) -> None:
    path = tmp_path / "b.rtdc"
    for count in (40, 30):
        write_rtdc(path, images(3), index(3, count), np.zeros(count), IDENTIFIER)
        with h5py.File(path) as file:
            assert file.attrs["experiment:event count"] == count
            assert background_of(file).shape == (count, 24, 30)


def test_no_free_mapping(tmp_path: Path) -> None:
    path = measurement(tmp_path / "m.rtdc")
    with h5py.File(path, "a") as file:
        for number in range(10):
            file[f"events/basinmap{number}"] = np.zeros(COUNT)
    with pytest.raises(ArrayError, match="all 10 mappings in use"):
        write_rtdc(path, images(3), index(3), None, IDENTIFIER)


def test_what_is_no_hdf5_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes.rtdc"
    path.write_text("precious")
    with pytest.raises(ArrayError, match=r"/notes\.rtdc cannot be opened as an HDF5 file"):
        write_rtdc(path, images(3), index(3), None, IDENTIFIER)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["notes.rtdc"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = measurement(tmp_path / "m.rtdc")
    write_rtdc(path, images(3), index(3), None, IDENTIFIER, source=path)
    old = path.read_bytes()
    program = f"""
import os, signal
import numpy as np
from blockflow.recipes.rtdc import write_rtdc

class Deadly:
    shape, dtype = (2000, 24, 30), np.dtype(np.uint8)
    def __getitem__(self, key):
        if key.start:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.ones((key.stop, 24, 30), np.uint8)

write_rtdc({str(path)!r}, Deadly(), np.zeros({COUNT}, int), None, "sparsemed:k=1")
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == old
    write_rtdc(path, images(5), index(5), None, IDENTIFIER, source=path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(background_of(file), images(5)[index(5)])


def test_chunks_hold_about_a_mebibyte() -> None:
    assert frames_per_chunk((5, 7), np.dtype(np.uint8)) == 1000
    assert frames_per_chunk((80, 320), np.dtype(np.uint16)) == 20
    assert frames_per_chunk((2048, 1024), np.dtype(np.uint8)) == 1
