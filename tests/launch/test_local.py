"""Worker processes of this machine: are they started, told apart, and ended, whatever happens to them?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from blockflow.errors import RunError
from blockflow.launch.local import Exit, LocalLauncher
from blockflow.place import is_dead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 30.0


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


class Scene:
    """A launcher, and a folder where its processes leave notes. Task n runs the n-th function."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launcher = LocalLauncher()
        self.ends: list[Exit] = []

    def load(self, *functions: Callable[[], Any]) -> None:
        self.launcher.load({task: cloudpickle.dumps((function, None, None)) for task, function in enumerate(functions)})

    def start(self, process: int, task: int = 0) -> None:
        payload = {
            "task": "t",
            "log": str(self.folder / f"log_{process}"),
            "adds": False,
            "takes_block": False,
            "directory": str(self.folder),
            "path": sys.path,
            "environment": {"NUMBER": str(process)},
            "python_path": None,
        }
        self.launcher.start(process, task, cloudpickle.dumps(payload))

    def run(self, *functions: Callable[[], Any]) -> dict[int, str]:
        """Run each function in a process of its own; how they ended, by number."""
        self.load(*functions)
        for task in range(len(functions)):
            self.start(task, task)
        self.until_ended(len(functions))
        return {end.process: end.how for end in self.ends}

    def until_ended(self, number: int) -> None:
        def enough() -> bool:
            self.ends += self.launcher.ended()
            return len(self.ends) >= number

        until(enough)

    def until_noted(self, name: str) -> str:
        until(lambda: (self.folder / name).exists() and (self.folder / name).read_text())
        return (self.folder / name).read_text()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.launcher.stop(grace=0.0)
    assert len(made.launcher) == 0


def note(name: str) -> None:
    """Leave this process's id, in one piece."""
    Path(f".{name}").write_text(str(os.getpid()))
    Path(f".{name}").rename(name)


def wait_for(name: str) -> None:
    while not Path(name).exists():
        time.sleep(0.002)


def test_how_processes_end_in_words(scene: Scene) -> None:
    def of(code: int) -> Callable[[], None]:
        return lambda: os._exit(code)

    def fail() -> None:
        raise ValueError("mine")

    def kill(number: int) -> Callable[[], None]:
        return lambda: os.kill(os.getpid(), number)

    ends = scene.run(lambda: None, of(3), lambda: sys.exit("no"), fail, kill(9), kill(15), kill(11), kill(36))
    assert ends == {
        0: "ended with code 0",
        1: "ended with code 3",
        2: "ended with code 1",
        3: "ended with code 1",
        4: "was killed by SIGKILL",
        5: "was killed by SIGTERM",
        6: "was killed by SIGSEGV",
        7: "ended with code -36",  # a signal without a name
    }
    assert "ValueError: mine" in (scene.folder / "log_3.err").read_text()
    assert len(scene.launcher) == 0


def test_ends_are_reported_in_the_order_in_which_they_came(scene: Scene) -> None:
    scene.load(lambda: wait_for(f"end {os.environ['NUMBER']}"))
    for process in range(3):
        scene.start(process)
    assert len(scene.launcher) == 3
    for place, process in enumerate((1, 2, 0)):
        (scene.folder / f"end {process}").touch()
        scene.until_ended(place + 1)
    assert [end.process for end in scene.ends] == [1, 2, 0]


def test_each_process_leads_a_session_and_sees_its_task(scene: Scene) -> None:
    def tell() -> None:
        Path(f"seen {os.environ['NUMBER']}").write_text(f"{os.getsid(0) == os.getpid()} {sys.stdin.read()!r}")

    def other() -> None:
        Path("other").write_text("x")

    assert set(scene.run(tell, other).values()) == {"ended with code 0"}
    assert (scene.folder / "seen 0").read_text() == "True ''"
    assert (scene.folder / "other").exists()


def test_large_functions_are_sent_once_and_shared(scene: Scene) -> None:
    """Orders are small: the one who gives them waits for nobody, however large the values in a closure are."""
    large = bytes(20_000_000)
    scene.load(lambda: note(f"{os.environ['NUMBER']} {len(large)}"))
    forge = scene.launcher._forge
    assert forge is not None
    os.kill(forge.pid, signal.SIGSTOP)  # nobody reads
    try:
        for process in range(4):
            scene.start(process)
    finally:
        os.kill(forge.pid, signal.SIGCONT)
    scene.until_ended(4)
    assert {end.how for end in scene.ends} == {"ended with code 0"}
    assert all((scene.folder / f"{process} 20000000").exists() for process in range(4))


def test_the_next_forge_has_the_functions_too(scene: Scene) -> None:
    scene.load(lambda: note("first"), lambda: note("second"))
    forge = scene.launcher._forge
    assert forge is not None
    forge.kill()
    forge.wait()
    scene.start(0, task=1)
    scene.until_ended(1)
    assert scene.ends[0].how == "ended with code 0"
    assert (scene.folder / "second").exists()


def test_what_a_killed_forge_has_not_started_is_reported_as_ended(scene: Scene) -> None:
    scene.load(lambda: None)
    forge = scene.launcher._forge
    assert forge is not None
    os.kill(forge.pid, signal.SIGSTOP)
    scene.start(0)
    forge.kill()
    scene.until_ended(1)
    assert (scene.ends[0].process, scene.ends[0].code == 0) == (0, False)


def test_workers_whose_forge_was_killed_are_still_watched(scene: Scene) -> None:
    def work() -> None:
        note("pid")
        wait_for("end")

    scene.load(work)
    scene.start(0)
    scene.until_noted("pid")
    forge = scene.launcher._forge
    assert forge is not None
    forge.kill()
    forge.wait()
    assert scene.launcher.ended() == []
    assert len(scene.launcher) == 1
    (scene.folder / "end").touch()
    scene.until_ended(1)
    assert scene.ends[0].process == 0


def test_an_interpreter_that_cannot_run_is_an_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    large = bytes(2_000_000)  # more than a pipe holds, so that it is noticed at once
    with pytest.raises(RunError, match=r"no worker can be started: /bin/false -m blockflow\.worker ends at once"):
        scene.load(lambda: large)


def test_stop_asks_first(scene: Scene) -> None:
    def polite() -> None:
        def leave(number: int, frame: Any) -> None:
            note("asked")
            os._exit(0)

        signal.signal(signal.SIGTERM, leave)
        note("pid")
        wait_for("never")

    scene.load(polite)
    scene.start(0)
    scene.until_noted("pid")
    scene.launcher.stop(grace=PATIENCE)
    assert [end.how for end in scene.launcher.ended()] == ["ended with code 0"]
    assert (scene.folder / "asked").exists()


def test_stop_ends_a_forge_that_is_stopped_and_says_so(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """It would never start what it was asked for."""
    scene.load(lambda: None)
    forge = scene.launcher._forge
    assert forge is not None
    os.kill(forge.pid, signal.SIGSTOP)
    scene.start(0)
    scene.launcher.stop(grace=0.1)
    assert forge.poll() == -signal.SIGKILL
    assert len(scene.launcher) == 0
    assert f"process {forge.pid}, which starts workers, did not react" in caplog.text


def test_stop_kills_who_does_not_listen(scene: Scene) -> None:
    def deaf() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note("pid")
        wait_for("never")

    scene.load(deaf)
    scene.start(0)
    pid = int(scene.until_noted("pid"))
    scene.launcher.stop(grace=0.1)
    assert [end.how for end in scene.launcher.ended()] == ["was killed by SIGKILL"]
    assert is_dead(pid)
    scene.launcher.stop(grace=0.1)  # does nothing the second time


def test_stop_ends_what_workers_have_left_behind(scene: Scene) -> None:
    def leave() -> None:
        child = subprocess.Popen(["sleep", "600"])
        Path(".child").write_text(str(child.pid))
        Path(".child").rename("child")
        os._exit(0)

    scene.load(leave)
    scene.start(0)
    scene.until_ended(1)
    child = int(scene.until_noted("child"))
    assert not is_dead(child)
    scene.launcher.stop(grace=5.0)
    assert is_dead(child)


def test_stopping_what_was_never_started_does_nothing() -> None:
    launcher = LocalLauncher()
    launcher.stop(grace=0.0)
    assert launcher.ended() == []
