"""A private Slurm cluster on this machine, for as long as a test session: every daemon is real, every node virtual.

It needs Debian's packages slurmctld, slurmd, slurm-client and munge, and uses nothing of their configuration: all
files are in one directory, all ports are free ones of 127.0.0.1, and all daemons are ended by their process ids.

    python slurm_cluster.py DIRECTORY      starts one, says how to use it, and stops it at the end of standard input
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")

_SEARCHED = "/usr/sbin:/usr/bin:/sbin:/bin"

CONFIGURATION = """\
ClusterName=blockflow
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={directory}/munge.socket,cred_expire=5
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.%n.log
# Nothing of the machine is taken charge of: no control groups, no binding to CPUs, no accounting.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobContainerType=job_container/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
MailProg=/bin/true
PropagateResourceLimits=NONE
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
# Everything happens soon: jobs start, dead nodes are noticed, killed jobs die.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,bf_resolution=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PriorityType=priority/basic
ReturnToService=2
KillWait=2
SlurmdTimeout=3
SlurmctldTimeout=30
MessageTimeout=10
UnkillableStepTimeout=10
MinJobAge={min_job_age}
MaxJobCount=20000
MaxArraySize=10001
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=n[1-{count}] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=0
PartitionName=short Nodes=n[1-{count}] MaxTime=1 State=UP PriorityTier=1
PartitionName=urgent Nodes=n[1-{count}] MaxTime=INFINITE State=UP PriorityTier=10
"""


def missing() -> str | None:
    """What keeps a cluster from being started here; None if nothing does."""
    if sys.platform != "linux":
        return "Slurm runs on Linux"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


class SlurmCluster:
    """A cluster in a directory; use it in a ``with``."""

    def __init__(self, directory: Path, *, nodes: int = 3, cpus: int = 4, min_job_age: int = 600) -> None:
        self.directory = directory
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self._cpus = cpus
        self._min_job_age = min_job_age
        self._own = dict(os.environ)
        """The environment of the daemons, whatever becomes of that of this process."""

    @property
    def environment(self) -> dict[str, str]:
        """What commands of this cluster need in their environment."""
        return {"SLURM_CONF": str(self.directory / "slurm.conf"), "PATH": _path()}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def call(self, *words: str, check: bool = True, timeout: float = 30.0) -> str:
        """Run a command of Slurm; returns what it prints."""
        done = subprocess.run(
            words,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr}{done.stdout}")
        return done.stdout

    def queue(self) -> list[str]:
        """Jobs that have not ended, each as "id index state"."""
        return self.call("squeue", "--noheader", "--array", "--format=%F %K %T").splitlines()

    def start_controller(self) -> None:
        """Start the daemon that owns the queue; what it knew is still there."""
        self._daemon("slurmctld", "-f", self.environment["SLURM_CONF"])

    def stop_controller(self) -> None:
        """End the daemon that owns the queue: nobody answers."""
        _end(self._pid("slurmctld.pid"), signal.SIGTERM)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        (self.directory / f"spool.{node}").mkdir(exist_ok=True)
        self._daemon("slurmd", "-f", self.environment["SLURM_CONF"], "-N", node)

    def kill_node(self, node: str) -> None:
        """End a node as a power cut does: its daemon, its jobs and all that they have started, without a word."""
        doomed = [self._pid(f"slurmd.{node}.pid"), *self._steps_of(node)]
        for pid in _with_children([pid for pid in doomed if pid is not None]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _start(self) -> None:
        (self.directory / "state").mkdir(parents=True)
        self.directory.chmod(0o755)
        key = self.directory / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        ports = _free_ports(len(self.nodes) + 1)
        lines = [
            f"NodeName={node} NodeHostname={_host()} NodeAddr=127.0.0.1 Port={port} CPUs={self._cpus} RealMemory=4000 "
            "State=UNKNOWN"
            for node, port in zip(self.nodes, ports[1:], strict=True)
        ]
        (self.directory / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=_host(),
                port=ports[0],
                user=getpass.getuser(),
                directory=self.directory,
                nodes="\n".join(lines),
                count=len(self.nodes),
                min_job_age=self._min_job_age,
            )
        )
        (self.directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # it starts where none is mounted
        here = self.directory
        self._daemon(
            "munged",
            "--force",  # it does not like directories for temporary files
            f"--key-file={key}",
            f"--socket={here}/munge.socket",
            f"--pid-file={here}/munged.pid",
            f"--log-file={here}/munged.log",
            f"--seed-file={here}/munged.seed",
        )
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.wait(lambda: self._idle() == len(self.nodes), "the nodes to be idle")

    def _stop(self) -> None:
        with contextlib.suppress(Exception):
            self.call("scancel", f"--user={getpass.getuser()}", "--full", check=False, timeout=10.0)
            self.wait(lambda: not self.queue(), "the queue to be empty", seconds=10.0)
        # A node's daemon that outlives the controller reports to it for ever.
        for name in (*(f"slurmd.{node}.pid" for node in self.nodes), "slurmctld.pid", "munged.pid"):
            _end(self._pid(name), signal.SIGTERM)
        for node in self.nodes:
            for pid in _with_children(self._steps_of(node)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for {what}")
            time.sleep(0.05)

    def _idle(self) -> int:
        return self.call("sinfo", "-h", "-N", "-p", "main", "-o", "%t", check=False).split().count("idle")

    def _daemon(self, *words: str) -> None:
        """Start a daemon; it puts itself into the background."""
        with open(self.directory / "daemons.log", "a") as log:
            program = shutil.which(words[0], path=_path())
            subprocess.run(
                [program or words[0], *words[1:]], check=True, stdout=log, stderr=log, env=self._own, timeout=30
            )

    def _pid(self, name: str) -> int | None:
        try:
            return int((self.directory / name).read_text())
        except (OSError, ValueError):
            return None

    def _steps_of(self, node: str) -> list[int]:
        """The processes that watch over a node's jobs; each holds the node's log open."""
        log = str(self.directory / f"slurmd.{node}.log")
        found = []
        for pid in _processes():
            with contextlib.suppress(OSError):
                if "slurmstepd" in Path(f"/proc/{pid}/cmdline").read_text():
                    opened = [os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
                    if log in opened:
                        found.append(pid)
        return found


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{_SEARCHED}"


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _with_children(pids: list[int]) -> list[int]:
    """Processes and all that they have started, as far as those are still theirs."""
    children: dict[int, list[int]] = {}
    for pid in _processes():
        with contextlib.suppress(OSError, IndexError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
    found = list(pids)
    for pid in found:
        found += children.get(pid, [])
    return found


def _end(pid: int | None, how: signal.Signals) -> None:
    """End a process, and wait until it is gone."""
    if pid is None:
        return
    deadline = time.monotonic() + 10.0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Start a cluster, and stop it at the end of standard input."""
    with SlurmCluster(Path(sys.argv[1]).resolve()) as cluster:
        for name, value in cluster.environment.items():
            print(f"export {name}={value}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
