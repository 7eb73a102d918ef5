"""Groups of OME-Zarr images: where the levels of one image go, and which of them may be written.

No array is ever adopted: what is there is written only by a run that has made it, which its run directory says, or when
the caller asks for it to be deleted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.sync import sync
from zarr.storage import LocalStore

from blockflow.arrays.identity import document_of
from blockflow.arrays.opening import node_at
from blockflow.arrays.overlap import overlap
from blockflow.arrays.places import place_of
from blockflow.arrays.stores import is_zarr
from blockflow.errors import ArrayError, PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockflow.arrays.array import Array

__all__ = ["check_new", "level_prefix", "list_label", "path_inside"]

_LABELS = "labels"
"""The group in an image's group that holds its label images."""


def level_prefix(group: Any, name: str) -> str:
    """Return what stands before the numbers of the levels of an image in a group.

    Args:
        group: The group of the image, or its path; it need not be there.
        name: Of the image.

    Raises:
        PlanError: The image needs a folder of its own, and its name cannot be one.
    """
    place = place_of(group, None, read_only=False)
    node = node_at(place, "r")
    images = [] if node is None else _images(node.attrs.asdict())
    own = [image for image in images if image.get("name") == name]
    if own:
        paths = [str(dataset["path"]) for image in own for dataset in image.get("datasets", ())]
        return f"{name}/" if any(path.startswith(f"{name}/") for path in paths) else ""
    if not images:
        return ""
    if name == _LABELS:
        raise PlanError(
            f"name must not be {_LABELS!r} in a group that holds another image, because OME-Zarr keeps label images in "
            f"a group of that name: pass group={str(place) + '/labels/NAME'!r}"
        )
    if not name or {"", ".", ".."} & set(name.split("/")):
        raise PlanError(f"name must be one of a folder, as {place} holds another image already, got {name!r}")
    return f"{name}/"


def path_inside(group: Any, source: Array) -> str:
    """Return the path of a zarr array in a group, whatever links lead to either; empty if it is not in there."""
    if not is_zarr(source.data):
        return ""
    place, own = place_of(group, None, read_only=False), place_of(source.data, None, read_only=True)
    document = document_of(source.data)
    if document is None or not isinstance(place.store, LocalStore):
        root, inside = f"{place}/", str(own)
        return inside.removeprefix(root) if inside.startswith(root) else ""
    folder = place.store.root / place.path
    if not folder.is_dir():
        return ""
    here = Path(document).parent.resolve()
    for above in here.parents:
        if above.samefile(folder):
            return here.relative_to(above).as_posix()
    return ""


def check_new(
    group: Any, paths: Sequence[str], run_dirs: Sequence[Path | None], source: Array, overwrite: bool
) -> None:
    """Refuse levels that are there and were not made by this run; delete them if the caller wants that.

    Args:
        group: The group, or its path.
        paths: Of the levels that will be made, from the group.
        run_dirs: For each, the directory of its run; None if there is none.
        source: The image, which is never deleted.
        overwrite: Delete what is there.

    Raises:
        ArrayError: Something is there.
    """
    delete = []
    for path, run_dir in zip(paths, run_dirs, strict=True):
        place = place_of(group, path, read_only=False)
        node = node_at(place, "r")
        if node is not None and not (run_dir is not None and run_dir.is_dir()):
            if not overwrite:
                raise ArrayError(
                    f"something is at {place}, and not of a run with this run_dir: take another group or name=, or "
                    "pass overwrite=True to delete it"
                )
            if isinstance(node, zarr.Group):
                raise ArrayError(f"{place} is a group, which is not deleted: take another group or name=")
            if overlap(node, source):
                raise ArrayError(f"{place} is the image itself, and is not deleted: take another group or name=")
            delete.append(place)
    for run_dir in run_dirs:
        if run_dir is not None:
            run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)  # from now on, what is there is of this run
    for place in delete:
        sync(place.store.delete_dir(place.path))


def list_label(group: Any) -> None:
    """Add a label image to the list of the group ``labels`` that it lies in; nothing for other groups."""
    place = place_of(group, None, read_only=False)
    *_, parent, label = ["", "", *place.path.split("/")]
    if parent != _LABELS:
        return
    above = place.ancestors[0]
    labels = zarr.open_group(above.store, path=above.path, mode="r+")
    said: Any = labels.attrs.asdict()
    if labels.metadata.zarr_format == 2:
        labels.attrs[_LABELS] = sorted({*said.get(_LABELS, ()), label})
        return
    ome = said.get("ome", {})
    labels.attrs["ome"] = {"version": "0.5", **ome, _LABELS: sorted({*ome.get(_LABELS, ()), label})}


def _images(attributes: Any) -> list[Any]:
    """The multiscale images that a group's attributes name."""
    try:
        return list(attributes.get("ome", attributes).get("multiscales", ()))
    except (AttributeError, TypeError):
        return []
