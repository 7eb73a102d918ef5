"""Stand-ins for bsub, bjobs and bkill, after IBM's documentation of their options and output.

No LSF can be installed here. Each job is a process of this machine, and a file says how far it has come. Jobs wait
while all slots are taken. Written from the command reference of LSF 10.1: bsub (arrays ``name[1-n]%slots``, the script
on standard input, "Job <id> is submitted to queue <name>."), bjobs (-noheader, -o with a delimiter, "Job <id> is not
found"), bkill (array members as ``id[index]``, -s, -stat, "Job <id> is being terminated").
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

SLOTS = 4
ENDED = ("DONE", "EXIT")


def main(program: str, words: list[str]) -> int:
    if (_here() / "down").exists():
        sys.stderr.write("LSF is down. Please wait ...\n")
        return 255
    with open(_here() / "lock", "w") as lock:
        flock(lock, LOCK_EX)
        path = _here() / "jobs.json"
        jobs: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        _collect(jobs)
        code = {"bsub": _bsub, "bjobs": _bjobs, "bkill": _bkill}[program](words, jobs)
        _start(jobs)
        path.write_text(json.dumps(jobs))
    return code


def _here() -> Path:
    """Where the state is."""
    return Path(os.environ["LSF_STANDIN"])


def _bsub(words: list[str], jobs: list[dict[str, Any]]) -> int:
    options: dict[str, str] = {}
    while words:
        name = words.pop(0)
        options[name] = "" if name == "-rn" else words.pop(0)
    queue = options.get("-q", "normal")
    if queue == "nope":
        sys.stderr.write(f"{queue}: No such queue. Job not submitted.\n")
        return 255
    found = re.fullmatch(r"([^\[\]]+)(?:\[1-(\d+)\](?:%(\d+))?)?", options["-J"])
    assert found is not None, options
    job = max((each["job"] for each in jobs), default=929) + 1
    script = _here() / f"{job}.sh"
    script.write_text(sys.stdin.read())
    for index in range(1, int(found[2]) + 1) if found[2] else [0]:
        output = options["-o"].replace("%J", str(job)).replace("%I", str(index))
        told = {"job": job, "index": index, "state": "PEND", "said": "-", "pid": 0, "output": output}
        jobs.append({**told, "most": int(found[3] or 10**6), "description": options["-Jd"], "directory": os.getcwd()})
    which = "default queue" if "-q" not in options else "queue"
    sys.stdout.write(f"Job <{job}> is submitted to {which} <{queue}>.\n")
    return 0


def _bjobs(words: list[str], jobs: list[dict[str, Any]]) -> int:
    everything = "-a" in words
    fields = words[words.index("-o") + 1]
    asked = [word for word in words if word.isdecimal()]
    missing = False
    for name in asked:
        if not any(str(job["job"]) == name for job in jobs):
            sys.stderr.write(f"Job <{name}> is not found\n")
            missing = True
    for job in jobs:
        if (str(job["job"]) in asked or not asked) and (everything or job["state"] not in ENDED):
            if "job_description" in fields:
                sys.stdout.write(f"{job['job']}|{job['description']}\n")
            else:
                sys.stdout.write(f"{job['job']}|{job['index']}|{job['state']}|{job['said']}\n")
    return 255 if missing else 0


def _bkill(words: list[str], jobs: list[dict[str, Any]]) -> int:
    waiting = words[:2] == ["-stat", "pend"]
    kill = "KILL" in words
    code = 255
    for name in (word for word in words if word[0].isdecimal()):
        found = re.fullmatch(r"(\d+)(?:\[(\d+)\])?", name)
        assert found is not None, name
        for job in jobs:
            if str(job["job"]) != found[1] or (found[2] and str(job["index"]) != found[2]) or job["state"] in ENDED:
                continue
            if job["state"] == "PEND":
                job["state"], job["said"] = "EXIT", "TERM_OWNER: job killed by owner"
            elif not waiting:
                job["said"] = "TERM_OWNER: job killed by owner"
                for sign in [signal.SIGKILL] if kill else [signal.SIGINT, signal.SIGTERM]:
                    os.killpg(job["pid"], sign)
            code = 0
        sys.stdout.write(
            f"Job <{name}> is being terminated\n" if code == 0 else f"Job <{name}>: No matching job found\n"
        )
    return code


def _start(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        running = [each for each in jobs if each["state"] == "RUN"]
        beside = sum(each["job"] == job["job"] for each in running)
        if job["state"] != "PEND" or len(running) >= SLOTS or beside >= job["most"]:
            continue
        environment = {**os.environ, "LSB_JOBID": str(job["job"]), "LSB_JOBINDEX": str(job["index"])}
        code = _here() / f"{job['job']}.{job['index']}.code"
        shell = f"bash {_here() / str(job['job'])}.sh; echo $? > {code}"
        with open(job["output"], "ab") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"trap : INT TERM; {shell}"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True,
                cwd=job["directory"],
            )  # fmt: skip
        job["pid"], job["state"] = process.pid, "RUN"


def _collect(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        if job["state"] != "RUN":
            continue
        code = _here() / f"{job['job']}.{job['index']}.code"
        if code.exists() and code.read_text().strip():
            ended = code.read_text().strip() == "0"
        elif _is_gone(job["pid"]):
            ended = False
        else:
            continue
        job["state"] = "DONE" if ended else "EXIT"


def _is_gone(pid: int) -> bool:
    time.sleep(0)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[0]).name, sys.argv[1:]))
