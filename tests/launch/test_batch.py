"""Many jobs with few calls, on a batch system in memory that can be silent, full, or lose what it should answer."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from blockflow import Slurm
from blockflow.errors import RunError
from blockflow.launch import batch, submitter
from blockflow.launch.base import JobEnd, Order, Standing
from blockflow.launch.batch import BatchFleet
from blockflow.launch.handover import read_handover
from blockflow.launch.queue import ENDED, Full, Phase, Rejected, Seen, Silence, Submission
from blockflow.launch.records import JobRecords, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from blockflow.launch.queue import Member


class Queue:
    """A batch system in memory."""

    name = "Slurm"

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.members: dict[Member, Seen] = {}
        self.runs: dict[str, str] = {}
        self.submissions: list[Submission] = []
        self.calls: list[str] = []
        self.most = 10**9
        """Jobs that it takes at once."""
        self.silent: set[str] = set()
        """Calls that are not answered."""
        self.rejects = False
        self.loses_answers = 0
        """So many submissions are taken, and not answered."""

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.silent:
            raise Silence("nobody is there")

    def submit(self, submission: Submission) -> str:
        with self.lock:
            self._called("submit")
            if self.rejects:
                raise Rejected("no such partition")
            if submission.count > self.most:
                raise Full("limit of jobs")
            self.submissions.append(submission)
            job = str(len(self.submissions))
            self.runs[job] = submission.run
            self.members.update({(job, index): Seen(Phase.WAITING, "PENDING") for index in range(submission.count)})
            if self.loses_answers:
                self.loses_answers -= 1
                raise Silence("timed out")
            return job

    def look(self, jobs: Sequence[str]) -> Mapping[Member, Seen]:
        with self.lock:
            self._called("look")
            return {member: seen for member, seen in self.members.items() if member[0] in jobs}

    def cancel(self, jobs: Collection[str | Member], *, waiting: bool = False, kill: bool = False) -> None:
        with self.lock:
            self._called("cancel")
            for member, seen in self.members.items():
                if (member in jobs or member[0] in jobs) and not (waiting and seen.phase is not Phase.WAITING):
                    self.members[member] = Seen(Phase.FAILED, "CANCELLED")

    def strays(self, run: str, known: Collection[str]) -> list[str]:
        with self.lock:
            self._called("strays")
            live = {job for (job, _), seen in self.members.items() if seen.phase not in ENDED}
            return [job for job, its in self.runs.items() if its == run and job in live and job not in known]

    def becomes(self, phase: Phase, *members: Member) -> None:
        with self.lock:
            for member in members or tuple(self.members):
                self.members[member] = Seen(phase, phase.name)

    def alive(self) -> list[Member]:
        with self.lock:
            return [member for member, seen in self.members.items() if seen.phase not in ENDED]


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def fleet(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchFleet]:
    """A fleet that is in a hurry; nothing is left in the queue, or of its files."""
    monkeypatch.setattr(batch, "GATHER_SECONDS", 0.15)  # far longer than it takes to give orders
    for name in ("FIRST_LOOK", "ENDING_LOOK", "CALL_OFF_SECONDS"):
        monkeypatch.setattr(batch, name, 0.01)
    monkeypatch.setattr(submitter, "FIRST_RETRY", 0.01)
    made = BatchFleet(queue, directory=tmp_path, run="r")
    yield made
    queue.silent.clear()
    made.stop(grace=0.0)
    assert not [path.name for path in tmp_path.iterdir() if path.suffix not in (".jobs", ".cancelled")]


def order(process: int, launcher: Slurm, task: str = "t") -> Order:
    payload = {"task": task, "functions": b"same for all", "process": process, "job_log": "/logs/job"}
    return Order(process=process, task=task, launcher=launcher, payload=payload)


def start(fleet: BatchFleet, count: int, launcher: Slurm | None = None, first: int = 0, task: str = "t") -> None:
    launcher = launcher or Slurm(poll=0.01)
    for process in range(first, first + count):
        fleet.start(order(process, launcher, task))


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def ends(fleet: BatchFleet, count: int) -> dict[int, JobEnd]:
    found: list[JobEnd] = []

    def enough() -> bool:
        found.extend(fleet.ended())
        return len(found) >= count

    wait_for(enough)
    return {end.process: end for end in found}


def submitted(queue: Queue, count: int) -> None:
    wait_for(lambda: sum(each.count for each in queue.submissions) == count)


# ------------------------------------------------------------------------------------------------------- submitting


def test_orders_that_come_together_are_one_submission(
    fleet: BatchFleet, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "GATHER_SECONDS", 1.0)  # a busy machine may stop in the middle of these
    start(fleet, 200)
    submitted(queue, 200)
    assert len(queue.submissions) == 1
    told = queue.submissions[0]
    assert (told.run, told.task, told.output, told.throttle) == ("r", "t", "/logs/job", None)
    assert [read_handover(told.payload, index)["process"] for index in (0, 7, 199)] == [0, 7, 199]
    assert read_handover(told.payload, 3)["functions"] == b"same for all"
    assert (tmp_path / told.payload).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / told.payload).stat().st_size < 20_000
    wait_for(lambda: "look" in queue.calls)  # which comes after what is written here
    assert read_records(tmp_path / "r.jobs").jobs == (("Slurm", "1"),)


def test_tasks_and_launchers_are_submitted_apart(fleet: BatchFleet, queue: Queue) -> None:
    one, other = Slurm(poll=0.01), Slurm(partition="p", poll=0.01)
    start(fleet, 3, one)
    start(fleet, 2, other, first=3)
    start(fleet, 4, one, first=5, task="u")
    submitted(queue, 9)
    assert sorted((each.task, each.count) for each in queue.submissions) == [("t", 2), ("t", 3), ("u", 4)]


def test_no_array_is_larger_than_clusters_take(fleet: BatchFleet, queue: Queue) -> None:
    start(fleet, 2500)
    submitted(queue, 2500)
    assert max(each.count for each in queue.submissions) <= submitter.MOST_IN_ARRAY


def test_without_arrays_each_worker_is_submitted_alone(fleet: BatchFleet, queue: Queue) -> None:
    start(fleet, 3, Slurm(array=False, poll=0.01))
    submitted(queue, 3)
    assert [each.count for each in queue.submissions] == [1, 1, 1]


def test_jobs_that_are_replaced_keep_to_the_throttle(fleet: BatchFleet, queue: Queue) -> None:
    launcher = Slurm(max_jobs=3, poll=0.01)
    start(fleet, 5, launcher)
    submitted(queue, 5)
    queue.becomes(Phase.RUNNING, ("1", 0), ("1", 1), ("1", 2))
    start(fleet, 2, launcher, first=5)
    submitted(queue, 7)
    assert [each.throttle for each in queue.submissions] == [3, 1]


def test_a_full_queue_gets_smaller_arrays(fleet: BatchFleet, queue: Queue) -> None:
    queue.most = 4
    start(fleet, 10)
    submitted(queue, 10)
    assert all(each.count <= 4 for each in queue.submissions)


def test_a_queue_that_is_full_for_a_while_is_asked_again(fleet: BatchFleet, queue: Queue) -> None:
    queue.most = 0
    start(fleet, 2)
    wait_for(lambda: queue.calls.count("submit") >= 4)
    queue.most = 10
    submitted(queue, 2)


def test_a_queue_that_takes_nothing_at_all_ends_the_run(fleet: BatchFleet, queue: Queue) -> None:
    queue.most = 0
    start(fleet, 2)
    with pytest.raises(RunError, match=r"Slurm takes no jobs, and has none of this run: limit of jobs; ask for fewer"):
        ends(fleet, 1)


def test_a_rejection_ends_the_run_and_all_its_jobs(fleet: BatchFleet, queue: Queue) -> None:
    start(fleet, 2)
    submitted(queue, 2)
    queue.rejects = True
    start(fleet, 2, first=2)
    with pytest.raises(RunError, match="no such partition"):
        ends(fleet, 3)
    fleet.stop(grace=0.0)
    assert queue.alive() == []


def test_jobs_whose_id_was_lost_are_ended_and_replaced(fleet: BatchFleet, queue: Queue, tmp_path: Path) -> None:
    queue.loses_answers = 1
    start(fleet, 3)
    submitted(queue, 6)
    wait_for(lambda: {member[0] for member in queue.alive()} == {"2"})
    assert ("Slurm", "1") in read_records(tmp_path / "r.jobs").jobs


def test_jobs_whose_id_was_lost_are_ended_at_the_end(fleet: BatchFleet, queue: Queue) -> None:
    queue.loses_answers = 1
    queue.silent = {"strays"}
    start(fleet, 3)
    wait_for(lambda: "strays" in queue.calls)
    queue.silent = set()
    fleet.stop(grace=0.0)
    assert queue.alive() == []


# ---------------------------------------------------------------------------------------------------------- looking


def test_how_jobs_end(fleet: BatchFleet, queue: Queue) -> None:
    start(fleet, 5)
    submitted(queue, 5)
    queue.becomes(Phase.EVICTED, ("1", 4))
    queue.becomes(Phase.DONE, ("1", 0))
    queue.becomes(Phase.FAILED, ("1", 1))
    queue.becomes(Phase.LOST, ("1", 2))
    with queue.lock:
        del queue.members["1", 3]
    found = ends(fleet, 5)
    assert {process: (end.code, end.certain) for process, end in found.items()} == {
        0: (0, True),
        1: (1, True),
        2: (1, False),
        3: (1, True),
        4: (1, True),
    }
    assert sorted(process for process, end in found.items() if end.lost) == [2, 4]
    assert found[1].how == "ended as Slurm job 1_1: FAILED"
    assert found[3].how == "ended as Slurm job 1_3: not in the queue any more"
    assert len(fleet) == 0


def test_silence_says_nothing_about_jobs(fleet: BatchFleet, queue: Queue) -> None:
    start(fleet, 2)
    submitted(queue, 2)
    queue.silent = {"look"}
    before = queue.calls.count("look")
    wait_for(lambda: queue.calls.count("look") > before + 3)
    assert fleet.ended() == []
    assert len(fleet) == 2
    queue.silent = set()
    queue.becomes(Phase.DONE)
    assert len(ends(fleet, 2)) == 2


def test_where_jobs_stand(fleet: BatchFleet, queue: Queue) -> None:
    start(fleet, 3)
    start(fleet, 1, first=3, task="u")
    submitted(queue, 4)
    queue.becomes(Phase.RUNNING, ("1", 0))
    wait_for(lambda: fleet.standing().get("t") == Standing(waiting=2, running=1, reason="PENDING"))
    assert fleet.standing()["u"].waiting == 1


def test_looks_are_seldom_while_nothing_changes(queue: Queue, tmp_path: Path) -> None:
    fleet = BatchFleet(queue, directory=tmp_path, run="r")
    start(fleet, 3, Slurm(poll=30.0))
    submitted(queue, 3)
    time.sleep(2.0)
    fewer = queue.calls.count("look")
    assert fewer <= 4
    queue.becomes(Phase.DONE)
    fleet.look()  # somebody has lost a connection
    assert len(ends(fleet, 3)) == 3
    fleet.stop(grace=0.0)


# ----------------------------------------------------------------------------------------------------------- ending


def test_what_is_not_needed_is_called_off_before_it_begins(fleet: BatchFleet, queue: Queue) -> None:
    start(fleet, 6)
    submitted(queue, 6)
    queue.becomes(Phase.RUNNING, ("1", 0), ("1", 1))
    wait_for(lambda: fleet.standing()["t"].running == 2)
    assert fleet.release([1, 5, 4, 3], 2) == 2
    assert fleet.release([1, 3, 5, 4], 2) == 2, "those that were called off count"
    found = ends(fleet, 2)
    assert {process: end.code for process, end in found.items()} == {4: 0, 5: 0}
    assert len(queue.alive()) == 4


def test_jobs_are_called_off_many_at_a_time(fleet: BatchFleet, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the end of a task every block that is done makes one job superfluous."""
    monkeypatch.setattr(batch, "CALL_OFF_SECONDS", 1000.0)
    start(fleet, 6)
    submitted(queue, 6)
    fleet.release([5], 1)
    wait_for(lambda: len(queue.alive()) == 5)
    looks = queue.calls.count("look")
    for most in (2, 3, 4):
        fleet.release([4, 3, 2, 1], most)
    wait_for(lambda: queue.calls.count("look") > looks + 3)
    assert queue.calls.count("cancel") == 1
    fleet.dismiss()
    wait_for(lambda: not queue.alive())
    assert queue.calls.count("cancel") == 2


def test_what_was_not_submitted_yet_is_just_forgotten(fleet: BatchFleet, queue: Queue) -> None:
    queue.silent = {"submit"}
    start(fleet, 3)
    wait_for(lambda: "submit" in queue.calls)
    assert fleet.release([0, 1, 2, 99], 4) == 3
    found = ends(fleet, 3)
    assert {end.how for end in found.values()} == {"was not needed"}
    assert len(fleet) == 0


def test_dismissed_fleets_wait_only_for_what_runs(fleet: BatchFleet, queue: Queue) -> None:
    start(fleet, 5)
    submitted(queue, 5)
    queue.becomes(Phase.RUNNING, ("1", 0))
    wait_for(lambda: fleet.standing()["t"].running == 1)
    fleet.dismiss()
    assert set(ends(fleet, 4)) == {1, 2, 3, 4}
    queue.becomes(Phase.DONE, ("1", 0))
    assert set(ends(fleet, 1)) == {0}


def test_stop_ends_everything_by_id(fleet: BatchFleet, queue: Queue, tmp_path: Path) -> None:
    start(fleet, 5)
    submitted(queue, 5)
    queue.becomes(Phase.RUNNING, ("1", 0))
    fleet.stop(grace=0.2)
    fleet.stop(grace=0.0)
    assert queue.alive() == []
    assert read_records(tmp_path / "r.jobs").jobs == ()
    assert len(fleet) == 0


def test_stop_without_a_job(fleet: BatchFleet, queue: Queue) -> None:
    fleet.stop(grace=0.0)
    assert queue.calls == []


def test_jobs_that_cannot_be_ended_are_named(
    fleet: BatchFleet,
    queue: Queue,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(fleet, 2)
    submitted(queue, 2)
    queue.silent = {"look", "cancel"}
    monkeypatch.setattr(batch, "UNENDABLE_SECONDS", 0.3)
    fleet.stop(grace=0.0)
    assert "Slurm jobs 1 could not be ended" in caplog.text
    assert read_records(tmp_path / "r.jobs").jobs == (("Slurm", "1"),)
    for left in tmp_path.glob("r.slurm-*"):
        left.unlink()


def test_a_run_that_is_cancelled_from_elsewhere_ends(fleet: BatchFleet, queue: Queue, tmp_path: Path) -> None:
    start(fleet, 2)
    submitted(queue, 2)
    (tmp_path / "r.cancelled").touch()
    with pytest.raises(RunError, match="run r was cancelled with `blockflow cancel`"):
        ends(fleet, 1)
    fleet.stop(grace=0.0)
    assert queue.alive() == []


def test_jobs_of_an_earlier_life_that_wait_are_called_off(fleet: BatchFleet, queue: Queue, tmp_path: Path) -> None:
    earlier = JobRecords(tmp_path, "r")
    earlier.submitted("Slurm", "1", task="t", count=2)
    earlier.submitted("Slurm", "7", task="t", count=2)
    earlier.over("Slurm", "7")
    (tmp_path / "r.cancelled").touch()
    queue.submit(Submission(launcher=Slurm(), run="r", task="t", payload="", output="", count=2, throttle=None))
    queue.becomes(Phase.RUNNING, ("1", 0))
    start(fleet, 1)
    submitted(queue, 3)
    assert queue.alive() == [("1", 0), ("2", 0)]
    fleet.stop(grace=0.0)
    assert queue.alive() == []
    assert read_records(tmp_path / "r.jobs").jobs == ()
