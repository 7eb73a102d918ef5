"""Setup and teardown: is what does not fit together refused when the task is made?"""

from __future__ import annotations

from typing import Any

import pytest

from blockflow import Roi, Task
from blockflow.errors import PlanError


def make(function: Any, **more: Any) -> Task:
    return Task("t", Roi((0,), (3,)), Roi((0,), (1,)), Roi((0,), (1,)), function, **more)


def nothing() -> None:
    """Make no state."""


@pytest.mark.parametrize("function", [lambda block, state: None, lambda *all: None, dict.get, max])
def test_with_setup_a_function_takes_block_and_state(function: Any) -> None:
    assert make(function, setup=nothing, teardown=lambda state: None).takes_block


@pytest.mark.parametrize("function", [lambda block: None, lambda: None, lambda block, state, more: None])
def test_with_setup_a_function_that_takes_anything_else_is_refused(function: Any) -> None:
    with pytest.raises(PlanError, match="with setup, process_function must take a block and what setup returned"):
        make(function, setup=nothing)


def test_teardown_needs_setup() -> None:
    with pytest.raises(PlanError, match="teardown gets what setup returns, and there is no setup"):
        make(lambda block: None, teardown=lambda state: None)


@pytest.mark.parametrize("name", ["setup", "teardown", "check_blocks"])
def test_what_cannot_be_called_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match=f"{name} must be callable, got 5"):
        make(None, **{name: 5})
