"""blockflow: process volumes of terabytes block by block."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockflow.geometry import Coordinate, Roi
    from blockflow.plan.block import Block, BlockStatus
    from blockflow.plan.graph import BlockwiseDependencyGraph, DependencyGraph
    from blockflow.plan.task import Task
    from blockflow.state.scheduler import Scheduler
    from blockflow.state.task_book import TaskState

__version__ = "0.1.0"

_HOMES = {
    "Block": "blockflow.plan.block",
    "BlockStatus": "blockflow.plan.block",
    "BlockwiseDependencyGraph": "blockflow.plan.graph",
    "Coordinate": "blockflow.geometry",
    "DependencyGraph": "blockflow.plan.graph",
    "Roi": "blockflow.geometry",
    "Scheduler": "blockflow.state.scheduler",
    "Task": "blockflow.plan.task",
    "TaskState": "blockflow.state.task_book",
}
"""Where each public name lives. They are imported on first use, because a worker needs few of them."""

__all__ = [
    "Block",
    "BlockStatus",
    "BlockwiseDependencyGraph",
    "Coordinate",
    "DependencyGraph",
    "Roi",
    "Scheduler",
    "Task",
    "TaskState",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'blockflow' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
