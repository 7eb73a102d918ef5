"""Is everything that can be wrong with one task refused when it is made, and said in a way that helps?"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given

from blockflow.errors import GeometryError, PlanError, TaskGraphError
from blockflow.geometry import Coordinate, Roi
from blockflow.plan.plan import compile_plan
from blockflow.plan.task import Task
from blockflow.testing.strategies import tasks
from tests.plan.oracle import places, volume, writable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PLANE: dict[str, Any] = {"total_roi": Roi((0, 0), (20, 20)), "read_roi": Roi((0, 0), (8, 8))}
PLANE["write_roi"] = Roi((2, 2), (4, 4))


def plane(**changes: Any) -> Task:
    return Task(**{"task_id": "plane", **PLANE, **changes})


def refused(error: type[Exception], message: str, **changes: Any) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        plane(**changes)


# -- arguments ---------------------------------------------------------------------------------------------------


def check(block: object) -> bool:
    return False


def init(context: object) -> None: ...


def test_arguments_stand_in_daisys_order() -> None:
    above = plane(task_id="above")
    total, read, write = PLANE.values()
    task = Task("plane", total, read, write, takes_block, check, init, False, 3, 5, "shrink", 7.5, [above])
    assert (task.task_id, task.total_roi, task.read_roi, task.write_roi) == ("plane", total, read, write)
    assert (task.process_function, task.check_function, task.init_callback_fn) == (takes_block, check, init)
    assert (task.read_write_conflict, task.num_workers, task.max_retries) == (False, 3, 5)
    assert (task.fit, task.timeout, task.upstream_tasks, task.requires()) == ("shrink", 7.5, [above], [above])


def test_defaults_are_daisys() -> None:
    task = plane()
    assert (task.check_function, task.init_callback_fn, task.timeout, task.upstream_tasks) == (None, None, None, [])
    assert (task.read_write_conflict, task.num_workers, task.max_retries, task.fit) == (True, 1, 2, "valid")


def test_what_is_ours_is_keyword_only() -> None:
    daisys: list[Any] = ["plane", *PLANE.values(), None, None, None, True, 1, 2, "valid", None, None]
    assert Task(*daisys).upstream_tasks == []
    with pytest.raises(TypeError, match="positional arguments"):
        Task(*[*daisys, 4])


# -- geometry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["total_roi", "read_roi", "write_roi"])
def test_rois_must_be_bounded_and_have_an_extent(name: str) -> None:
    prefix = f"{name} of task 'plane' must"
    refused(GeometryError, f"{prefix} be a Roi, got tuple: (0, 8)", **{name: (0, 8)})
    place = "axis 1 begins at None and measures None"
    refused(GeometryError, f"{prefix} be bounded on every axis: {place}", **{name: Roi((0, 0), (8, None))})
    for extent in (0, -3):
        place = f"axis 1 begins at 0 and measures {extent}"
        refused(GeometryError, f"{prefix} have a positive shape: {place}", **{name: Roi((0, 0), (8, extent))})


def test_rois_must_agree() -> None:
    refused(
        GeometryError,
        "task 'plane': read_roi must contain write_roi: axis 1 writes [6, 10) and reads only [0, 8)",
        write_roi=Roi((2, 6), (4, 4)),
    )
    refused(
        GeometryError,
        "task 'plane': total_roi, read_roi and write_roi must have the same number of axes, got 3, 2 and 2",
        total_roi=Roi((0, 0, 0), (20, 20, 20)),
    )
    refused(GeometryError, "task 'plane': fit must be one of 'valid', 'overhang', 'shrink', got 'crop'", fit="crop")


def test_voxel_size_must_fit() -> None:
    refused(GeometryError, "voxel_size of task 'plane' must be a sequence of integers, got 4", voxel_size=4)
    refused(GeometryError, "voxel_size of task 'plane' must hold whole numbers: axis 1 has 0.5", voxel_size=(1, 0.5))
    refused(GeometryError, "task 'plane': voxel_size has 3 axes, total_roi has 2", voxel_size=(1, 1, 1))
    for voxel in (0, -2):
        message = f"task 'plane': voxel_size must be positive: axis 1 has {voxel}"
        refused(GeometryError, message, voxel_size=(1, voxel))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_roi": Roi((5, 0), (20, 18))}, "total_roi must lie on the voxel grid: axis 1 is [0, 18), "),
        ({"read_roi": Roi((0, 0), (8, 10))}, "read_roi must lie on the voxel grid: axis 1 is [0, 10), "),
        ({"write_roi": Roi((0, 0), (4, 5))}, "write_roi must lie on the voxel grid: axis 1 is [0, 5), "),
        ({"write_roi": Roi((0, 2), (4, 4))}, "write_roi must lie on the voxel grid: axis 1 is [2, 6), "),
        ({"write_roi": Roi((0, 2), (4, 6))}, "write_roi must lie on the voxel grid: axis 1 is [2, 8), "),
    ],
)
def test_rois_must_lie_on_the_voxel_grid(changes: dict[str, Roi], message: str) -> None:
    rest = "voxels measure 4 from 0 on; use multiples of the voxel size"
    refused(
        GeometryError,
        f"task 'plane': {message}{rest}",
        **{"write_roi": Roi((0, 0), (4, 4)), **changes, "voxel_size": (4, 4)},
    )


def test_only_the_place_of_the_template_in_itself_matters_for_the_voxel_grid() -> None:
    """Volumes may begin anywhere, and templates are commonly written down from 0."""
    shapes = {"total_roi": (20, 40), "read_roi": (12, 12), "write_roi": (4, 4)}
    begins = {"total_roi": (5, -3), "read_roi": (1, 0), "write_roi": (5, 4)}
    rois = {name: Roi(begins[name], shape) for name, shape in shapes.items()}
    task = plane(**rois, voxel_size=[4, 4])
    assert task.voxel_size == Coordinate(4, 4)
    assert task.grid.shape == (3, 8)


@given(tasks(voxel_size=(40, 4, 1), allow_empty=True))
def test_dropped_voxels_are_counted_in_voxels(task: Task) -> None:
    written = sum(volume(place.write) for place in places(task))
    if task.fit == "valid":
        assert task.dropped_voxels() * 160 == volume(writable(task)) - written
        assert replace(task, voxel_size=None).dropped_voxels() == task.dropped_voxels() * 160
    else:
        assert task.dropped_voxels() == 0


def test_later_changes_of_a_roi_do_not_reach_the_task() -> None:
    total = Roi((0, 0), (20, 20))
    task = plane(total_roi=total)
    total.offset = (7, 7)
    assert task.total_roi == Roi((0, 0), (20, 20))
    assert task.total_box == ((0, 20), (0, 20))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_id", "other"),
        ("total_roi", Roi((0, 0), (40, 40))),
        ("read_roi", Roi((0, 0), (9, 9))),
        ("write_roi", Roi((0, 0), (8, 8))),
        ("fit", "shrink"),
        ("voxel_size", (2, 2)),
        ("process_function", print),
        ("check_function", print),
    ],
)
def test_what_a_task_was_compiled_from_cannot_be_changed(name: str, value: Any) -> None:
    task = plane()
    message = f"{name} of task 'plane' cannot be changed any more; make a new task with dataclasses.replace"
    with pytest.raises(PlanError, match=f"^{re.escape(message)}$"):
        setattr(task, name, value)
    changed = replace(task, **{name: value})
    assert getattr(changed, name) == value
    assert getattr(task, name) != value


def test_tasks_can_be_copied_and_the_rest_of_them_changed() -> None:
    task = copy.copy(plane())
    task.num_workers = 4
    task.upstream_tasks = [plane(task_id="above")]
    assert len(compile_plan([task]).tasks) == 2


# -- names and upstream tasks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["smooth", "smooth 2", "Größe", "a:b", "a.b", "x" * 200, "ü" * 100, "-rf"])
def test_names_of_folders_are_names_of_tasks(name: str) -> None:
    assert plane(task_id=name).task_id == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        (" a", "it begins or ends with a space"),
        ("a\n", "it begins or ends with a space"),
        (".hidden", "it begins with a dot"),
        ("..", "it begins with a dot"),
        ("a/b", "it holds a path separator"),
        ("a\\b", "it holds a path separator"),
        ("a\0b", "it holds a control character"),
        ("a\x1bb", "it holds a control character"),
        ("a\udc80b", "it holds a control character"),
        ("x" * 201, "it is longer than 200 bytes"),
        ("ü" * 101, "it is longer than 200 bytes"),
    ],
)
def test_names_that_cannot_be_folders_are_refused(name: str, reason: str) -> None:
    refused(TaskGraphError, f"a task id names a folder for logs, and {name!r} cannot: {reason}", task_id=name)


@pytest.mark.parametrize("name", [None, 3, b"a", ("a",)])
def test_names_that_are_no_strings_are_refused(name: object) -> None:
    refused(TaskGraphError, f"a task id must be a string, got {name!r}", task_id=name)


def test_names_are_plain_strings() -> None:
    task = plane(task_id=np.array(["smooth"])[0])
    assert type(task.task_id) is str
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(task.task_id)) == "smooth"


def test_upstream_tasks_may_be_one_many_or_none() -> None:
    above = plane(task_id="above")
    given_list = [above]
    assert plane(upstream_tasks=above).upstream_tasks == [above]
    assert plane(upstream_tasks=(above, above)).upstream_tasks == [above, above]
    assert plane(upstream_tasks=None).upstream_tasks == []
    assert plane(upstream_tasks=given_list).upstream_tasks is not given_list


def test_what_is_no_task_cannot_be_upstream() -> None:
    prefix = "upstream_tasks of task 'plane' must be tasks, got"
    refused(TaskGraphError, f"{prefix} 'above'", upstream_tasks=["above"])
    refused(TaskGraphError, f"{prefix} 'a'", upstream_tasks="above")
    refused(TaskGraphError, f"{prefix} 5", upstream_tasks=5)


def test_repr_does_not_grow_with_the_pipeline() -> None:
    last = plane(task_id="first")
    for number in range(20):
        sides = [plane(task_id=f"{side}{number}", upstream_tasks=[last]) for side in ("left", "right")]
        last = plane(task_id=f"join{number}", upstream_tasks=sides)
    assert repr(last).startswith("Task(task_id='join19', total_roi=[0:20, 0:20] (20, 20), ")
    assert len(repr(last)) < 1000


# -- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "least"), [("num_workers", 1), ("max_retries", 0)])
def test_counts_must_be_whole_numbers(name: str, least: int) -> None:
    for good in (least, 7, np.int64(7)):
        count = getattr(plane(**{name: good}), name)
        assert count == good
        assert type(count) is int
    for value in (least - 1, 1.0, 1.5, "1", None, True, float("nan"), [1]):
        refused(PlanError, f"task 'plane': {name} must be a whole number >= {least}, got {value!r}", **{name: value})


def test_max_workers_is_another_name_of_num_workers() -> None:
    assert plane(max_workers=4).num_workers == 4
    assert plane(max_workers=4, num_workers=4).num_workers == 4
    message = "task 'plane': num_workers and max_workers are one thing, got 3 and 4"
    refused(PlanError, message, max_workers=4, num_workers=3)
    refused(PlanError, "task 'plane': num_workers must be a whole number >= 1, got 0", max_workers=0)


@pytest.mark.parametrize("number", [1, 2])
def test_a_copy_may_have_another_number_of_workers(number: int) -> None:
    assert dataclasses.replace(plane(max_workers=4), num_workers=number).num_workers == number


def test_timeouts_must_be_numbers_of_seconds() -> None:
    assert plane(timeout="auto").timeout == "auto"
    for seconds in (1, 0.5, np.float32(0.5), np.int64(3)):
        timeout = plane(timeout=seconds).timeout
        assert timeout == seconds
        assert type(timeout) is float
    for value in (0, -1, float("nan"), float("inf"), "60", True, [60]):
        message = f"task 'plane': timeout must be a number of seconds > 0, 'auto', or None for no limit, got {value!r}"
        refused(PlanError, message, timeout=value)


def test_read_write_conflict_must_be_true_or_false() -> None:
    for given_value, expected in ((True, True), (False, False), (1, True), (np.False_, False)):
        assert plane(read_write_conflict=given_value).read_write_conflict is expected
    for value in (4, None, "no", print):
        message = f"task 'plane': read_write_conflict must be True or False, got {value!r}"
        refused(PlanError, message, read_write_conflict=value)


# -- functions ---------------------------------------------------------------------------------------------------


def takes_block(block: object) -> None: ...
def takes_nothing() -> None: ...
def takes_two(block: object, gain: int) -> None: ...
def takes_keyword(block: object, *, gain: int) -> None: ...


class Model:
    def __init__(self, gain: int = 1) -> None: ...
    def __call__(self, block: object) -> None: ...
    def process(self, block: object) -> None: ...
    def work(self) -> None: ...

    @classmethod
    def of_class(cls, block: object) -> None: ...
    @staticmethod
    def static(block: object) -> None: ...


@functools.wraps(takes_nothing)
def wrapped(*args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (None, True),
        (takes_block, True),
        (lambda block: block, True),
        (lambda block, factor=2: block, True),
        (lambda block=None: block, True),
        (lambda gain=2, block=None: block, True),
        (lambda *args: args, True),
        (lambda *args, **kwargs: args, True),
        (functools.partial(takes_two, gain=2), True),
        (functools.partial(takes_keyword, gain=2), True),
        (functools.partial(lambda gain, block: None, 2), True),
        (Model(), True),
        (Model().process, True),
        (Model.of_class, True),
        (Model.static, True),
        (print, True),
        (len, True),
        (iter, True),  # a builtin without a signature
        (takes_nothing, False),
        (lambda: None, False),
        (lambda **kwargs: None, False),
        (lambda *, gain=2: None, False),
        (lambda *, block=None: None, False),
        (functools.partial(lambda block: None, block=None), False),
        (lambda config="a.json": None, False),
        (functools.partial(takes_block, None), False),
        (functools.partial(takes_two, None, gain=2), False),
        (Model().work, False),
        (wrapped, False),
        (Model, False),
    ],
)
def test_a_function_that_requires_an_argument_or_takes_any_takes_a_block(
    function: Callable[..., Any] | None, expected: bool
) -> None:
    task = plane(process_function=function)
    assert task.takes_block is expected
    assert task.process_function is function


@pytest.mark.parametrize(
    ("function", "requires"),
    [
        (takes_two, "(block, gain)"),
        (takes_keyword, "(block, *, gain)"),
        (Model.process, "(self, block)"),
        (functools.partial(lambda gain, block: None, gain=2), "(*, block)"),
        (lambda *, block: None, "(*, block)"),
        (divmod, "(x, y, /)"),
    ],
)
def test_functions_that_cannot_be_called_with_a_block_are_refused(function: Callable[..., Any], requires: str) -> None:
    refused(
        PlanError,
        f"task 'plane': process_function must take one block, or nothing; it requires {requires}. "
        "Bind the others with functools.partial, the block last",
        process_function=function,
    )


async def coroutine(block: object) -> bool:
    return False


async def async_generator(block: object) -> AsyncIterator[object]:
    yield block


def generator(block: object) -> Iterator[object]:
    yield block


class AsyncModel:
    async def __call__(self, block: object) -> None: ...
    async def process(self, block: object) -> None: ...


LAZY = [
    coroutine,
    async_generator,
    generator,
    AsyncModel(),
    AsyncModel().process,
    functools.partial(coroutine),
]


@pytest.mark.parametrize("function", LAZY)
def test_functions_that_do_nothing_when_they_are_called_are_refused(function: Callable[..., Any]) -> None:
    """A coroutine is true: as a check it would skip every block."""
    reason = "must be a plain function; calling an async or generator function runs nothing"
    for name in ("process_function", "check_function", "init_callback_fn"):
        refused(PlanError, f"task 'plane': {name} {reason}", **{name: function})
    refused(PlanError, f"task 'plane': check_function {reason}", check_function=(None, function))


@pytest.mark.parametrize("name", ["process_function", "check_function", "init_callback_fn"])
@pytest.mark.parametrize("value", ["process", 5, True, []])
def test_what_cannot_be_called_is_refused(name: str, value: object) -> None:
    refused(PlanError, f"task 'plane': {name} must be callable, got {value!r}", **{name: value})


def test_checks_come_before_and_after() -> None:
    pre, post = check, functools.partial(check)

    def checks(check_function: Any) -> tuple[object, object]:
        task = plane(check_function=check_function)
        return task.pre_check, task.post_check

    assert checks(None) == (None, None)
    assert checks(pre) == (pre, None)
    assert checks((pre, post)) == (pre, post)
    assert checks((None, post)) == (None, post)
    assert checks((pre, None)) == (pre, None)


def test_checks_are_two_at_most() -> None:
    message = "task 'plane': check_function is one function or (pre, post), got a tuple of 3"
    refused(PlanError, message, check_function=(print, print, print))
    refused(PlanError, "task 'plane': check_function must be callable, got 5", check_function=(print, 5))
