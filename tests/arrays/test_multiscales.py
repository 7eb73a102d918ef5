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
                    {"path": "full", "coordinateTransformations": list(transformations)},
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
        assert axes.units == ("nanometer",) * 2
    else:
        axes = read(described, 2)
        assert axes.units == ("picometer",) * 2
        assert axes.offset == tuple(low * 1000 for low, _ in nanometers)
        assert axes.voxel_size == tuple(size * 1000 for _, size in nanometers)


def test_noise_of_floats_is_no_fraction() -> None:
    assert read(image(space("micrometer"), scale(0.1 + 0.2, 1.1 * 3, 0.7 * 3))).voxel_size == (
        300,
        3300,
        2100,
    )


def levels(*transformations: Any, unit: str | None = None) -> list[Axes]:
    datasets = [{"path": str(k), "coordinateTransformations": steps} for k, steps in enumerate(transformations)]
    described = {"multiscales": [{"axes": space(unit, "x"), "datasets": datasets}]}
    found = [with_multiscales(Axes(), described, str(k), 1, "x.zarr") for k in range(len(transformations))]
    return [axes for axes in found if axes is not None]


def said(axes: list[Axes]) -> list[Any]:
    return [(each.offset, each.voxel_size, each.units) for each in axes]


def test_translations_are_of_centres() -> None:
    """The first voxel of level k has its centre half of what it is larger behind that of level 0."""
    placed = levels(*([scale(2.0**k), translation(7 + (2**k - 1) / 2)] for k in range(5)))
    assert said(placed) == [((7,), (2**k,), None) for k in range(5)]
    placed = levels([scale(0.325)], [scale(0.65), translation(0.1625)], unit="micrometer")
    assert said(placed) == [((0,), (325,), ("nanometer",)), ((0,), (650,), ("nanometer",))]


def test_levels_without_any_translation_begin_at_the_same_place() -> None:
    assert said(levels([scale(1)], [scale(2)])) == [((0,), (1,), None), ((0,), (2,), None)]


def test_fractions_get_a_finer_unit_on_all_levels() -> None:
    nearest = levels([scale(1), translation(0)], [scale(2), translation(0)])
    assert said(nearest) == [((0,), (10,), ("0.1",)), ((-5,), (20,), ("0.1",))]
    assert said(levels([scale(0.25)], [scale(1)], unit="pixel")) == [
        ((0,), (25,), ("0.01 pixel",)),
        ((0,), (100,), ("0.01 pixel",)),
    ]
    assert said(levels([scale(0.5)], [scale(1)], unit="nm"))[1] == ((0,), (1000,), ("picometer",))
    ((_, (third,), units),) = said(levels([scale(0.325 / 3)], unit="micrometer"))
    assert (third, units) == (pytest.approx(325e12 / 3, rel=1e-12), ("zeptometer",))


def test_fractions_beside_a_known_voxel_size_are_refused() -> None:
    known = Axes(voxel_size=coordinate_of((4,) * 3, "voxel_size"))
    with pytest.raises(MetadataError) as info:
        read(image(space("micrometer"), scale(1, 1, 1), translation(0, 0, 0.0005)), known=known)
    assert str(info.value) == (
        "x.zarr: multiscales of 's1/data' must have a translation of whole world units "
        "(nanometers if there is a unit): axis 'x' has 0.5; pass offset="
    )


@pytest.mark.parametrize("output", ["physical", {"name": "physical"}])
def test_version_0_6(output: Any) -> None:
    """Axes are those of the system that levels are put into; what leads to other systems is not applied."""
    steps = {"type": "sequence", "output": output, "transformations": [scale(1, 4, 4), translation(0, 9.5, 8)]}
    datasets = [
        {"path": "0", "coordinateTransformations": [scale(1, 1, 2) | {"output": output}]},
        {"path": "1", "coordinateTransformations": [steps]},
    ]
    axes = [{"name": "c", "type": "channel"}, *space("nanometer", "yx")]
    systems = [{"name": "world", "axes": space("meter")}, {"name": "physical", "axes": axes}]
    whole = [{"type": "affine", "input": "physical", "output": "world", "affine": []}]
    found = {"coordinateSystems": systems, "datasets": datasets, "coordinateTransformations": whole}
    level = with_multiscales(Axes(), {"ome": {"version": "0.6", "multiscales": [found]}}, "1", 3, "x.zarr")
    assert level is not None
    assert (level.offset, level.voxel_size, level.axis_names) == ((8, 7), (4, 4), ("c", "y", "x"))


def test_what_is_known_is_not_looked_at() -> None:
    known = Axes(voxel_size=coordinate_of((400,) * 3, "voxel_size"), axis_names=("a", "b", "c"), units=("nm",) * 3)
    axes = read(image(space(), scale(0.4, 0.4, 0.4), translation(1, 2, 3)), known=known)
    assert (axes.voxel_size, axes.offset) == ((400,) * 3, (1, 2, 3))
    assert (axes.axis_names, axes.units) == (("a", "b", "c"), ("nm",) * 3)


@pytest.mark.parametrize("attributes", [{}, {"ome": {}}, {"multiscales": []}, image(space(), scale(1, 1, 1))])
def test_groups_that_do_not_speak_of_the_array(attributes: dict[str, Any]) -> None:
    assert with_multiscales(Axes(), attributes, "s9", 3, "x.zarr") is None


WHERE = "x.zarr: multiscales of 's1/data'"
BROKEN = "x.zarr: multiscales must be as in OME-Zarr 0.4 to 0.6"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
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
