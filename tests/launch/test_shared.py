"""What workers share: is just what they need imported once, and do they share the processors?"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

import pytest
import scipy.ndimage
import zarr

from blockflow.launch.shared import THREADS, environment_of_threads, modules_to_import, processors
from blockflow.worker import _import

ZARR = f"zarr={zarr.__file__}"
NDIMAGE = f"scipy.ndimage={scipy.ndimage.__file__}"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of a user."""
    module = ModuleType("a_module_of_a_user")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def function_of(home: ModuleType) -> Any:
    def function() -> None:
        """Somewhere else than here, as far as anybody can tell."""

    function.__module__ = home.__name__
    return function


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (zarr, [ZARR]),
        (zarr.open, [ZARR]),
        (zarr.Array, [ZARR]),
        (scipy.ndimage.gaussian_filter, [NDIMAGE]),
        (scipy, []),
        (pytest, []),
        (3, []),
    ],
)
def test_what_the_module_of_a_function_has_imported_is_needed(
    home: ModuleType, value: object, expected: list[str]
) -> None:
    vars(home)["name"] = value
    function = function_of(home)
    assert modules_to_import([function, None], [b""]) == expected
    assert modules_to_import([functools.partial(functools.partial(function), 1)], [b""]) == expected


def test_what_is_packed_with_a_function_is_needed() -> None:
    assert modules_to_import([], [b"...", b"...scipy.ndimage._filters...zarr.core"]) == [ZARR, NDIMAGE]
    assert modules_to_import([], [b"...zap...", b""]) == []


def test_what_this_process_has_not_imported_is_left_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "zarr")
    assert modules_to_import([], [b"zarr"]) == []


def test_nothing_is_imported_before_a_fork_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert modules_to_import([], [b"zarr"]) == []


def test_a_package_that_is_elsewhere_is_not_imported() -> None:
    assert "this" not in sys.modules
    _import(["this=/somewhere/this.py", "nowhere=/nowhere.py", "no.where=/no/where.py", "name without a file"])
    assert "this" not in sys.modules


@pytest.mark.parametrize(("workers", "share"), [(1, processors()), (processors(), 1), (10 * processors(), 1)])
def test_workers_share_the_processors(monkeypatch: pytest.MonkeyPatch, workers: int, share: int) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    assert environment_of_threads(workers) == dict.fromkeys(THREADS, str(share))


@pytest.mark.parametrize("name", THREADS)
def test_whoever_says_it_himself_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "3")
    assert environment_of_threads(2) == {}
