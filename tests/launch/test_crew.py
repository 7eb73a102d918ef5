"""Does a crew start what is asked for, say which ended and how, and leave nothing behind?"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blockflow import LSF, Command, Context, Local, Roi, Slurm, Task
from blockflow.launch.crew import Crew
from blockflow.launch.local import LocalLauncher
from blockflow.launch.payload import pack_functions
from blockflow.net.connection_file import Connection, private_directory, write_connection
from blockflow.plan.plan import compile_plan
from blockflow.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from blockflow.scheduler.events import ProcessEnded

PATIENCE = 30.0


class Scene:
    """Makes crews, and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connection: Connection = write_connection(
            private_directory(folder / "private"), "run", (), Secret(""), socket="run.socket"
        )
        self.crews: list[Crew] = []

    def crew(self, *tasks: Task, logs: bool = True) -> Crew:
        crew = crew_of(tasks, LocalLauncher(), logs=self.folder / "logs" if logs else None)
        self.crews.append(crew)
        crew.open(self.connection)
        return crew

    def ends(self, crew: Crew, number: int) -> list[ProcessEnded]:
        found: list[ProcessEnded] = []
        deadline = time.monotonic() + PATIENCE
        while len(found) < number:
            assert time.monotonic() < deadline, "waited in vain"
            found += crew.ended()
            time.sleep(0.002)
        return found


def crew_of(tasks: Iterable[Task], launcher: LocalLauncher, *, logs: Path | None) -> Crew:
    crew = Crew(compile_plan(tasks), launcher, [pack_functions(task) for task in tasks], logs=logs)
    crew.load()
    return crew


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.chdir(tmp_path)
    made = Scene(tmp_path)
    yield made
    for crew in made.crews:
        crew.stop(grace=0.0)
        assert len(crew) == 0


def task_of(function: Callable[..., Any] | None, name: str = "t", **more: Any) -> Task:
    roi = Roi((0,), (10,))
    return Task(name, roi, roi, roi, function, **more)


def tell() -> None:
    context = Context.from_env()
    print(context["task_id"], context["worker_id"])


def test_processes_work_for_their_task_and_their_ends_are_told_with_their_logs(scene: Scene) -> None:
    def fail() -> None:
        tell()
        os._exit(3)

    crew = scene.crew(task_of(tell, "good", num_workers=2), task_of(fail, "bad"))
    crew.start(0, 0)
    crew.start(1, 1)
    crew.start(2, 0)
    ends = {end.process: end for end in scene.ends(crew, 3)}
    logs = scene.folder / "logs"
    assert {process: (end.task, end.clean) for process, end in ends.items()} == {
        0: (0, True),
        1: (1, False),
        2: (0, True),
    }
    assert ends[1].how == f"ended with code 3; it last printed: bad 1 (see {logs}/bad/worker_1.out)"
    assert ends[1].output == "bad 1"
    assert (logs / "good" / "worker_0.out").read_text() == "good 0\n"
    assert (logs / "good" / "worker_2.out").read_text() == "good 2\n"
    assert crew.ended() == []


def test_a_process_that_ended_makes_room_for_another(scene: Scene) -> None:
    crew = scene.crew(task_of(lambda: os.kill(os.getpid(), signal.SIGKILL), num_workers=1))
    for process in range(2):
        crew.start(process, 0)
        (end,) = scene.ends(crew, 1)
        assert (end.process, end.clean) == (process, False)
        assert end.how == "was killed by SIGKILL", "no log is named that holds nothing"


def test_more_processes_than_a_task_asked_for_come_from_its_last_launcher(scene: Scene) -> None:
    crew = scene.crew(task_of(tell, launcher=[Local(1), Command("env VIA=command {arguments}", 1)]))
    for process in range(4):
        crew.start(process, 0)
    scene.ends(crew, 4)
    assert len(list((scene.folder / "logs/t").glob("job-*.log"))) == 3


def test_jobs_that_are_too_many_are_called_off_newest_first(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    fleets: dict[str, Waiting] = {}

    def make_fleet(launcher: Any, **more: object) -> Any:
        return fleets.setdefault(type(launcher).__name__, Waiting())

    monkeypatch.setattr("blockflow.launch.fleets.make_fleet", make_fleet)
    crew = scene.crew(task_of(tell, launcher=[Slurm(3), LSF(4)]))
    for process in range(7):
        crew.start(process, 0)
    fleets["LSF"].waiting -= {5, 6}  # they have begun
    crew.trim(0, 7)
    assert (fleets["Slurm"].released, fleets["LSF"].released) == ([], [])
    for _ in range(2):
        crew.trim(0, 4)
        assert (fleets["Slurm"].released, fleets["LSF"].released) == ([2], [4, 3])


class Waiting:
    """A fleet whose jobs wait."""

    def __init__(self) -> None:
        self.waiting: set[int] = set()
        self.released: list[int] = []

    def __len__(self) -> int:
        return 0

    def start(self, order: Any) -> None:
        self.waiting.add(order.process)

    def release(self, processes: Sequence[int], most: int) -> int:
        called_off = [process for process in processes if process in self.waiting][:most]
        self.released += [process for process in called_off if process not in self.released]
        return len(called_off)

    def dismiss(self) -> None:
        pass

    def kill(self) -> None:
        self.stop(grace=0.0)

    def stop(self, *, grace: float) -> None:
        pass


def test_without_logs_ends_name_none(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    crew = scene.crew(task_of(tell), logs=False)
    crew.start(0, 0)
    (end,) = scene.ends(crew, 1)
    assert end.how == "ended with code 0"
    assert capfd.readouterr().out == "t 0\n"


def test_logs_stay_where_they_were_when_the_directory_changes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    crew = crew_of([task_of(tell)], LocalLauncher(), logs=Path("relative"))
    scene.crews.append(crew)
    crew.open(scene.connection)
    monkeypatch.chdir("/")
    crew.start(0, 0)
    scene.ends(crew, 1)
    assert (scene.folder / "relative" / "t" / "worker_0.out").read_text() == "t 0\n"


def test_what_workers_and_callbacks_are_told(scene: Scene) -> None:
    contexts: list[Context] = []
    crew = scene.crew(task_of(tell, "a"), task_of(tell, "b", init_callback_fn=contexts.append))
    crew.begin(0)
    assert contexts == []
    crew.begin(1)
    assert contexts == [crew.context(None, 1)]
    context = crew.context(7, 1)
    assert (context["task_id"], context["worker_id"], context["connection"]) == ("b", "7", scene.connection.path)
    assert context["logdir"] == str(scene.folder / "logs")


def test_stop_ends_all_and_may_be_called_again(scene: Scene) -> None:
    """Right after they were ordered: some may not lead their session yet, and are asked a little later."""
    crew = scene.crew(task_of(lambda: time.sleep(600), num_workers=3))
    for process in range(3):
        crew.start(process, 0)
    assert len(crew) == 3
    crew.stop(grace=5.0)
    assert len(crew) == 0
    ended = crew.ended()
    assert {end.process for end in ended} == {0, 1, 2}
    assert all("was killed by SIGTERM" in end.how for end in ended), "nobody had to be killed"
    crew.stop(grace=5.0)


def test_only_tasks_that_run_here_need_a_process_that_makes_workers(scene: Scene) -> None:
    launcher = LocalLauncher()
    elsewhere = task_of(tell, launcher=Command("nice {arguments}", 1))
    crew = crew_of([elsewhere], launcher, logs=None)
    assert launcher._forge is None
    crew.open(scene.connection)
    crew.stop(grace=0.0)
    assert launcher._forge is None
