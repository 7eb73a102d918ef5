"""Workers and drivers that are killed: is every block done once, and does the output show nothing of it?"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.chaos.scene import ROUNDS, Scene, outputs, undisturbed, until

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = 501
"""Of the first task; with the second, a thousand and one."""
WORKER_KILLS = 50
DRIVER_KILLS = 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_fifty_workers_and_ten_drivers_are_killed(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    scene = Scene(tmp_path / "run", blocks=BLOCKS)
    todo = ["worker"] * WORKER_KILLS + ["driver"] * DRIVER_KILLS
    dice.shuffle(todo)
    everything = 2 * BLOCKS - 1
    places = sorted(dice.sample(range(10, everything - 40), len(todo)))
    scene.start()
    for at, what in zip(places, todo, strict=True):
        until(lambda at=at: scene.progress() >= at, f"{at} blocks are done")  # type: ignore[misc]
        scene.keep_journal()
        if what == "driver":
            scene.kill_driver()
            scene.start()
        else:
            until(scene.workers_at_work, "a worker is at work")
            scene.kill_worker(dice.choice(scene.workers_at_work()))
    scene.end()
    figures = scene.check()
    print(figures)
    assert len(scene.killed) == WORKER_KILLS
    assert outputs(scene.folder) == undisturbed(tmp_path / "undisturbed", blocks=BLOCKS)
