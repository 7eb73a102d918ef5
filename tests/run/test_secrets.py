"""The key of a run is where it has to be, and in nothing that is shown or left behind."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blockflow import Client, Context, Roi, Task, run_blockwise
from blockflow.errors import ConnectionFileError
from blockflow.launch.invitation import invite
from blockflow.logging import get_log_basedir, set_log_basedir
from blockflow.net.context import INVITATION, WORK
from blockflow.secret import Secret
from tests.run.scene import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARK = "PRIVATE KEY"
NOTHING = "-----BEGIN PRIVATE KEY-----\nnothing of it\n"


def test_a_secret_is_not_shown() -> None:
    secret = Secret(NOTHING)
    shown = [repr(secret), str(secret), f"{secret}", f"{[secret]} {({'key': secret},)}", repr(ValueError(secret))]
    shown += [f"{secret!r}", str(logging.LogRecord("x", 1, "x", 1, "%s", (secret,), None).getMessage())]
    assert not [text for text in shown if MARK in text]
    assert secret.reveal() == NOTHING


def test_a_secret_can_be_sent_and_compared() -> None:
    secret = Secret(NOTHING)
    assert pickle.loads(pickle.dumps(secret)) == secret
    assert secret != Secret("another")
    assert secret != NOTHING
    with pytest.raises(TypeError):
        hash(secret)


@pytest.mark.parametrize("key", [INVITATION, WORK])
def test_a_context_shows_no_secrets_and_hands_them_on(key: str) -> None:
    context = Context(task_id="t", **{key: NOTHING})
    context.copy()[key] = NOTHING
    shown = [repr(context), str(context), str(dict(context._values)), str(context[key]), str(context.get(key))]
    shown += [str({name: context[name] for name in context}), repr(context.copy())]
    assert not [text for text in shown if MARK in text]
    assert Context.from_text(context.to_env()) == context
    assert context.copy().reveal(key) == context.reveal(key) == NOTHING
    assert context.reveal("task_id") == "t"


@pytest.mark.parametrize("text", ["", "{", '["PRIVATE KEY"]', '{"invitation": 3, "x": "PRIVATE KEY"}', "PRIVATE KEY"])
def test_a_damaged_context_is_not_repeated(text: str) -> None:
    with pytest.raises(ConnectionFileError, match="DAISY_CONTEXT is no context") as raised:
        Context.from_text(text)
    assert MARK not in str(raised.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = get_log_basedir()
    monkeypatch.chdir(tmp_path)
    set_log_basedir("daisy_logs")
    yield tmp_path
    set_log_basedir(before)


def scripts(invitation: str) -> dict[str, tuple[str, str]]:
    """Contexts that are cut or incomplete, and what a script does with them."""
    values = json.loads(invitation)
    client = "import blockflow; blockflow.Client()"
    return {
        "cut by one character": (invitation[:-1], client),
        "cut in the middle": (invitation[: len(invitation) // 2], client),
        "without a task": (json.dumps({key: value for key, value in values.items() if key != "task_id"}), client),
        "without work": (json.dumps({**values, WORK: "x"}), "from blockflow.cli import main; main(['worker'])"),
        "with a damaged key": (json.dumps({**values, INVITATION: values[INVITATION][:-300]}), client),
        "printed": (invitation, "import blockflow; c = blockflow.Client(); print(c.context); c.close(); 1 / 0"),
    }


def test_the_key_is_in_nothing_that_a_failing_run_leaves_behind(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def fails(block: Any) -> None:
        import sys
        import time
        from pathlib import Path

        while not Path(str(here), "go").exists():
            time.sleep(0.01)
        print(sys.argv)
        raise ValueError("a bad block")

    whole, one = Roi((0,), (4,)), Roi((0,), (1,))
    task = Task("t", whole, one, one, fails, read_write_conflict=False, max_retries=0, num_workers=1)
    results: list[Any] = []
    run = threading.Thread(target=lambda: results.append(run_blockwise(task, host="127.0.0.1", run_dir="run")))
    run.start()
    wait_for(lambda: list(here.glob("run/connection/*.task-0")), 60)
    said = invite(here / "run", "t")
    key = next(here.glob("run/connection/*.connection")).read_text().splitlines()[3]
    invitation = subprocess.run(
        ["sh", "-c", said + '\nprintf %s "$DAISY_CONTEXT"'], capture_output=True, text=True, check=True
    ).stdout
    assert key in Context.from_text(invitation).reveal(INVITATION)
    lines = [path.read_bytes() for path in pids("cmdline")]
    shown = {}
    for name, (context, script) in scripts(invitation).items():
        environment = {**os.environ, Context.ENV_VARIABLE: context}
        words = [sys.executable, "-c", script]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
        shown[name] = done.stdout + done.stderr
        assert shown[name], f"{name}: says nothing"
    (here / "go").touch()
    run.join()
    (result,) = results
    captured = capfd.readouterr()
    shown |= {"result": f"{result!r} {result.causes!r} {result.problems}", "out": captured.out, "err": captured.err}
    left = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert not [name for name, text in shown.items() if MARK in text or key in text]
    assert not [path for path, data in left.items() if MARK.encode() in data or key.encode() in data]
    assert not [line for line in lines if MARK.encode() in line or key.encode() in line]
    with pytest.raises(ConnectionFileError):
        Client(Context(task_id="t"))


def pids(name: str) -> list[Path]:
    """A file of each process."""
    from pathlib import Path

    return [file for file in Path("/proc").glob(f"[0-9]*/{name}") if file.exists()]
