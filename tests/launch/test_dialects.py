"""What is said to Slurm and LSF, word for word, and what their answers mean."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow import LSF, Slurm
from blockflow.launch import lsf_script, slurm_script
from blockflow.launch.queue import Full, Phase, Rejected, Silence, Submission, marked_jobs
from tests.launch.goldens import check

if TYPE_CHECKING:
    from pathlib import Path

    from blockflow.launch.dialects import Dialect

ODD = """ü 'x' "y" $HOME %A; [1-3]`&\\"""


def submission(launcher: Any, **more: Any) -> Submission:
    told: dict[str, Any] = {
        "run": "0123456789abcdef",
        "task": "smooth",
        "payload": "/data/logs/.runs/0123456789abcdef.slurm-1",
        "output": "/data/logs/smooth/job",
        "count": 50,
        "throttle": None,
    }
    return Submission(launcher=launcher, **{**told, **more})


def text_of(dialect: Dialect, asked: Submission) -> str:
    script = dialect.submit_script(asked, python="/opt/my env/bin/python", path="/home/me/block flow")
    return "\n".join(dialect.submit_words(asked)) + "\n----\n" + script


CASES = {
    "slurm-plain": submission(Slurm()),
    "slurm-all": submission(
        Slurm(
            50,
            partition="gpu",
            account="lab",
            qos="long",
            gpus="a100:2",
            cpus=4,
            memory="32G",
            time="8:00:00",
            max_jobs=20,
            setup="module load cuda\nexport A='b c'\n",
            extra=["--constraint=zen4", "--nice"],
        ),
        throttle=20,
    ),
    "slurm-single-without-step": submission(Slurm(array=False, step=False, gpus=1, time="1-00", notice=300), count=1),
    "slurm-short": submission(Slurm(time="0:05:00", memory="1.5G"), count=3),
    "slurm-odd": submission(Slurm(partition="ü x"), task=ODD, payload=f"/data/{ODD}/p", output=f"/data/{ODD}/job"),
    "lsf-plain": submission(LSF()),
    "lsf-all": submission(
        LSF(
            50,
            queue="gpu",
            project="lab",
            gpus="NVIDIAA100:2",
            cpus=4,
            memory="32G",
            time=timedelta(hours=8),
            max_jobs=20,
            setup="module load cuda",
            extra=["-R", "select[avx512]"],
        ),
        throttle=20,
    ),
    "lsf-single": submission(LSF(array=False, gpus=1, time="0:05:00"), count=1),
    "lsf-odd": submission(LSF(queue="ü x"), task=ODD, payload=f"/data/{ODD}/p", output=f"/data/{ODD}/job"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_submitted(name: str) -> None:
    check(f"{name}.txt", text_of(slurm_script if name.startswith("slurm") else lsf_script, CASES[name]))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.text(min_size=1).filter(str.isprintable))
def test_the_script_is_shell_that_hands_over_every_path_as_it_is(payload: str, python: str) -> None:
    asked = submission(Slurm(step=False), payload=payload)
    script = slurm_script.submit_script(asked, python=python, path=None)
    words = shlex.split(script.splitlines()[-1])
    assert words == ["exec", python, "-P", "-m", "blockflow.launch.job", payload, "$SLURM_ARRAY_TASK_ID"]


def test_a_shell_runs_the_script(tmp_path: Path) -> None:
    program = tmp_path / "odd 'python\""
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$PYTHONPATH"\n')
    program.chmod(0o755)
    for dialect, launcher, variable in (
        (slurm_script, Slurm(step=False), {"SLURM_ARRAY_TASK_ID": "7"}),
        (lsf_script, LSF(), {"LSB_JOBINDEX": "8"}),
    ):
        script = dialect.submit_script(submission(launcher, payload=ODD), python=str(program), path="/a b")
        environment = {**os.environ, "PYTHONPATH": "/known", **variable}
        done = subprocess.run(
            ["bash"], input=script, env=environment, capture_output=True, text=True, check=True, timeout=20
        )
        assert done.stdout.splitlines() == ["-P", "-m", "blockflow.launch.job", ODD, "7", "/a b:/known"]


# --------------------------------------------------------------------------------------------------- other commands


def test_slurm_is_asked_for_all_jobs_at_once() -> None:
    assert slurm_script.look_words(["12", "13"]) == [
        "squeue", "--noheader", "--array", "--states=all", "--format=%F|%K|%T|%r", "--jobs=12,13",
    ]  # fmt: skip
    assert slurm_script.cancel_words(["12", ("13", 4)], waiting=False, kill=False) == [
        "scancel", "--quiet", "12", "13_4",
    ]  # fmt: skip
    assert "--state=PENDING" in slurm_script.cancel_words(["12"], waiting=True, kill=False)
    assert "--signal=KILL" in slurm_script.cancel_words(["12"], waiting=False, kill=True)


def test_lsf_is_asked_for_all_jobs_at_once() -> None:
    assert lsf_script.look_words(["12", "13"]) == [
        "bjobs", "-a", "-noheader", "-o", "jobid jobindex stat exit_reason delimiter='|'", "12", "13",
    ]  # fmt: skip
    assert lsf_script.cancel_words(["12", ("13", 4)], waiting=False, kill=False) == ["bkill", "12", "13[5]"]
    assert lsf_script.cancel_words(["12"], waiting=True, kill=False) == ["bkill", "-stat", "pend", "12"]
    assert lsf_script.cancel_words(["12"], waiting=False, kill=True) == ["bkill", "-s", "KILL", "12"]


@pytest.mark.parametrize(
    ("launcher", "notice"),
    [(Slurm(), 0), (Slurm(time="0:09:00"), 0), (Slurm(time="0:10:00"), 60), (Slurm(notice=5), 5), (Slurm(notice=0), 0)],
)
def test_when_slurm_tells_that_the_time_is_up(launcher: Slurm, notice: int) -> None:
    assert slurm_script.notice_of(launcher) == notice
    words = slurm_script.submit_words(submission(launcher))
    assert [word for word in words if word.startswith("--signal")] == ([f"--signal=TERM@{notice}"] if notice else [])


# ---------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("text", ["4711\n", "4711;cluster\n", "warning: something\n4711\n"])
def test_the_id_of_a_slurm_job(text: str) -> None:
    assert slurm_script.parse_submitted(text) == "4711"


@pytest.mark.parametrize("text", ["", "Submitted batch job", "47x11"])
def test_an_answer_without_an_id_leaves_it_open(text: str) -> None:
    with pytest.raises(Silence, match="does not say which id"):
        slurm_script.parse_submitted(text)
    with pytest.raises(Silence, match="does not say which id"):
        lsf_script.parse_submitted(text)


def test_what_squeue_says() -> None:
    text = "\n".join(
        [
            "CLUSTER: one",
            "12|3|RUNNING|None",
            "12|4|PENDING|JobArrayTaskLimit",
            "12|5-6,9%2|PENDING|Resources",
            "12|0|COMPLETED|None",
            "12|1|FAILED|NonZeroExitCode",
            "12|2|TIMEOUT|TimeLimit",
            "12|7|NODE_FAIL|None",
            "12|8|COMPLETING|None",
            "12|10|PREEMPTED|None",
            "12|N/A|CANCELLED|None",
            "13|N/A|SPECIAL_EXIT|a | in it",
            "nonsense",
            "",
        ]
    )
    seen = slurm_script.parse_looked(text)
    assert {index: value.phase for (job, index), value in seen.items() if job == "12"} == {
        0: Phase.DONE,
        1: Phase.FAILED,
        2: Phase.FAILED,
        3: Phase.RUNNING,
        4: Phase.WAITING,
        5: Phase.WAITING,
        6: Phase.WAITING,
        7: Phase.LOST,
        8: Phase.RUNNING,
        9: Phase.WAITING,
        10: Phase.EVICTED,
    }
    assert seen["13", 0].said == "SPECIAL_EXIT (a | in it)"
    assert seen["12", 3].said == "RUNNING"


def test_what_is_left_of_a_cancelled_array_is_not_its_first_member() -> None:
    seen = slurm_script.parse_looked("12|N/A|CANCELLED|None\n12|0|RUNNING|None\n")
    assert seen["12", 0].phase is Phase.RUNNING


def test_what_bjobs_says() -> None:
    text = "930|1|RUN|-\n930|2|PEND|-\n930|3|DONE|-\n930|4|EXIT|TERM_OWNER: job killed by owner\n931|0|UNKWN|-\nx|y|z\n"
    text += "930|5|EXIT|TERM_PREEMPT: job killed after preemption\n"
    seen = lsf_script.parse_looked(text)
    assert {member: value.phase for member, value in seen.items()} == {
        ("930", 0): Phase.RUNNING,
        ("930", 1): Phase.WAITING,
        ("930", 2): Phase.DONE,
        ("930", 3): Phase.FAILED,
        ("930", 4): Phase.EVICTED,
        ("931", 0): Phase.LOST,
    }
    assert seen["930", 3].said == "EXIT (TERM_OWNER: job killed by owner)"


@given(st.text(), st.sampled_from([slurm_script, lsf_script]))
def test_any_answer_can_be_read(text: str, dialect: Dialect) -> None:
    for member, seen in dialect.parse_looked(text).items():
        assert re.fullmatch(r"\d+", member[0])
        assert isinstance(seen.phase, Phase)
    marked_jobs(text, "r", ())
    assert isinstance(dialect.complaint(text, words=["x"]), Silence | Full | Rejected)


def test_jobs_that_nobody_knows_of() -> None:
    text = "12|blockflow run abc\n12|blockflow run abc\n13|blockflow run other\n14|blockflow run abc\n15|\nx\n"
    assert marked_jobs(text, "abc", ["14"]) == ["12"]
    assert marked_jobs(text, "abc", []) == ["12", "14"]


@pytest.mark.parametrize(
    ("dialect", "said", "kind"),
    [
        (slurm_script, "sbatch: error: Batch job submission failed: Unable to contact slurm controller", Silence),
        (slurm_script, "slurm_load_jobs error: Socket timed out on send/recv operation", Silence),
        (slurm_script, "Slurm temporarily unable to accept job, sleeping and retrying", Full),
        (slurm_script, "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", Full),
        (slurm_script, "sbatch: error: invalid partition specified: nope", Rejected),
        (slurm_script, "", Rejected),
        (lsf_script, "LSF is down. Please wait ...", Silence),
        (lsf_script, "Pending job threshold reached. Retrying in 60 seconds...", Full),
        (lsf_script, "nope: No such queue. Job not submitted.", Rejected),
    ],
)
def test_what_a_complaint_means(dialect: Dialect, said: str, kind: type) -> None:
    complaint = dialect.complaint(said, words=["sbatch", "--parsable", "--partition=nope"])
    assert type(complaint) is kind
    assert said in str(complaint)


def test_a_rejection_says_what_was_asked_for() -> None:
    complaint = slurm_script.complaint("error: no\nsuch thing\n", words=["sbatch", "--parsable", "--partition=nope"])
    assert str(complaint) == (
        "Slurm does not take the jobs: error: no / such thing. It was asked for --partition=nope; change the arguments "
        "of Slurm(...) to what `sinfo` and your site's documentation offer"
    )


def test_which_jobs_are_unknown() -> None:
    assert slurm_script.is_unknown_job("slurm_load_jobs error: Invalid job id specified")
    assert not slurm_script.is_unknown_job("slurm_load_jobs error: Unable to contact slurm controller")
    assert lsf_script.is_unknown_job("Job <999> is not found")
    assert lsf_script.is_unknown_job("No unfinished job found")
    assert not lsf_script.is_unknown_job("LSF is down. Please wait ...")
