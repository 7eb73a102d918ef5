"""RT-DC files as dcnum and dclab see them.

Needs a Python with dcnum and dclab: the variable BLOCKFLOW_DCNUM_PYTHON names one, or
benchmarks/background.py has made one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from blockflow.recipes.background import Background, rolling_median_background, sparse_median_background

h5py = pytest.importorskip("h5py")

READER = Path(
    os.environ.get("BLOCKFLOW_DCNUM_PYTHON")
    or Path(__file__).parents[2] / ".benchmark-envs" / "dcnum-0.31" / "bin" / "python"
)

pytestmark = pytest.mark.skipif(not READER.exists(), reason=f"no Python with dcnum and dclab at {READER}")

PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import dclab, dcnum.read

for path in sys.argv[1:]:
    with dcnum.read.HDF5Data(path) as data:
        count = len(data)
        seen = {"dcnum_bg": [data.image_bg[i] for i in range(count)]}
        if "bg_off" in data:
            seen["dcnum_off"] = data["bg_off"][:]
        if data.image is not None:
            seen["dcnum_image"] = [data.image[i] for i in range(count)]
    with dclab.new_dataset(path) as data:
        seen["dclab_bg"] = [data["image_bg"][i] for i in range(len(data))]
        if "bg_off" in data:
            seen["dclab_off"] = data["bg_off"][:]
        if "image" in data:
            seen["dclab_image"] = [data["image"][i] for i in range(len(data))]
    np.savez(path + ".npz", **seen)
"""

ATTRIBUTES = {
    "experiment:date": "2024-01-02",
    "experiment:time": "10:11:12",
    "experiment:sample": "beads",
    "experiment:run index": 1,
    "setup:identifier": "device 7",
    "setup:channel width": 20.0,
    "setup:chip region": "channel",
    "setup:medium": "CellCarrierB",
    "imaging:frame rate": 2000.0,
    "imaging:pixel size": 0.34,
}


def measurement(path: Path, count: int = 200) -> Path:
    rng = np.random.default_rng(7)
    with h5py.File(path, "w") as file:
        file["events/image"] = rng.integers(90, 120, (count, 24, 40)).astype(np.uint8)
        file["events/time"] = np.sort(rng.random(count) * 3)
        file["events/deform"] = rng.random(count)
        file.attrs.update(ATTRIBUTES)
        file.attrs["experiment:event count"] = count
    return path


def check(backgrounds: dict[Path, Background], *, with_images: bool) -> None:
    """All files in one process of the readers, which take long to start."""
    subprocess.run([READER, "-c", PROGRAM, *backgrounds], check=True, timeout=120)
    for path, background in backgrounds.items():
        with np.load(f"{path}.npz") as seen:
            expected = background.images[background.index]
            for reader in ("dcnum", "dclab"):
                np.testing.assert_array_equal(seen[f"{reader}_bg"], expected)
                assert (f"{reader}_image" in seen) is with_images
                if background.offset is None:
                    assert f"{reader}_off" not in seen
                else:
                    np.testing.assert_array_equal(seen[f"{reader}_off"], background.offset)


def test_a_background_of_an_array(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(90, 120, (150, 24, 40)).astype(np.uint8)
    background = sparse_median_background(frames, 20, 0.01)
    background.write_hdf5(tmp_path / "b.rtdc")
    check({tmp_path / "b.rtdc": background}, with_images=False)


def test_backgrounds_beside_and_in_their_measurement_one_after_the_other(tmp_path: Path) -> None:
    path = measurement(tmp_path / "m.rtdc")
    beside = sparse_median_background(path, 20, 0.3)
    beside.write_hdf5(tmp_path / "b.rtdc")
    for split_time in (0.4, 0.2):
        sparse_median_background(path, 20, split_time).write_hdf5(path)
    background = sparse_median_background(path, 20, 0.5, offset_correction=False)
    background.write_hdf5(path)
    shutil.copyfile(path, tmp_path / "sparse.rtdc")
    rolling = rolling_median_background(path, 20)
    rolling.write_hdf5(path)
    check({tmp_path / "b.rtdc": beside, tmp_path / "sparse.rtdc": background, path: rolling}, with_images=True)


DCNUM = """
import sys, warnings
warnings.simplefilter("ignore")
from dcnum.feat.feat_background import BackgroundSparseMed

if __name__ == "__main__":
    for split_time in (0.3, 0.7):
        path = sys.argv[1]
        with BackgroundSparseMed(path, path, kernel_size=10, split_time=split_time, num_cpus=1) as run:
            run.process()
"""


def test_a_background_replaces_those_of_dcnum(tmp_path: Path) -> None:
    pytest.importorskip("hdf5plugin")
    path = measurement(tmp_path / "m.rtdc")
    script = tmp_path / "dcnum_run.py"
    script.write_text(DCNUM)
    subprocess.run([READER, script, path], check=True, timeout=120)
    background = sparse_median_background(path, 20, 0.4)
    background.write_hdf5(path)
    check({path: background}, with_images=True)
    with h5py.File(path) as file:
        assert [name for name in file["events"] if name.startswith("basinmap")] == ["basinmap0"]
        assert len(file["basins"]) == 1
