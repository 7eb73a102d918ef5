"""Workers of a user's own making: scripts with a Client, their context, and their output."""

from __future__ import annotations

import ast
import os
import selectors
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import blockflow
from blockflow import Block, BlockStatus, Client, Context, RunResult
from blockflow.launch.shared import THREADS
from blockflow.logging import get_worker_log_basename, redirect_stdouterr, set_log_basedir
from blockflow.net.connection_file import read_connection
from blockflow.worker import _may_hold_unwritten
from tests.run.scene import run, task_of, wait_for


def script(folder: Path, text: str) -> Path:
    """A worker script; it finds the package under test."""
    path = folder.parent / "worker_of_a_user.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(blockflow.__file__).parents[1])!r})\n" + textwrap.dedent(text)
    )
    return path


def calls(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


ALL = ["0", "1", "2", "3"]

WORKER = """
import os, pathlib
from blockflow import Client

client = Client()
while True:
    with client.acquire_block() as block:
        if block is None:
            break
        pathlib.Path("seen", str(block.index)).write_text(f"{client.task_id} {client.worker_id} {block.attempt}")
"""


# --------------------------------------------------------------------------------------------------------- clients


def test_a_function_without_argument_is_the_worker(folder: Path) -> None:
    def work() -> None:
        client = Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    break
                assert block.status is BlockStatus.PROCESSING
                (folder / str(block.index)).write_text(f"{client.task_id} {client.worker_id}")
        with client.acquire_block() as block:
            assert block is None  # and again
        client.close()
        client.close()

    assert run(task_of(work, num_workers=2))
    assert calls(folder) == ALL
    assert {(folder / name).read_text() for name in ALL} <= {"t 0", "t 1"}


def test_a_script_started_by_the_function(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    path = script(folder, WORKER)
    assert run(task_of(lambda: subprocess.run([sys.executable, str(path)], check=True), num_workers=2))
    assert calls(folder) == ALL


def test_a_script_that_another_shell_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    path = script(folder, WORKER)
    assert run(task_of(lambda: os.system(f"{sys.executable} {path} && true") and None))
    assert calls(folder) == ALL


def test_a_context_can_be_handed_on_by_hand(folder: Path) -> None:
    def work() -> None:
        context = Context.from_env()
        del os.environ[Context.ENV_VARIABLE]
        client = Client(context)
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                (folder / str(block.index)).touch()

    assert run(task_of(work))
    assert calls(folder) == ALL


def test_workers_find_their_run_under_what_it_advertises(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address refuses, and the second one is told with the port on which the run listens."""
    monkeypatch.setenv("BLOCKFLOW_HOST", "0.0.0.0")
    monkeypatch.setenv("BLOCKFLOW_PORT", "20000-30000")
    monkeypatch.setenv("BLOCKFLOW_ADVERTISE", "127.0.0.1:1, localhost")

    def work(block: Block) -> None:
        first = read_connection(Context.from_env()["connection"])
        (folder / repr(first.addresses)).touch()

    assert run(task_of(work, 1))
    (addresses,) = folder.iterdir()
    refused, told = ast.literal_eval(addresses.name)
    assert refused == ("127.0.0.1", 1)
    assert told[0] == "localhost"
    assert 20000 <= told[1] <= 30000


def test_the_context_says_what_a_worker_needs(folder: Path, logs: Path) -> None:
    def process(block: Block) -> None:
        context = Context.from_env()
        text = "\n".join(f"{key} {context[key]}" for key in context)
        (folder / f"{block.task_id} {block.index}").write_text(text)

    contexts: list[Context] = []
    assert run(task_of(process, blocks=1, name="a b=c:ü", init_callback_fn=contexts.append))
    said = dict(line.split(" ", 1) for line in (folder / "a b=c:ü 0").read_text().splitlines())
    assert list(said) == ["hostname", "port", "task_id", "logdir", "connection", "worker_id"]
    assert (said["hostname"], said["task_id"], said["worker_id"]) == ("127.0.0.1", "a b=c:ü", "0")
    assert Path(said["logdir"]) == logs
    (context,) = contexts
    assert "worker_id" not in context
    assert context["port"] == said["port"]
    assert context["connection"] == said["connection"]


def test_every_way_out_of_a_with(folder: Path) -> None:
    """Normally: done. With an exception, or FAILED: failed, and the loop goes on. Early: given back."""

    def work() -> None:
        client = Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                with (folder / str(block.index)).open("a") as file:
                    file.write("x")
                    file.flush()
                    calls = file.tell()
                if calls > 1 or block.index == 0:
                    continue
                if block.index == 1:
                    raise ValueError("first time")
                if block.index == 2:
                    block.status = BlockStatus.FAILED
                if block.index == 3:
                    raise KeyboardInterrupt

    result = run(task_of(work, max_retries=1))
    assert result
    assert [(folder / name).read_text() for name in ALL] == ["x", "xx", "xx", "xx"]


def test_a_script_that_exits_in_a_block_has_failed_it(folder: Path) -> None:
    """Else its block would go from process to process for ever."""

    def work() -> None:
        client = Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                if block.index == 1:
                    (folder / str(os.getpid())).touch()
                    sys.exit("no such array")

    result = run(task_of(work, max_retries=1))
    assert [block.index for block in result.failed_blocks["t"]] == [1]
    assert result["t"].completed_count == 3
    assert result.causes[0].error == "SystemExit: no such array"
    assert len(calls(folder)) == 2


def test_a_script_that_ends_after_some_blocks_is_started_again(folder: Path) -> None:
    """To free memory, for example."""

    def work() -> None:
        client = Client()
        for _ in range(2):
            with client.acquire_block() as block:
                if block is None:
                    return
                (folder / f"{block.index}").write_text(str(os.getpid()))

    assert run(task_of(work, blocks=6))
    assert len(calls(folder)) == 6
    assert len({(folder / name).read_text() for name in calls(folder)}) == 3


def test_two_clients_in_one_process(folder: Path) -> None:
    def work() -> None:
        one, other = Client(), Client()
        for client in (one, other, one, other, one, other):
            with client.acquire_block() as block:
                if block is not None:
                    (folder / f"{block.index}").touch()

    assert run(task_of(work))
    assert calls(folder) == ALL


# ------------------------------------------------------------------------------------- scripts that cannot work


def fails(path: Path, environment: dict[str, str], folder: Path) -> str:
    """Run a script that has to fail; what it says."""
    ended = subprocess.run(
        [sys.executable, str(path)],
        env=environment,
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert calls(folder) == []
    return ended.stderr


def environment(**context: str) -> dict[str, str]:
    return os.environ | {Context.ENV_VARIABLE: Context(**context).to_env()}


def test_a_script_without_context_says_so(folder: Path) -> None:
    path = script(folder, WORKER)
    bare = {key: value for key, value in os.environ.items() if key != Context.ENV_VARIABLE}
    said = fails(path, bare, folder)
    assert (
        "this process has no context (DAISY_CONTEXT is not set): a worker script is started by the process_function"
        in said
    )


@pytest.mark.parametrize("text", ["", "{", "hostname=a:port=3", "[1]", '{"task_id": 3}'])
def test_a_script_with_a_damaged_context_says_so(text: str, folder: Path) -> None:
    said = fails(script(folder, WORKER), os.environ | {Context.ENV_VARIABLE: text}, folder)
    assert "DAISY_CONTEXT is no context" in said


@pytest.mark.parametrize(
    "context",
    [
        {"connection": "/nowhere"},
        {"task_id": "t"},
        {"hostname": "localhost", "port": "5", "task_id": "t"},
        {"connection": "/nowhere", "task_id": "t", "worker_id": "first"},
    ],
)
def test_a_script_with_a_context_that_lacks_something_says_so(context: dict[str, str], folder: Path) -> None:
    said = fails(script(folder, WORKER), environment(**context), folder)
    assert "ConnectionFileError: the context " in said


def test_a_script_with_the_context_of_no_run_says_so(folder: Path) -> None:
    said = fails(script(folder, WORKER), environment(connection="/nowhere/x.connection", task_id="t"), folder)
    assert "there is no connection file /nowhere/x.connection: this context belongs to a run that is long over" in said


def test_a_script_that_comes_when_its_run_is_over_ends_well(folder: Path) -> None:
    contexts: list[Context] = []
    assert run(task_of(lambda block: None, init_callback_fn=contexts.append))
    path = script(folder, WORKER)
    left = os.environ | {Context.ENV_VARIABLE: contexts[0].to_env()}
    ended = subprocess.run([sys.executable, str(path)], env=left, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert calls(folder) == []


def test_a_client_that_has_not_asked_when_its_run_ends_ends_well(folder: Path) -> None:
    """The driver closes the connection, but all is well."""
    path = script(
        folder,
        """
        import pathlib, time
        from blockflow import Client

        client = Client()
        pathlib.Path("seen", "joined").touch()
        while not pathlib.Path("seen", "over").exists():
            time.sleep(0.005)
        with client.acquire_block() as block:
            assert block is None
        """,
    )
    started: list[subprocess.Popen[bytes]] = []

    def start(context: Context) -> None:
        left = os.environ | {Context.ENV_VARIABLE: context.to_env()}
        started.append(
            subprocess.Popen([sys.executable, str(path)], env=left, cwd=folder.parent, stderr=subprocess.PIPE)
        )

    def process(block: Block) -> None:
        wait_for((folder / "joined").exists)

    assert run(task_of(process, init_callback_fn=start))
    (folder / "over").touch()
    _, said = started[0].communicate(timeout=30)
    assert (started[0].returncode, said) == (0, b"")


# ---------------------------------------------------------------------------------------------------------- output


def test_output_is_in_the_logs_while_a_worker_works(folder: Path, logs: Path) -> None:
    def process(block: Block) -> None:
        print("to out", block.index)
        print("to err", block.index, file=sys.stderr)
        subprocess.run(["sh", "-c", "echo from a child"], check=True)
        wait_for((folder / "go").exists)

    results: list[RunResult] = []
    thread = threading.Thread(target=lambda: results.append(run(task_of(process, blocks=1))))
    thread.start()
    try:
        out, err = logs / "t" / "worker_0.out", logs / "t" / "worker_0.err"
        wait_for(lambda: out.exists() and out.read_text() == "to out 0\nfrom a child\n")
        wait_for(lambda: err.exists() and err.read_text() == "to err 0\n")
    finally:
        (folder / "go").touch()
        thread.join(30)
    assert results[0]


def test_a_failure_in_the_log_names_its_block_and_attempt(logs: Path) -> None:
    def process(block: Block) -> None:
        if block.index == 1:
            raise ValueError("look here")

    run(task_of(process, max_retries=1))
    written = (logs / "t" / "worker_0.err").read_text()
    assert written.count("block ('t', 1), attempt ") == 2
    assert written.count("ValueError: look here") == 2


def test_without_a_directory_of_logs_output_goes_to_the_console(capfd: pytest.CaptureFixture[str], logs: Path) -> None:
    set_log_basedir(None)
    assert get_worker_log_basename(0, "t") is None
    assert run(task_of(lambda block: print("to the console", block.index), blocks=1))
    assert capfd.readouterr().out == "to the console 0\n"
    assert not logs.exists()


def test_a_worker_can_move_its_output(folder: Path, logs: Path) -> None:
    def process(block: Block) -> None:
        redirect_stdouterr(folder / "mine")
        print("moved")
        os.system("echo as well")

    assert run(task_of(process, blocks=1))
    assert (folder / "mine.out").read_text() == "moved\nas well\n"
    assert (logs / "t" / "worker_0.out").read_text() == ""


# ---------------------------------------------------------------------------------------------- what a worker sees


def test_a_worker_looks_like_its_driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same directory, same path, same environment; standard input is empty."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend("/made/up")

    def process(block: Block) -> None:
        Path("seen").write_text(
            repr((os.getcwd(), sys.path, os.environ["PYTHONPATH"], os.environ["OMP_NUM_THREADS"], sys.stdin.read()))
        )

    assert run(task_of(process, blocks=1))
    path = [entry or os.getcwd() for entry in sys.path]
    assert (folder / "seen").read_text() == repr((str(folder), path, "/somewhere", "1", ""))


def test_a_file_that_user_code_leaves_open_is_written_in_full(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_with_a_file.py").write_text("file = open('kept.txt', 'w')\nnote = file.write\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(folder)

    def process(block: Block) -> None:
        import module_with_a_file  # type: ignore[import-not-found]

        module_with_a_file.note("x")

    assert run(task_of(process))
    assert Path("kept.txt").read_text() == "xxxx"


def test_what_waits_in_a_pipe_that_user_code_leaves_open_arrives(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "cat.sh").write_text(f"cat > {folder}/arrived.draft && mv {folder}/arrived.draft {folder}/arrived")

    def process(block: Block) -> None:
        import subprocess

        child = subprocess.Popen(["sh", str(tmp_path / "cat.sh")], stdin=subprocess.PIPE, start_new_session=True)
        assert child.stdin is not None
        child.stdin.write(b"x")
        vars(sys)["child of a test"] = child  # so that it stays open to the end

    assert run(task_of(process, blocks=1))
    wait_for((folder / "arrived").exists)
    assert (folder / "arrived").read_text() == "x"


def test_only_files_that_may_be_written_to_make_an_end_slow(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    near, far = socket.socketpair()
    reads, writes = os.pipe()
    with (
        near,
        far,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connection,
        selectors.DefaultSelector() as selector,
        (tmp_path / "file").open("rb") as reader,
        (tmp_path / "file").open("ab") as writer,
        open(os.devnull, "wb") as null,
        open(reads, "rb"),
        open(writes, "wb"),
    ):
        folder = os.open(tmp_path, os.O_RDONLY)
        quick = [near.fileno(), selector.fileno(), reader.fileno(), folder]
        slow = [connection.fileno(), server.fileno(), writer.fileno(), null.fileno(), writes]
        assert [descriptor for descriptor in quick if _may_hold_unwritten(descriptor)] == []
        assert [descriptor for descriptor in slow if not _may_hold_unwritten(descriptor)] == []
        os.close(folder)
        assert not _may_hold_unwritten(folder)


def test_workers_draw_different_numbers(tmp_path: Path, folder: Path) -> None:
    """Even if what draws them was imported before they were forked."""

    def process(block: Block) -> None:
        from numpy.random import random

        assert "zarr" in sys.modules, "which its name in here has brought about"
        (folder / f"{block.index}").write_text(str(random()))
        wait_for((folder / f"{1 - (block.index or 0)}").exists)  # so that there are two workers

    assert run(task_of(process, blocks=2, num_workers=2))
    assert len({(folder / name).read_text() for name in ("0", "1")}) == 2


def test_workers_share_the_processors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)

    def process(block: Block) -> None:
        (folder / "threads").write_text(os.environ["OMP_NUM_THREADS"])

    assert run(task_of(process, blocks=1, num_workers=10**6))
    assert (folder / "threads").read_text() == "1"


def test_threads_and_exit_functions_of_user_code_end_first(folder: Path) -> None:
    def process(block: Block) -> None:
        import atexit

        atexit.register((folder / "exit").touch)
        threading.Timer(0.1, (folder / "thread").touch).start()

    assert run(task_of(process, blocks=1))
    assert calls(folder) == ["exit", "thread"]


def test_a_worker_loads_little(folder: Path) -> None:
    """Start-up time is paid for every worker, and zarr or numpy may not be what the user's code needs."""

    def process(block: Block) -> None:
        (folder / "modules").write_text("\n".join(sys.modules))

    assert run(task_of(process, blocks=1))
    loaded = set((folder / "modules").read_text().splitlines())
    assert "blockflow.worker" in loaded or "__main__" in loaded
    for name in ("zarr", "tornado", "numpy", "cryptography", "asyncio", "funlib.geometry", "tqdm"):
        assert name not in loaded
