"""Is OME-Zarr metadata read as its specification says, in whole nanometers?"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.arrays.axes import Axes
from blockflow.arrays.multiscales import with_multiscales
from blockflow.errors import MetadataError
from blockflow.geometry import coordinate_of


def space(unit: str | None = None, names: str = "zyx") -> list[dict[str, Any]]:
    return [{"name": n, "type": "space"} | ({"unit": unit} if unit else {}) for n in names]


def scale(*numbers: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(numbers)}


def translation(*numbers: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(numbers)}


def image(axes: Any, *transformations: Any, whole: Any = ()) -> dict[str, Any]:
    return {
        "multiscales": [
            {
                "axes": axes,
                "datasets": [
                    {"path": "full", "coordinateTransformations": []},
                    {"path": "s1/data", "coordinateTransformations": list(transformations)},
                ],
                "coordinateTransformations": list(whole),
            }
        ]
    }


def read(attributes: dict[str, Any], ndim: int = 3, known: Axes | None = None) -> Axes:
    axes = with_multiscales(known or Axes(), attributes, "s1/data", ndim, "x.zarr")
    assert axes is not None
    return axes


def test_version_0_4() -> None:
    """As in the specification's example: t, c, z, y, x; the time step does not matter."""
    axes = [{"name": "t", "type": "time", "unit": "millisecond"}, {"name": "c", "type": "channel"}]
    described = image(axes + space("micrometer"), scale(1, 1, 0.5, 0.325, 0.325), whole=[scale(0.1, 1, 1, 1, 1)])
    assert read(described, 5) == Axes(
        offset=coordinate_of((0, 0, 0), "offset"),
        voxel_size=coordinate_of((500, 325, 325), "voxel_size"),
        axis_names=("t", "c", "z", "y", "x"),
        units=("nanometer",) * 3,
    )


def test_version_0_5_is_below_the_key_ome() -> None:
    described = image(space("nanometer"), scale(4, 4, 40), translation(8, 0, -40))
    assert read({"ome": {"version": "0.5", **described}}) == read(described)
    assert read(described).offset == (8, 0, -40)


def test_units_of_axes_may_differ_and_all_become_nanometers() -> None:
    axes = [*space("micrometer", "z"), *space("nanometer", "y"), *space("angstrom", "x")]
    assert read(image(axes, scale(0.04, 4, 40))).voxel_size == (40, 4, 4)


def test_without_units_numbers_are_taken_as_they_are() -> None:
    axes = read(image(space(), scale(4, 4, 40)))
    assert (axes.voxel_size, axes.units) == ((4, 4, 40), None)


def test_a_unit_that_is_no_length_is_kept_as_it_is() -> None:
    axes = read(image(space("pixel"), scale(2, 2, 2)))
    assert (axes.voxel_size, axes.units) == ((2, 2, 2), ("pixel",) * 3)


def test_axes_without_type_are_known_by_name() -> None:
    axes = read(image([{"name": "c"}, {"name": "y"}, {"name": "x"}], scale(1, 2, 3)))
    assert axes.voxel_size == (2, 3)


@given(
    st.lists(
        st.tuples(st.sampled_from(["scale", "translation", "identity"]), st.integers(1, 40), st.integers(1, 40)),
        max_size=4,
    ),
    st.lists(st.tuples(st.just("scale"), st.integers(1, 9), st.integers(1, 9)), max_size=2),
)
def test_transformations_are_applied_one_after_the_other(dataset: Any, whole: Any) -> None:
    """The oracle moves the corners of voxel 0, in exact fractions of micrometers."""

    def written(steps: Any) -> list[dict[str, Any]]:
        return [{"type": kind} | ({kind: [y / 10, x / 10]} if kind != "identity" else {}) for kind, y, x in steps]

    corners = [(Fraction(0), Fraction(1))] * 2
    for kind, *numbers in (*dataset, *whole):
        for axis, n in enumerate(Fraction(number, 10) for number in numbers):
            low, high = corners[axis]
            if kind == "scale":
                corners[axis] = (low * n, high * n)
            elif kind == "translation":
                corners[axis] = (low + n, high + n)
    described = image(space("micrometer", "yx"), *written(dataset), whole=written(whole))
    nanometers = [(low * 1000, (high - low) * 1000) for low, high in corners]
    if all(number.denominator == 1 for pair in nanometers for number in pair):
        axes = read(described, 2)
        assert axes.offset == tuple(int(low) for low, _ in nanometers)
        assert axes.voxel_size == tuple(int(size) for _, size in nanometers)
    else:
        with pytest.raises(MetadataError, match="whole world units"):
            read(described, 2)


def test_noise_of_floats_is_no_fraction() -> None:
    assert read(image(space("micrometer"), scale(0.1 + 0.2, 1.1 * 3, 0.7 * 3))).voxel_size == (
        300,
        3300,
        2100,
    )


def test_what_is_known_is_not_looked_at() -> None:
    known = Axes(voxel_size=coordinate_of((400,) * 3, "voxel_size"), axis_names=("a", "b", "c"), units=("nm",) * 3)
    axes = read(image(space(), scale(0.4, 0.4, 0.4), translation(1, 2, 3)), known=known)
    assert (axes.voxel_size, axes.offset) == ((400,) * 3, (1, 2, 3))
    assert (axes.axis_names, axes.units) == (("a", "b", "c"), ("nm",) * 3)


@pytest.mark.parametrize("attributes", [{}, {"ome": {}}, {"multiscales": []}, image(space(), scale(1, 1, 1))])
def test_groups_that_do_not_speak_of_the_array(attributes: dict[str, Any]) -> None:
    assert with_multiscales(Axes(), attributes, "s9", 3, "x.zarr") is None


WHERE = "x.zarr: multiscales of 's1/data'"
BROKEN = "x.zarr: multiscales must be as in OME-Zarr 0.4 or 0.5"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            image(space(), scale(1, 0.4, 1)),
            f"{WHERE} must have a scale of whole world units (nanometers if there is a unit): "
            "axis 'y' has 0.4; pass voxel_size=",
        ),
        (
            image(space("micrometer"), scale(1, 1, 1), translation(0, 0, 0.0005)),
            f"{WHERE} must have a translation of whole world units (nanometers if there is a unit): "
            "axis 'x' has 0.5; pass offset=",
        ),
        (image(space(names="yx"), scale(1, 1)), f"{WHERE} must name 3 axes, as many as the array has, got 2"),
        (
            image([*space(names="yx"), {"name": "c", "type": "channel"}], scale(1, 1, 1)),
            f"{WHERE} must have its spatial axes last, got axes of type ['space', 'space', 'channel']",
        ),
        (
            image([{"name": "c", "type": "channel"}] * 3, scale(1, 1, 1)),
            f"{WHERE} must have its spatial axes last, got axes of type ['channel', 'channel', 'channel']",
        ),
        (
            image([*space(names="zy"), *space("nm", "x")], scale(1, 1, 1)),
            f"{WHERE} must have lengths as units, or one unit on all spatial axes, "
            "got [None, None, 'nm']; pass voxel_size= and offset=",
        ),
        (
            image(space(), {"type": "affine", "affine": []}),
            f"{WHERE} must have transformations of type scale or translation, got 'affine'; "
            "pass voxel_size= and offset=",
        ),
        (image(space()) | {"multiscales": 3}, f"{BROKEN} (TypeError: 'int' object is not iterable); "),
        ({"ome": 3}, f"{BROKEN} (AttributeError: 'int' object has no attribute 'get'); "),
        ({"multiscales": [{"axes": []}]}, f"{BROKEN} (KeyError: 'datasets'); "),
        (
            image(["z", "y", "x"], scale(1, 1, 1)),
            f"{BROKEN} (AttributeError: 'str' object has no attribute 'get'); ",
        ),
        (
            image(space(), scale(1, 1)),
            f"{BROKEN} (ValueError: zip() argument 2 is shorter than argument 1); ",
        ),
        (
            image(space(), scale(1, 1, float("nan"))),
            f"{BROKEN} (ValueError: cannot convert float NaN to integer); ",
        ),
        (
            image(space(), translation(1, 1, float("inf"))),
            f"{BROKEN} (OverflowError: cannot convert float infinity to integer); ",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(MetadataError) as info:
        read(attributes)
    if message.startswith(BROKEN):
        message += "pass voxel_size= and offset="
    assert str(info.value) == message
