"""A small network on this machine: hosts with names and addresses of their own, and cables that can be pulled.

Each host is a network namespace in which a process sleeps, plugged into a switch in another one; nothing of the
machine's own network is touched, and all is gone when those processes are. It needs ``ip`` (iproute2), ``nsenter`` and
``unshare`` (util-linux), and the rights to make namespaces.

    python network.py relay ADDRESS PORT TARGET SECONDS     passes on connections, and delays every byte by some seconds
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from typing import Self

_PREFIX = "10.213.77"
_WRONG = "02:00:00:00:00:99"
"""A hardware address that no host has."""


def missing() -> str | None:
    """What keeps a network from being made here; None if nothing does."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    absent = [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    tried = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "ip", "link", "add", "type", "veth"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces can be made: {tried.stderr.strip()}" if tried.returncode else None


class Host:
    """A host; its first network card is plugged into the switch."""

    def __init__(self, number: int) -> None:
        self.name = f"host{number}"
        self.address = f"{_PREFIX}.{number}"
        self.address_6 = f"fd77::{number}"
        self._number = number
        self._process = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", 'hostname "$0" && echo ready && exec sleep infinity', self.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self.ip("link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """A process that is there."""
        return self._process.pid

    @property
    def enter(self) -> list[str]:
        """The words before a command that make it run there."""
        spaces = f"/proc/{self.pid}/ns"
        return ["nsenter", f"--net={spaces}/net", f"--uts={spaces}/uts"]

    def ip(self, *words: str) -> None:
        """Change something of its network."""
        subprocess.run([*self.enter, "ip", *words], check=True, capture_output=True, text=True)

    def plug(self, switch: Host) -> None:
        """Plug it into a switch."""
        switch.ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        switch.ip("link", "set", self.name, "master", "bridge0", "up")
        self.ip("address", "add", f"{self.address}/24", "dev", "eth0")
        with contextlib.suppress(subprocess.CalledProcessError):  # a kernel without IPv6
            self.ip("address", "add", f"{self.address_6}/64", "dev", "eth0", "nodad")
        self.ip("link", "set", "eth0", "up")

    def lose_way_to(self, other: Host) -> None:
        """What it sends to another host arrives nowhere, and nobody is told; what that one sends still comes."""
        self.ip("neighbour", "replace", other.address, "lladdr", _WRONG, "nud", "permanent", "dev", "eth0")

    def find_way_to(self, other: Host) -> None:
        """Undo that."""
        self.ip("neighbour", "del", other.address, "dev", "eth0")

    def remove(self) -> None:
        """Let it vanish, when nothing runs there any more."""
        self._process.kill()
        self._process.communicate()


class Network:
    """Some hosts and a switch; use it in a ``with``."""

    def __init__(self, hosts: int) -> None:
        self._count = hosts
        self._switch: Host | None = None
        self.hosts: list[Host] = []

    def __enter__(self) -> Self:
        try:
            self._switch = Host(100)
            self._switch.ip("link", "add", "bridge0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
            self._switch.ip("link", "set", "bridge0", "up")
            for number in range(1, self._count + 1):
                self.hosts.append(Host(number))
                self.hosts[-1].plug(self._switch)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for host in (*self.hosts, *([self._switch] if self._switch else [])):
            host.remove()

    def pull(self, host: Host) -> None:
        """Pull the cable of a host: silence in both directions."""
        assert self._switch is not None
        self._switch.ip("link", "set", host.name, "down")

    def put_back(self, host: Host) -> None:
        """Put it back."""
        assert self._switch is not None
        self._switch.ip("link", "set", host.name, "up")


async def relay(address: str, port: int, target: int, seconds: float) -> None:
    """Pass on what comes to a port to another one, and what comes back, everything later by some seconds."""
    loop = asyncio.get_running_loop()

    async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                loop.call_later(seconds, sink.write, data)
        loop.call_later(seconds, sink.close)

    async def join(near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_in, far_out = await asyncio.open_connection(address, target)
        await asyncio.gather(pass_on(near_in, far_out), pass_on(far_in, near_out))

    server = await asyncio.start_server(join, address, port)
    os.write(1, b"ready\n")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
