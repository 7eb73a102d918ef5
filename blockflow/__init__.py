"""blockflow: process volumes of terabytes block by block."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockflow import arrays as arrays
    from blockflow import logging as logging
    from blockflow import ops as ops
    from blockflow import recipes as recipes
    from blockflow.geometry import Coordinate, Roi
    from blockflow.launch.launchers import LSF, Command, Dask, Local, Slurm
    from blockflow.ledger.reading import Ledger
    from blockflow.logging import get_worker_log_basename, redirect_stdouterr
    from blockflow.net.client import Client
    from blockflow.net.context import Context
    from blockflow.ops.mapping import iter_blocks, map_blocks
    from blockflow.plan.block import Block, BlockStatus
    from blockflow.plan.expand import expand_roi_to_grid, expand_write_roi_to_grid
    from blockflow.plan.graph import BlockwiseDependencyGraph, DependencyGraph
    from blockflow.plan.grid import Grid
    from blockflow.plan.task import Task
    from blockflow.result import RunResult
    from blockflow.run import PlanWarning, run_blockwise
    from blockflow.scheduler.scheduler import Scheduler
    from blockflow.scheduler.state import TaskState
    from blockflow.servers import SerialServer, Server

else:  # hidden, or type checkers take any name for exported

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"blockflow.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'blockflow' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


__version__ = "0.1.0"

_MODULES = ("arrays", "logging", "ops", "recipes")
"""Parts with public names of their own."""

_HOMES = {
    "Block": "blockflow.plan.block",
    "BlockStatus": "blockflow.plan.block",
    "BlockwiseDependencyGraph": "blockflow.plan.graph",
    "Client": "blockflow.net.client",
    "Command": "blockflow.launch.launchers",
    "Context": "blockflow.net.context",
    "Coordinate": "blockflow.geometry",
    "Dask": "blockflow.launch.launchers",
    "DependencyGraph": "blockflow.plan.graph",
    "Grid": "blockflow.plan.grid",
    "LSF": "blockflow.launch.launchers",
    "Ledger": "blockflow.ledger.reading",
    "Local": "blockflow.launch.launchers",
    "PlanWarning": "blockflow.run",
    "Roi": "blockflow.geometry",
    "RunResult": "blockflow.result",
    "Scheduler": "blockflow.scheduler.scheduler",
    "SerialServer": "blockflow.servers",
    "Server": "blockflow.servers",
    "Slurm": "blockflow.launch.launchers",
    "Task": "blockflow.plan.task",
    "TaskState": "blockflow.scheduler.state",
    "expand_roi_to_grid": "blockflow.plan.expand",
    "expand_write_roi_to_grid": "blockflow.plan.expand",
    "get_worker_log_basename": "blockflow.logging",
    "iter_blocks": "blockflow.ops.mapping",
    "map_blocks": "blockflow.ops.mapping",
    "redirect_stdouterr": "blockflow.logging",
    "run_blockwise": "blockflow.run",
}
"""Where each public name lives. They are imported on first use, because a worker needs few of them."""

__all__ = [
    "LSF",
    "Block",
    "BlockStatus",
    "BlockwiseDependencyGraph",
    "Client",
    "Command",
    "Context",
    "Coordinate",
    "Dask",
    "DependencyGraph",
    "Grid",
    "Ledger",
    "Local",
    "PlanWarning",
    "Roi",
    "RunResult",
    "Scheduler",
    "SerialServer",
    "Server",
    "Slurm",
    "Task",
    "TaskState",
    "expand_roi_to_grid",
    "expand_write_roi_to_grid",
    "get_worker_log_basename",
    "iter_blocks",
    "map_blocks",
    "redirect_stdouterr",
    "run_blockwise",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
