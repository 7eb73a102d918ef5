"""Workers on other hosts, and what becomes of their blocks when the network fails: none is lost, or at work twice.

No test waits for a time that depends on the machine: what happens is read from what block functions leave behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

import blockflow
from tests.cluster import network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.network import Host, Network

pytestmark = pytest.mark.cluster

ROOT = str(Path(blockflow.__file__).parents[1])

DRIVER = """
import json, os, sys, time
from blockflow import Command, Local, Roi, Task, run_blockwise

told = json.loads(sys.argv[1])

def work(block):
    # Says every few milliseconds that it is at work; on one host, which has to have a block, until it is let go on.
    name = f"{told['seen']}/{block.index}.{block.attempt}"
    slow = os.uname().nodename == told["slow"]
    if slow:
        open(f"{told['seen']}/slow", "w").close()
    while told["slow"] and not os.path.exists(f"{told['seen']}/slow"):
        time.sleep(0.02)
    end = time.monotonic() + told["seconds"]
    with open(f"{name}.at", "w", buffering=1) as file:
        file.write(os.uname().nodename + "\\n")
        while True:
            now = time.monotonic()
            file.write(f"{now}\\n")
            if os.path.exists(f"{told['seen']}/go") if slow else now >= end:
                break
            time.sleep(0.02 if slow else min(0.02, end - now))
    open(f"{name}.done", "w").close()

launcher = [Command(each + " {arguments}", 1) for each in told["launchers"]] or [Local(1)]
roi = Roi((0,), (10,))
task = Task("t", Roi((0,), (10 * told["blocks"],)), roi, roi, work, read_write_conflict=False, launcher=launcher)
result = run_blockwise([task], progress=False, summary=False, **told["options"])
print(json.dumps([bool(result), result["t"].completed_count]))
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    reason = network.missing()
    if reason is not None:
        pytest.skip(reason)
    with network.Network(3) as made:
        yield made


@pytest.fixture
def driver_host(net: Network) -> Host:
    return net.hosts[0]


class Run:
    """A driver on the first host, with workers on others."""

    def __init__(
        self,
        folder: Path,
        driver: Host,
        workers: list[Host],
        *,
        blocks: int,
        seconds: float,
        slow: Host | None = None,
        **options: Any,
    ) -> None:
        self.blocks = blocks
        self._seen = folder / "seen"
        self._seen.mkdir()
        self._home = folder / "home"
        self._home.mkdir()
        told = {
            "seen": str(self._seen),
            "launchers": [" ".join(host.enter) for host in workers],
            "blocks": blocks,
            "seconds": seconds,
            "slow": None if slow is None else slow.name,
            "options": {"host": driver.address, **options},
        }
        (folder / "driver.py").write_text(DRIVER)
        environment = {name: value for name, value in os.environ.items() if name != "DAISY_HOST"}
        self._process = subprocess.Popen(
            [*driver.enter, sys.executable, str(folder / "driver.py"), json.dumps(told)],
            cwd=self._home,
            env={**environment, "PYTHONPATH": ROOT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    def go_on(self) -> None:
        """Let blocks on the slow host come to their end."""
        (self._seen / "go").touch()

    def done(self) -> int:
        return len(list(self._seen.glob("*.done")))

    def under_way(self, host: Host) -> bool:
        """Whether a block is under way on a host."""
        return any(on == host.name and not done for on, _, done in self.attempts().values())

    def attempts(self) -> dict[tuple[int, int], tuple[str, list[float], bool]]:
        """By block and attempt: on which host it ran, when it was seen at work, and whether it came to its end."""
        found = {}
        for file in self._seen.glob("*.at"):
            index, attempt = file.stem.split(".")
            host, *times = file.read_text().splitlines() or [""]
            whole = [float(each) for each in times if each.partition(".")[2]]
            found[int(index), int(attempt)] = (host, whole, file.with_suffix(".done").exists())
        return found

    def ends_well(self) -> dict[tuple[int, int], tuple[str, list[float], bool]]:
        """All blocks were done, and none was at work twice at any time; returns all attempts."""
        out, err = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, err
        assert json.loads(out) == [True, self.blocks]
        attempts = self.attempts()
        assert {index for (index, _), (_, _, done) in attempts.items() if done} == set(range(self.blocks))
        for (index, attempt), (_, times, _) in attempts.items():
            others = [times for (i, a), (_, times, _) in attempts.items() if i == index and a > attempt]
            for later in others:
                assert not times or not later or times[-1] < later[0], "a block was at work twice at a time"
        return attempts

    def logs(self) -> str:
        return "".join(file.read_text() for file in self._home.glob("daisy_logs/t/*.err"))

    def invitation(self) -> str:
        words = [sys.executable, "-m", "blockflow", "invite", str(self._home), "--task", "t"]
        return subprocess.run(
            words, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, text=True, check=True
        ).stdout

    @property
    def home(self) -> Path:
        """The directory of the driver."""
        return self._home


def free_port(host: Host) -> int:
    """A port of a host that nobody uses."""
    script = f"import socket; print(socket.create_server(({host.address!r}, 0)).getsockname()[1])"
    return int(subprocess.run([*host.enter, sys.executable, "-c", script], capture_output=True, check=True).stdout)


# ------------------------------------------------------------------------------------------------------- all is well


@pytest.mark.parametrize("kind", ["IPv4", "IPv6", "all"])
def test_workers_on_other_hosts(net: Network, driver_host: Host, tmp_path: Path, kind: str) -> None:
    host = {"IPv4": driver_host.address, "IPv6": driver_host.address_6, "all": "::"}[kind]
    options: dict[str, Any] = {"host": host}
    if kind == "all":
        options |= {"port": "21000-21010", "advertise": f"nowhere.invalid,[{driver_host.address_6}],10.213.77.1"}
    with Run(tmp_path, driver_host, net.hosts[1:], blocks=20, seconds=0.05, **options) as run:
        attempts = run.ends_well()
    assert {on for on, _, _ in attempts.values()} <= {"host2", "host3"}
    assert len(attempts) == 20


def test_a_delay_of_50_ms(net: Network, driver_host: Host, tmp_path: Path) -> None:
    port, target = free_port(driver_host), free_port(driver_host)
    words = [sys.executable, network.__file__, "relay", driver_host.address, str(port), str(target), "0.05"]
    relay = subprocess.Popen([*driver_host.enter, *words], stdout=subprocess.PIPE)
    try:
        assert relay.stdout is not None
        assert relay.stdout.readline() == b"ready\n"
        options: dict[str, Any] = {"port": target, "advertise": f"{driver_host.address}:{port}"}
        with Run(tmp_path, driver_host, net.hosts[1:], blocks=100, seconds=0.0, **options) as run:
            assert len(run.ends_well()) == 100
    finally:
        relay.kill()
        relay.communicate()


def test_a_host_that_sees_no_file_of_the_run_is_invited(net: Network, driver_host: Host, tmp_path: Path) -> None:
    host = net.hosts[2]
    with Run(tmp_path, driver_host, [], blocks=20, seconds=0.0, slow=driver_host) as run:
        run.wait(lambda: run.under_way(driver_host))
        hidden = f'mount -t tmpfs none "{run.home}" && test -z "$(ls -A "{run.home}")" && exec "$@"'
        worker = [sys.executable, "-m", "blockflow", "worker"]
        guest = subprocess.Popen(
            [*host.enter, "unshare", "--mount", "sh", "-c", f"{run.invitation()}\n{hidden}", "x", *worker],
            cwd="/",
            env={**os.environ, "PYTHONPATH": ROOT},
            stderr=subprocess.PIPE,
            text=True,
        )
        run.wait(lambda: run.done() == 19 or guest.poll() is not None)
        run.go_on()
        _, said = guest.communicate(timeout=120)
        assert guest.returncode == 0, said
        attempts = run.ends_well()
    assert {on for on, _, _ in attempts.values()} == {driver_host.name, host.name}


# ----------------------------------------------------------------------------------------------- the network fails


def test_a_cable_that_is_put_back_costs_nothing(net: Network, driver_host: Host, tmp_path: Path) -> None:
    victim = net.hosts[2]
    with Run(tmp_path, driver_host, net.hosts[1:], blocks=50, seconds=0.2) as run:
        run.wait(lambda: run.under_way(victim))
        net.pull(victim)
        try:
            time.sleep(3.0)
        finally:
            net.put_back(victim)
        assert len(run.ends_well()) == 50, "a block was run twice"


@contextlib.contextmanager
def pulled(net: Network, driver: Host, victim: Host) -> Iterator[None]:
    net.pull(victim)
    try:
        yield
    finally:
        net.put_back(victim)


@contextlib.contextmanager
def deaf(net: Network, driver: Host, victim: Host) -> Iterator[None]:
    driver.lose_way_to(victim)
    try:
        yield
    finally:
        driver.find_way_to(victim)


@contextlib.contextmanager
def dumb(net: Network, driver: Host, victim: Host) -> Iterator[None]:
    victim.lose_way_to(driver)
    try:
        yield
    finally:
        victim.find_way_to(driver)


@pytest.mark.parametrize("fault", [pulled, deaf, dumb])
def test_a_host_that_is_cut_off_loses_its_block(
    net: Network, driver_host: Host, tmp_path: Path, fault: Callable[..., Any]
) -> None:
    """It ends its worker before others have the block, whichever direction was cut."""
    victim = net.hosts[2]
    with Run(tmp_path, driver_host, net.hosts[1:], blocks=6, seconds=0.1, slow=victim, lease_seconds=2) as run:
        run.wait(lambda: run.under_way(victim))
        with fault(net, driver_host, victim):
            run.wait(lambda: run.done() == 6)
            assert "the driver has not answered for 2 s" in run.logs()
        attempts = run.ends_well()
    assert not any(done for on, _, done in attempts.values() if on == victim.name)


def test_a_worker_that_waits_on_a_host_that_is_cut_off_ends(net: Network, driver_host: Host, tmp_path: Path) -> None:
    """It holds nothing, and nobody tells it that its connection is of no use."""
    other, victim = net.hosts[1:]
    with Run(tmp_path, driver_host, [other], blocks=2, seconds=0.0, slow=other, lease_seconds=2) as run:
        run.wait(lambda: run.under_way(other))
        guest = subprocess.Popen(
            [*victim.enter, sys.executable, "-m", "blockflow", "worker", str(run.home)],
            env={**os.environ, "PYTHONPATH": ROOT},
            stderr=subprocess.PIPE,
            text=True,
        )
        run.wait(lambda: run.done() == 1)
        with pulled(net, driver_host, victim):
            _, said = guest.communicate(timeout=120)
            assert guest.returncode == 1
            assert "the connection to the driver is lost (nothing was answered for" in said
            run.go_on()
            attempts = run.ends_well()
    assert {on for on, _, _ in attempts.values()} == {other.name, victim.name}
