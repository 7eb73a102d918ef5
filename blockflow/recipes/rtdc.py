"""RT-DC files: how do background images get into the HDF5 file that dcnum and dclab read?

1. The file is written anew next to its place: a copy of what is there without any background, or, where
   nothing is, a file that refers to the measurement the frames are from.
2. Images are stored once, as ``basin_events/image_bg``; ``events/basinmapN`` holds the number of the image of
   each event; an entry of ``basins`` (a JSON text) says that the two together are the feature ``image_bg``
   (an "internal mapped basin"). Brightness offsets are ``events/bg_off``.
3. The new file takes the place of the old one (:mod:`blockflow.recipes.replacing`).

Sources: dclab's documentation of the file format and basins, and files written by dcnum 0.31.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from blockflow.arrays.hdf5 import open_hdf5, read_hdf5
from blockflow.errors import ArrayError, MetadataError
from blockflow.paths import local_path
from blockflow.recipes.replacing import replacing_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["frames_per_chunk", "write_rtdc"]

BACKGROUND = ("image_bg", "bg_off")
"""Features that are the background."""

GENERATION = "13"
"""Generation of dcnum's pipeline identifiers whose results these are (dcnum 0.31)."""

MAPPINGS = 10
"""The format knows ``basinmap0`` to ``basinmap9``."""

EVENT_COUNT = "experiment:event count"


def write_rtdc(
    path: str | os.PathLike[str],
    images: Sequence[NDArray[Any]] | NDArray[Any],
    index: NDArray[np.int64],
    offset: NDArray[np.float64] | None,
    identifier: str,
    source: Path | None = None,
    compress: bool = True,
) -> None:
    """Write the background into an RT-DC file, in place of any that it has.

    Args:
        path: An RT-DC file, which may be the measurement itself, or a new file.
        images: Background images, ``(images, height, width)``; read one chunk at a time.
        index: The number of the image of each event.
        offset: The brightness offset of each event, if there is one.
        identifier: The pipeline identifier of the background, in dcnum's notation.
        source: The measurement. A new file refers to it for its other features, and has its attributes, logs
            and tables.
        compress: Compress the images (gzip, which every HDF5 has).

    Raises:
        MetadataError: The file holds another number of events, or refers to another measurement.
        ArrayError: No HDF5 file, no h5py, no free mapping, or unknown compression.
    """
    target = local_path(path, "path").resolve()
    with replacing_file(target) as part:
        if target.exists():
            with open_hdf5(target, "r"):
                shutil.copyfile(target, part)
        with open_hdf5(part, "a") as file:
            _remove_background(file)
            _check_events(file, target, len(index))
            if source is not None and source != target and not _own_events(file):
                _refer_to(file, source, target)
            file.attrs.setdefault(EVENT_COUNT, len(index))
            _store_images(file, images, compress)
            events = file.require_group("events")
            mapping = next((name for name in _mapping_names() if name not in events), None)
            if mapping is None:
                raise ArrayError(f"{target} has all {MAPPINGS} mappings in use: no background can be added")
            events.create_dataset(mapping, data=index, chunks=True, fletcher32=True)
            _store_basin(
                file,
                {
                    "description": f"Pipeline identifier: {identifier}",
                    "name": "background images",
                    "format": "h5dataset",
                    "paths": ["basin_events"],
                    "type": "internal",
                    "features": ["image_bg"],
                    "mapping": mapping,
                },
            )
            stored = [file["basin_events/image_bg"]]
            if offset is not None:
                stored.append(events.create_dataset("bg_off", data=offset, chunks=True, fletcher32=True))
            for dataset in stored:
                dataset.attrs["dcnum ppid background"] = identifier
                dataset.attrs["dcnum ppid generation"] = GENERATION


def frames_per_chunk(shape: tuple[int, int], dtype: np.dtype[Any]) -> int:
    """Images in a chunk of storage: about 1 MiB, at least one and at most 1000.

    >>> frames_per_chunk((80, 320), np.dtype(np.uint8))
    40
    """
    return int(np.clip((1 << 20) // (shape[0] * shape[1] * dtype.itemsize), 1, 1000))


def _store_images(file: Any, images: Any, compress: bool) -> None:
    """``basin_events/image_bg``: one chunk of images in memory at a time."""
    count, height, width = images.shape
    step = frames_per_chunk((height, width), images.dtype)
    dataset = file.require_group("basin_events").create_dataset(
        "image_bg",
        shape=images.shape,
        dtype=images.dtype,
        maxshape=(None, height, width),
        chunks=(step, height, width),
        fletcher32=True,
        **({"compression": "gzip", "compression_opts": 4, "shuffle": images.dtype.itemsize > 1} if compress else {}),
    )
    for first in range(0, count, step):
        dataset[first : first + step] = images[first : first + step]
    for name, value in (("CLASS", "IMAGE"), ("IMAGE_VERSION", "1.2"), ("IMAGE_SUBCLASS", "IMAGE_GRAYSCALE")):
        dataset.attrs.create(name, np.bytes_(value))


def _mapping_names() -> list[str]:
    return [f"basinmap{number}" for number in range(MAPPINGS)]


def _remove_background(file: Any) -> None:
    """Take images, offsets, and the basins and mappings that only served them out of the file."""
    for group in ("events", "basin_events"):
        for feature in BACKGROUND:
            if feature in file.get(group, {}):
                del file[group][feature]
    freed, needed = set(), set()
    for key, basin in _basins(file).items():
        features = basin.get("features") or []
        if basin.get("type") == "internal" and set(features) & set(BACKGROUND):
            del file["basins"][key]
            freed.add(basin.get("mapping"))
            basin["features"] = [feature for feature in features if feature not in BACKGROUND]
            if not basin["features"]:
                continue
            _store_basin(file, basin)
        needed.add(basin.get("mapping"))
    for mapping in freed - needed - {None}:
        if mapping in file["events"]:
            del file["events"][mapping]


def _own_events(file: Any) -> dict[str, int]:
    """Features that the file itself stores, with their number of events; mappings are none."""
    events = file.get("events", {})
    return {
        name: item.shape[0]
        for name, item in events.items()
        if getattr(item, "shape", ()) and name not in _mapping_names()
    }


def _check_events(file: Any, target: Path, count: int) -> None:
    """Refuse to mix a background with the events of something else."""
    lengths = _own_events(file)
    if lengths or any(basin.get("type") == "file" for basin in _basins(file).values()):
        lengths |= {EVENT_COUNT: int(file.attrs.get(EVENT_COUNT, count))}
    else:
        file.attrs.pop(EVENT_COUNT, None)
    for name, length in lengths.items():
        if length != count:
            raise MetadataError(
                f"{target} must hold the events of the background: it has {length} ({name}), "
                f"the background has {count} frames; choose another path"
            )


def _basins(file: Any) -> dict[str, dict[str, Any]]:
    """The basins of a file by their key."""
    return {
        key: json.loads(b"\n".join(read_hdf5(lines).tolist())) for key, lines in dict(file.get("basins", {})).items()
    }


def _store_basin(file: Any, basin: dict[str, Any]) -> None:
    """Store a basin as the format wants it: the lines of a JSON text, under the MD5 sum of the text."""
    text = json.dumps(basin, indent=2)
    key = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    basins = file.require_group("basins")
    if key not in basins:
        basins.create_dataset(key, data=np.array(text.encode().split(b"\n")))


def _refer_to(file: Any, source: Path, target: Path) -> None:
    """Make a file that holds no events of its own a view of the measurement, which stays where it is."""
    paths = [str(source), os.path.relpath(source, target.parent)]
    for key, basin in _basins(file).items():
        if basin.get("type") == "file":
            if not set(paths) & set(basin["paths"]):
                raise MetadataError(
                    f"{target} refers to the measurement {basin['paths'][0]}, the frames are from {source}: "
                    "choose another path"
                )
            del file["basins"][key]
    with open_hdf5(source, "r") as measured:
        for name, value in measured.attrs.items():
            file.attrs.setdefault(name, value)
        for group in ("logs", "tables"):
            for name in set(measured.get(group, {})) - set(file.get(group, {})):
                measured.copy(f"{group}/{name}", file.require_group(group))
        _store_basin(
            file,
            {
                "description": "The measurement of which these are the background images",
                "name": source.name,
                "format": "hdf5",
                "paths": paths,
                "type": "file",
                "identifier": _measurement_identifier(measured),
                "features": sorted(set(measured["events"]) - set(BACKGROUND) - set(_mapping_names())),
            },
        )


def _measurement_identifier(file: Any) -> str | None:
    """What readers compare a referred file with: its run identifier, or a hash of time, date and setup.

    None, which readers do not compare, where one of them is missing or is no text.
    """
    known = file.attrs.get("experiment:run identifier")
    if known:
        return known if isinstance(known, str) else None
    facts = [file.attrs.get(name) for name in ("experiment:time", "experiment:date", "setup:identifier")]
    if not all(isinstance(fact, str) and fact for fact in facts):
        return None
    return str(UUID(hashlib.md5("_".join(facts).encode(), usedforsecurity=False).hexdigest()))
