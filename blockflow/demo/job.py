"""Job: how does a path become results, a verdict on them, and a drawing?"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blockflow import logging
from blockflow.demo.blocks import prepare, tasks
from blockflow.demo.check import TOLERANCE, compare
from blockflow.demo.drawing import draw
from blockflow.demo.picture import read_picture
from blockflow.errors import ArrayError, RunError
from blockflow.run import run_blockwise

if TYPE_CHECKING:
    from blockflow.demo.check import Verdict
    from blockflow.demo.picture import Picture

_MARK = ".blockflow_demo"
"""A file that says that a folder was made by the demo, so that the next one may replace what is in it."""

_OWN = ("demo.zarr", "demo.png", "notes", "logs")
"""What the demo makes in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a demo made, and whether it is right."""

    picture: Picture
    verdict: Verdict
    blocks: int
    """Blocks of all tasks."""
    seconds: float
    """What the run took; without reading, checking and drawing."""
    drawing: Path
    store: Path

    def account(self) -> str:
        """All of it, as text of several lines."""
        channels, height, width = self.picture.data.shape
        verdict = self.verdict
        smoothing = "equal to" if verdict.error <= TOLERANCE else "NOT EQUAL to"
        segments = "the same as" if verdict.same_partition else f"NOT THE SAME as the {verdict.segments}"
        return "\n".join(
            (
                f"input      {self.picture.name}, {width} x {height} pixels, channels: {channels}",
                f"run        {self.blocks} blocks in {self.seconds:.1f} s",
                f"smoothing  {smoothing} that of the whole picture: largest difference {verdict.error:.1g} "
                f"(without context {verdict.error_alone:.2g})",
                f"segments   {verdict.segments_found}, {segments} of the whole picture; "
                f"{verdict.joined} labels were joined over the borders of blocks",
                f"zarr       {self.store}",
                f"drawing    {self.drawing}",
            )
        )


def run_demo(source: str | None, output: Path, *, workers: int, progress: bool = True) -> Outcome:
    """Smooth and segment a picture in worker processes, compare with the whole picture, and draw it all.

    Args:
        source: Path of the picture; None for the astronaut of scikit-image.
        output: Folder for the results; one that does not exist yet, is empty, or is a former demo's.
        workers: Processes per task.
        progress: Show how far it is.

    Raises:
        ArrayError: The input is no picture, or the folder holds something else.
        PlanError: `workers` is no number of processes.
        RunError: Some blocks failed.
    """
    picture = read_picture(source)
    _make_room(output, source)
    job = prepare(output, picture.data)
    logs = logging.get_log_basedir()
    logging.set_log_basedir(output / "logs")
    began = time.time()
    try:
        result = run_blockwise(tasks(job, workers), progress=progress, summary=progress)
    finally:
        logging.set_log_basedir(logs)
    seconds = time.time() - began
    if not result:
        raise RunError(f"the demo's run is not complete; what its workers printed is in {output / 'logs'}")
    verdict = compare(job)
    draw(output / "demo.png", job, picture.name, began)
    return Outcome(
        picture=picture,
        verdict=verdict,
        blocks=sum(state.total_block_count for state in result.values()),
        seconds=seconds,
        drawing=output / "demo.png",
        store=output / "demo.zarr",
    )


def _make_room(output: Path, source: str | None) -> None:
    """Make the folder, or remove what a former demo left in it."""
    if source is not None and Path(source).resolve().is_relative_to(output.resolve()):
        raise ArrayError(f"{source} lies in {output}, which the demo writes anew; pass another --output")
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not (output / _MARK).exists() and any(output.iterdir()):
            raise ArrayError(f"{output} holds files that are not a demo's; pass another --output")
        (output / _MARK).touch()
        for name in _OWN:
            path = output / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise ArrayError(f"the folder {output} cannot be used: {error}; pass another --output") from error
