"""Is every public name there, described, imported only when used, and what users of daisy expect?"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import blockflow
import blockflow as daisy

PACKAGES = {"blockflow": blockflow, "blockflow.arrays": blockflow.arrays, "blockflow.ops": blockflow.ops}
NAMES = [(package, name) for package, module in PACKAGES.items() for name in module.__all__]

ROOT = Path(blockflow.__file__).parents[1]


def modules_after(code: str) -> set[str]:
    """Everything that a new interpreter has imported after some code, beyond what it has at its start."""
    script = f"import sys, json; before = set(sys.modules)\n{code}\nprint(json.dumps([*set(sys.modules) - before]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


# ------------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_listed_once_and_found(package: str) -> None:
    module = PACKAGES[package]
    assert len(set(module.__all__)) == len(module.__all__)
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_a_public_name_is_described_in_words(package: str, name: str) -> None:
    value = getattr(PACKAGES[package], name)
    assert value.__name__ == name
    described = inspect.getdoc(value) or ""
    first = described.partition("\n")[0]
    assert first.endswith((".", "?", ":"))
    assert not first.startswith(f"{name}(")


@pytest.mark.parametrize(("package", "name"), [(p, n) for p, n in NAMES if n not in ("Coordinate", "Roi")])
def test_public_methods_are_described_too(package: str, name: str) -> None:
    value = getattr(PACKAGES[package], name)
    members = vars(value) if inspect.isclass(value) else {}
    for member, found in members.items():
        if not member.startswith("_") and (inspect.isfunction(found) or isinstance(found, property | classmethod)):
            assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"


def test_an_unknown_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match=r"^module 'blockflow' has no attribute 'run_blockwize'$"):
        _ = blockflow.run_blockwize  # type: ignore[attr-defined]


def test_a_star_gives_the_public_names() -> None:
    names: dict[str, Any] = {}
    exec("from blockflow import *", names)
    assert set(names) - {"__builtins__"} == set(blockflow.__all__)


# ---------------------------------------------------------------------------------------------------------- imports


def test_importing_imports_nothing_else() -> None:
    loaded = modules_after("import blockflow, blockflow.arrays, blockflow.ops, blockflow.logging")
    assert {name for name in loaded if name.startswith("blockflow")} == {
        "blockflow",
        "blockflow.arrays",
        "blockflow.ops",
        "blockflow.logging",
    }
    for name in ("numpy", "zarr", "tornado", "funlib.geometry", "asyncio", "msgspec", "tqdm", "ssl"):
        assert name not in loaded


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        ("Client", ("numpy", "zarr", "tornado", "asyncio", "ssl", "funlib.geometry", "tqdm")),
        ("Task, Block, Roi, Coordinate", ("zarr", "tornado", "asyncio", "tqdm", "cloudpickle")),
        ("run_blockwise, Scheduler, RunResult, Slurm, Dask", ("zarr", "tornado", "asyncio", "tqdm", "cloudpickle")),
    ],
)
def test_a_name_imports_what_it_needs_only(names: str, absent: tuple[str, ...]) -> None:
    loaded = modules_after(f"from blockflow import {names}")
    assert not loaded.intersection(absent)


def test_a_run_in_this_process_needs_no_server() -> None:
    loaded = modules_after(
        "from blockflow import Roi, Task, run_blockwise\n"
        "roi = Roi((0,), (3,))\n"
        "run_blockwise([Task('t', roi, roi, roi, lambda block: None)], multiprocessing=False, progress=False,"
        " summary=False)"
    )
    assert not loaded.intersection({"zarr", "tornado", "asyncio", "ssl", "cryptography", "cloudpickle"})


# ---------------------------------------------------------------------------------------------------------- daisy

required = inspect.Parameter.empty

SIGNATURES: dict[str, dict[str, Any]] = {
    "Task": {
        "task_id": required,
        "total_roi": required,
        "read_roi": required,
        "write_roi": required,
        "process_function": required,
        "check_function": None,
        "init_callback_fn": None,
        "read_write_conflict": True,
        "num_workers": 1,
        "max_retries": 2,
        "fit": "valid",
        "timeout": None,
        "upstream_tasks": None,
    },
    "Block": {"total_roi": required, "read_roi": required, "write_roi": required, "block_id": None, "task_id": None},
    "run_blockwise": {"tasks": required, "multiprocessing": True},
    "Server": {"stop_event": None, "host": None},
    "SerialServer": {},
    "Server.run_blockwise": {"self": required, "tasks": required, "scheduler": None},
    "SerialServer.run_blockwise": {"self": required, "tasks": required, "scheduler": None},
    "Scheduler": {"tasks": required, "count_all_orphans": True},
    "Scheduler.acquire_block": {"self": required, "task_id": required},
    "Scheduler.release_block": {"self": required, "block": required},
    "Scheduler.get_ready_tasks": {"self": required},
    "BlockwiseDependencyGraph": {
        "task_id": required,
        "block_read_roi": required,
        "block_write_roi": required,
        "read_write_conflict": required,
        "fit": required,
        "total_read_roi": None,
        "total_write_roi": None,
    },
    "BlockwiseDependencyGraph.get_subgraph_blocks": {"self": required, "sub_roi": required, "read_roi": False},
    "DependencyGraph": {"tasks": required},
    "Client": {"context": None},
    "expand_roi_to_grid": {"sub_roi": required, "total_roi": required, "read_roi": required, "write_roi": required},
    "expand_write_roi_to_grid": {"roi": required, "write_roi": required},
    "logging.set_log_basedir": {"path": required},
    "logging.get_log_basedir": {},
    "logging.get_worker_log_basename": {"worker_id": required, "task_id": None},
    "logging.redirect_stdouterr": {"basename": required, "mode": "w"},
}
"""Names, order and defaults of daisy's arguments. What may be left out here beyond that is listed in `LAXER`."""

LAXER = {("Task", name) for name in ("total_roi", "read_roi", "write_roi", "process_function")}
"""A grid may stand for the ROIs, and a task without function can be planned."""


def found(name: str) -> Any:
    value: Any = daisy
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_daisys_names_order_and_defaults(name: str) -> None:
    parameters = inspect.signature(found(name)).parameters.values()
    ours = {p.name: p.default for p in parameters if p.kind is not p.KEYWORD_ONLY}
    assert list(ours) == list(SIGNATURES[name])
    for argument, default in SIGNATURES[name].items():
        if (name, argument) not in LAXER | {("Task", "upstream_tasks")}:
            assert ours[argument] == default, argument


def test_only_the_keywords_of_daisy_2_are_beside_the_arguments_of_a_run() -> None:
    parameters = inspect.signature(daisy.run_blockwise).parameters.values()
    keywords = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keywords >= {"return_states", "progress", "resources", "host", "summary"}


def plane(name: str = "t", function: Any = lambda block: None, **more: Any) -> daisy.Task:
    total, read, write = daisy.Roi((0, 0), (60, 60)), daisy.Roi((0, 0), (30, 30)), daisy.Roi((10, 10), (10, 10))
    return daisy.Task(name, total, read, write, function, **more)


def quietly(tasks: list[daisy.Task], **options: Any) -> daisy.RunResult:
    return daisy.run_blockwise(tasks, multiprocessing=False, progress=False, summary=False, **options)


def test_first_blocks_and_their_order_are_daisys() -> None:
    scheduler = daisy.Scheduler([plane()])
    waves = []
    while blocks := [block for _ in range(5) if (block := scheduler.acquire_block("t"))]:
        waves.append([block.block_id[1] for block in blocks])
        for block in blocks:
            block.status = daisy.BlockStatus.SUCCESS
            scheduler.release_block(block)
    assert waves == [[12, 23, 25, 40], [8, 17, 19, 32], [7, 16, 18, 31], [4, 11, 13, 24]]
    assert scheduler.task_states["t"].is_done()
    assert scheduler.get_ready_tasks() == []
    assert scheduler.dependency_graph.num_blocks("t") == 16


def test_what_a_block_is_to_daisys_users() -> None:
    (block,) = list(daisy.Scheduler([plane()]).dependency_graph.roots()["t"][1])[:1]
    twin = block.copy()
    assert twin == block
    assert hash(twin) == hash(block)
    assert twin is not block
    assert (block.task_id, block.block_id) == ("t", ("t", 12))
    assert block.status is daisy.BlockStatus.CREATED
    assert {status.name for status in daisy.BlockStatus} == {"CREATED", "PROCESSING", "SUCCESS", "FAILED"}
    made = daisy.Block(daisy.Roi((0,), (40,)), daisy.Roi((9,), (12,)), daisy.Roi((10,), (10,)), task_id="t")
    assert made.block_id == ("t", 1)


def test_states_of_tasks_and_the_truth_of_a_result() -> None:
    def process(block: daisy.Block) -> None:
        if block.block_id[1] == 0:
            block.status = daisy.BlockStatus.FAILED

    roi = daisy.Roi((0,), (10,))
    first = daisy.Task("first", daisy.Roi((0,), (30,)), roi, roi, process, max_retries=0)
    second = daisy.Task(
        "second", daisy.Roi((0,), (30,)), roi, roi, print, check_function=lambda block: True, upstream_tasks=[first]
    )
    result = quietly([second], return_states=True)
    assert not result
    assert list(result) == ["first", "second"]
    state = result["first"]
    assert (state.started, state.total_block_count, state.completed_count, state.failed_count) == (True, 3, 2, 1)
    assert (state.ready_count, state.processing_count, state.pending_count) == (0, 0, 0)
    assert result["second"].orphaned_count + result["second"].skipped_count == 3
    assert all(state.is_done() for state in result.values())
    assert second.requires() == [first]


@pytest.mark.parametrize("server", [daisy.Server, daisy.SerialServer])
def test_servers_return_states(server: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockflow.logging._basedir", tmp_path)
    states = server().run_blockwise([plane()])
    assert {name: state.completed_count for name, state in states.items()} == {"t": 16}
    tasks = [plane()]
    scheduler = daisy.Scheduler(tasks)
    assert server().run_blockwise(tasks, scheduler=scheduler) == scheduler.task_states


def test_graphs_answer_as_daisys_do() -> None:
    graph = daisy.DependencyGraph([plane("a"), plane("b", read_write_conflict=False)])
    assert (graph.num_blocks("a"), graph.num_roots("a"), graph.num_roots("b")) == (16, 4, 16)
    assert set(graph.root_tasks()) == {"a", "b"}
    first = next(iter(graph.root_gen("a")))
    for below in graph.downstream(first):
        assert first in graph.upstream(below)
    one = daisy.BlockwiseDependencyGraph(
        "t", daisy.Roi((0,), (12,)), daisy.Roi((1,), (10,)), True, "valid", total_write_roi=daisy.Roi((1,), (40,))
    )
    assert (one.num_blocks, one.num_levels, one.num_roots()) == (4, 2, 2)
    assert len(list(one.root_gen())) == len(list(one.level_blocks(0))) == 2
    assert len(list(one.enumerate_all_dependencies())) == 4
    assert len(one.get_subgraph_blocks(daisy.Roi((1,), (11,)))) == 2
    assert len(one.get_subgraph_blocks(daisy.Roi((1,), (1,)), read_roi=True)) == 1


def test_rois_are_grown_to_a_grid_as_by_daisy() -> None:
    write = daisy.Roi((0, 0), (10, 10))
    assert daisy.expand_write_roi_to_grid(daisy.Roi((3, 12), (10, 3)), write) == daisy.Roi((0, 10), (20, 10))


def test_rois_are_those_of_funlib() -> None:
    import funlib.geometry

    assert daisy.Roi is funlib.geometry.Roi
    assert daisy.Coordinate is funlib.geometry.Coordinate


def test_modules_are_there_after_one_import() -> None:
    code = "import blockflow as daisy; print(daisy.logging.get_log_basedir(), daisy.arrays.Array.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["daisy_logs", "Array"]
