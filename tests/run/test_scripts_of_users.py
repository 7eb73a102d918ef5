"""What works in a script works in its workers: caches, moved directories, random numbers, levels and flags."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import blockflow

HEAD = """
import functools, json, logging, os, pathlib, random, sys
import numpy as np
from blockflow import Roi, Task, run_blockwise

seen = pathlib.Path("seen").resolve()
seen.mkdir()

def run(function, workers=1, blocks=1):
    one = Roi((0,), (1,))
    more = {"max_retries": 0, "num_workers": workers, "read_write_conflict": False}
    task = Task("t", Roi((0,), (blocks,)), one, one, function, **more)
    result = run_blockwise(task, progress=False, summary=False)
    assert result, result.causes or result.problems

def note(block, value):
    (seen / str(block.index)).write_text(json.dumps(value))
"""


def python(folder: Path, text: str, *flags: str) -> tuple[dict[int, Any], str]:
    """Run a script; what its blocks have noted, and what it has printed."""
    script = folder / "script_of_a_user.py"
    script.write_text(HEAD + textwrap.dedent(text))
    environment = os.environ | {"PYTHONPATH": str(Path(blockflow.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, *flags, str(script)], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    noted = {int(file.name): json.loads(file.read_text()) for file in (folder / "seen").iterdir()}
    return noted, ended.stderr


def test_cached_functions(tmp_path: Path) -> None:
    noted, _ = python(
        tmp_path,
        """
        @functools.lru_cache(maxsize=7)
        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        class Model:
            @functools.cached_property
            def size(self):
                return 3
            @functools.cache
            def doubled(self, value):
                return 2 * value

        def process(block):
            model = Model()
            maxsize = fibonacci.cache_parameters()["maxsize"]
            note(block, [fibonacci(30), maxsize, model.size, model.__dict__, model.doubled(4)])

        run(process)
        """,
    )
    assert noted == {0: [832040, 7, 3, {"size": 3}, 8]}


def test_modules_of_classes_of_their_own(tmp_path: Path) -> None:
    noted, _ = python(
        tmp_path,
        """
        import zarr, zarr.storage
        storage = zarr.storage
        run(lambda block: note(block, [zarr.storage.MemoryStore.__name__, storage.LocalStore.__name__]))
        """,
    )
    assert noted == {0: ["MemoryStore", "LocalStore"]}


def test_modules_that_were_imported_before_the_directory_changed(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper_of_lib.py").write_text("NAME = 'lib'")
    (tmp_path / "helper_of_mine.py").write_text("NAME = 'mine'")
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "__init__.py").write_text("NAME = 'package'")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "helper_of_mine.py").write_text("NAME = 'another one'")
    noted, _ = python(
        tmp_path,
        """
        sys.path.remove(str(pathlib.Path(__file__).parent))
        sys.path[:0] = ["", "lib"]
        import helper_of_lib, helper_of_mine, package_of_mine
        os.chdir("data")
        run(lambda block: note(block, [helper_of_lib.NAME, helper_of_mine.NAME, package_of_mine.NAME]))
        """,
    )
    assert noted == {0: ["lib", "mine", "package"]}


def test_a_copied_generator_is_warned_of(tmp_path: Path) -> None:
    _, said = python(
        tmp_path,
        """
        rng = np.random.default_rng(1)
        run(lambda block: note(block, rng.random()))
        """,
    )
    assert "the functions of task 't' bring a random generator along (numpy.random._generator.Generator)" in said
    assert "numpy.random.default_rng([seed, block.index])" in said


def test_functions_that_draw_from_the_generator_of_their_module_differ_between_workers(tmp_path: Path) -> None:
    noted, said = python(
        tmp_path,
        """
        import time
        from random import gauss
        from numpy.random import normal

        def process(block):
            note(block, [gauss(0, 1), normal()])
            while len(list(seen.iterdir())) < 2:  # so that the other block goes to the other worker
                time.sleep(0.01)

        run(process, workers=2, blocks=2)
        """,
    )
    assert "generator" not in said
    assert noted[0][0] != noted[1][0]
    assert noted[0][1] != noted[1][1]


def test_levels_of_loggers_and_flags_of_the_interpreter(tmp_path: Path) -> None:
    noted, _ = python(
        tmp_path,
        """
        logging.basicConfig(level=logging.INFO, format="ours: %(message)s")
        logging.getLogger("noisy").setLevel(logging.ERROR)

        def process(block):
            logging.info("block %d", block.index)
            logging.getLogger("noisy").warning("not this")
            note(block, [sys.flags.optimize, sys.flags.utf8_mode, sys.warnoptions, __debug__])

        run(process)
        """,
        "-O",
        "-Xutf8",
        "-Wignore::ImportWarning",
    )
    assert noted == {0: [1, 1, ["ignore::ImportWarning"], False]}
    printed = (tmp_path / "daisy_logs" / "t" / "worker_0.err").read_text()
    assert printed.splitlines() == ["ours: block 0"]
