from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.arrays.tiffs import list_tiffs, missing_number, read_voxel_size
from blockflow.errors import ArrayNotFoundError, MetadataError, PlanError

ORACLE = Path(__file__).parents[2].parent / "shared" / "oracles" / "scout" / "files.json"
needs_oracle = pytest.mark.skipif(not ORACLE.is_file(), reason="recorded results of other libraries are not here")


def make(folder: Path, *names: str) -> None:
    for name in names:
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).touch()


def test_files_with_a_tiff_ending_in_any_case(tmp_path: Path) -> None:
    make(tmp_path, "b.tif", "a.tiff", "c.TIF", "d.Tiff", "e.png", "f.ome.tif", "g.tif.bak", "tif", ".h.tif", "._b.tif")
    make(tmp_path, "folder.tif/")
    (tmp_path / "to_folder.tif").symlink_to(tmp_path / "folder.tif")
    (tmp_path / "to_file.tif").symlink_to(tmp_path / "b.tif")
    (tmp_path / "to_nothing.tif").symlink_to(tmp_path / "nothing")
    names = ["a.tiff", "b.tif", "c.TIF", "d.Tiff", "f.ome.tif", "to_file.tif", "to_nothing.tif"]
    assert list_tiffs(tmp_path) == [tmp_path / name for name in names]
    assert list_tiffs(str(tmp_path), natural=True) == list_tiffs(tmp_path)


def test_a_relative_folder_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.tif")
    monkeypatch.chdir(tmp_path)
    assert list_tiffs(".") == [tmp_path / "a.tif"]


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert list_tiffs(tmp_path) == []


@pytest.mark.parametrize(("name", "what"), [("missing", "not there"), ("a.tif", "a file")])
def test_what_is_no_folder_is_refused(name: str, what: str, tmp_path: Path) -> None:
    make(tmp_path, "a.tif")
    with pytest.raises(ArrayNotFoundError, match=f"{name} is {what}"):
        list_tiffs(tmp_path / name)


@given(planes=st.sets(st.tuples(st.integers(0, 20), st.integers(0, 2000)), min_size=1), zeros=st.booleans())
def test_natural_order_is_that_of_the_numbers(
    planes: set[tuple[int, int]], zeros: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("planes")
    width = 4 if zeros else 1
    names = [f"t{t:0{width}}_z{z:0{width}}.tif" for t, z in sorted(planes)]
    make(folder, *names)
    assert [tiff.name for tiff in list_tiffs(folder, natural=True)] == names
    assert [tiff.name for tiff in list_tiffs(folder)] == sorted(names)


def test_natural_order_of_names_that_mean_the_same_number_is_fixed(tmp_path: Path) -> None:
    make(tmp_path, "1.tif", "01.tif", "a.tif", "1a.tif")
    assert [tiff.name for tiff in list_tiffs(tmp_path, natural=True)] == ["01.tif", "1.tif", "1a.tif", "a.tif"]


@given(
    start=st.integers(0, 2000),
    step=st.integers(1, 50),
    count=st.integers(3, 30),
    width=st.integers(1, 5),
    channels=st.integers(1, 3),
    data=st.data(),
)
def test_a_missing_plane_of_an_even_numbering_is_found(
    start: int, step: int, count: int, width: int, channels: int, data: st.DataObject
) -> None:
    names = [f"c{c}_z{start + step * z:0{width}}.TIF" for c in range(channels) for z in range(count)]
    assert missing_number(names) is None
    gone = names[data.draw(st.integers(1, count - 2))] if count > 3 else None
    if gone is not None:
        missing = missing_number([name for name in names if name != gone])
        assert missing is not None
        assert channels > 1 or f"there is no {gone} between" in missing


@pytest.mark.parametrize(
    "names",
    [
        ["z0.tif", "z2.tif"],  # two names say nothing of steps
        ["z0.0.tif", "z2.5.tif", "z5.0.tif"],
        ["z1_405nm.tif", "z1_488nm.tif", "z2_405nm.tif", "z2_488nm.tif"],
        ["405nm.tif", "cell.tif", "nuclei.tif", "9.tif"],
        ["0_120501.tif", "1_120733.tif", "2_120901.tif"],  # a counter and the time of day
        ["a1.tif", "a2.tif", "a3.tif", "b5.tif", "b6.tif", "b7.tif"],
    ],
)
def test_names_without_a_gap(names: list[str]) -> None:
    assert missing_number(names) is None


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["z9.tif", "z8.tif", "z11.tif"], "there is no z10.tif between z9.tif and z11.tif"),
        (["z1.tif", "z01.tif", "z2.tif"], "two of the names .* have the same numbers"),
        (["t0c0.tif", "t0c1.tif", "t1c1.tif"], "no file with the numbers 1, 0 like t0c0.tif"),
        ([f"t{t}c{c}.tif" for t in (0, 1, 3) for c in (0, 1)], "no files with the number 2 between those with 1 and 3"),
    ],
)
def test_names_with_a_gap(names: list[str], missing: str) -> None:
    found = missing_number(names)
    assert found is not None
    assert re.search(missing, found), found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("4000,650,650", (4.0, 0.65, 0.65)),
        ("4000,650,650\r\n1,2,3\r\n", (4.0, 0.65, 0.65)),
        ("\ufeff 4000.5 ,\t6.5e2", (4.0005, 0.65)),
        ("650", (0.65,)),
    ],
)
def test_the_first_line_is_the_voxel_size(content: str, expected: tuple[float, ...], tmp_path: Path) -> None:
    file = tmp_path / "voxel_size.csv"
    file.write_bytes(content.encode())
    assert read_voxel_size(file) == expected
    assert read_voxel_size(str(file), unit="mm", to="mm") == pytest.approx(
        [1000 * size for size in expected], rel=1e-15
    )


@given(size=st.integers(1, 10**9))
def test_whole_nanometres_become_the_nearest_micrometres(size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("size") / "voxel_size.csv"
    file.write_text(str(size))
    assert read_voxel_size(file) == (size / 1000,)
    assert read_voxel_size(file, unit="um", to="nm") == (size * 1000,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "axis 0 of .* has ''"),
        ("\n4000,650,650", "axis 0 of .* has ''"),
        ("4000,650,", "axis 2 of .* has ''"),
        ("4000;650;650", "axis 0 of .* has '4000;650;650'"),
        ("4000,-650", "axis 1 of .* has '-650'"),
        ("0,650", "axis 0 of .* has '0'"),
        ("4000,z", "axis 1 of .* has 'z'"),
        ("nan", "has 'nan'"),
        ("inf", "has 'inf'"),
        ("1e400", "has '1e400'"),
        ("1e-400", "has '1e-400'"),
        ("1e999999999999999999", "has '1e999999999999999999'"),
    ],
)
def test_what_is_no_voxel_size_is_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "voxel_size.csv"
    file.write_text(content)
    with pytest.raises(MetadataError, match=message):
        read_voxel_size(file)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "voxel_size.csv"
    file.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(MetadataError, match=r"must be text: .*voxel_size.csv is not"):
        read_voxel_size(file)


def test_a_missing_file_and_an_unknown_unit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArrayNotFoundError, match=r"voxel_size\.csv is not there"):
        read_voxel_size(tmp_path / "voxel_size.csv")
    unit: Any = "inch"
    with pytest.raises(PlanError, match="unit must be one of nm, um, mm, got 'inch'"):
        read_voxel_size(tmp_path / "voxel_size.csv", unit=unit)


@needs_oracle
def test_scouts_files(tmp_path: Path) -> None:
    """The same files in the same order, but for hidden ones and folders; and those with an ending in capitals."""
    case = json.loads(ORACLE.read_text())
    make(tmp_path, *case["names"])
    upstream = [name for name in case["tif_filenames"] if name not in (".hidden.tif", "sub.tif")]
    assert [tiff.name for tiff in list_tiffs(tmp_path)] == sorted([*upstream, "c.TIF", "d.Tiff"])


@needs_oracle
def test_scouts_voxel_sizes(tmp_path: Path) -> None:
    """Equal where upstream reads positive numbers; what it cannot read but is meant clearly is read here."""
    file = tmp_path / "voxel_size.csv"
    for case in json.loads(ORACLE.read_text())["voxel"]:
        file.write_bytes(case["content"].encode())
        if case["content"] in ("4000.5,650,650", "\ufeff1,2,3"):
            assert len(read_voxel_size(file)) == 3
        elif all(size > 0 for size in case.get("result", [0])):
            assert list(read_voxel_size(file)) == case["result"]
        else:
            with pytest.raises(MetadataError, match="positive numbers"):
                read_voxel_size(file)
