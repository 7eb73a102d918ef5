"""Real network file systems on this machine: GlusterFS with several clients, and bindfs, which can vanish."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BRICK = """\
volume files
    type storage/posix
    option directory {brick}
end-volume
volume locks
    type features/locks
    subvolumes files
end-volume
volume shared
    type debug/io-stats
    subvolumes locks
end-volume
volume server
    type protocol/server
    option transport-type tcp
    option transport.address-family inet
    option transport.socket.bind-address 127.0.0.1
    option transport.socket.listen-port {port}
    option auth.addr.shared.allow 127.0.0.1
    subvolumes shared
end-volume
"""

CLIENT = """\
volume remote
    type protocol/client
    option transport-type tcp
    option transport.address-family inet
    option remote-host 127.0.0.1
    option remote-port {port}
    option remote-subvolume shared
end-volume
volume distributed
    type cluster/distribute
    option lock-migration off
    subvolumes remote
end-volume
volume contents
    type performance/quick-read
    subvolumes distributed
end-volume
volume attributes
    type performance/md-cache
    subvolumes contents
end-volume
"""
"""The caches of a client as they are by default; GlusterFS's own server would write the same."""

WAIT_SECONDS = 20.0


def missing(*programs: str) -> str:
    """Why these file systems cannot be mounted here; empty if they can."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if os.getuid() != 0:
        return "only root may mount"
    absent = [program for program in programs if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def wait_for_mount(place: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not os.path.ismount(place):
        assert time.monotonic() < deadline, f"{place} was not mounted"
        time.sleep(0.02)


class Gluster:
    """A brick and its clients."""

    def __init__(self, folder: Path, *, client_options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.mounts: list[Path] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._options = client_options
        brick = folder / "brick"
        brick.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "brick.vol").write_text(BRICK.format(brick=brick, port=port))
        (folder / "client.vol").write_text(CLIENT.format(port=port))
        identity = os.urandom(16)
        os.setxattr(brick, "trusted.glusterfs.volume-id", identity)
        self._start("glusterfsd", "-N", "-f", str(folder / "brick.vol"), "--log-file", str(folder / "brick.log"))
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "the brick does not listen"
            time.sleep(0.02)

    def mount(self, *options: str) -> Path:
        """Another client, with caches of its own: a host, as far as file systems go."""
        place = self.folder / f"host{len(self.mounts)}"
        place.mkdir()
        log = self.folder / f"{place.name}.log"
        self._start(
            "glusterfs", "-N", "-f", str(self.folder / "client.vol"), "--log-file", str(log), *options, str(place)
        )
        wait_for_mount(place)
        self.mounts.append(place)
        return place

    def close(self) -> None:
        for place in self.mounts:
            subprocess.run(["umount", "-l", str(place)], check=False)
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, *words: str) -> None:
        self._processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, cwd="/"))


class Vanishing:
    """A directory on a file system of its own, whose client can be stopped or killed."""

    def __init__(self, folder: Path) -> None:
        self.behind, self.place = folder / "behind", folder / "disk"
        self.behind.mkdir()
        self.place.mkdir()
        self._process = subprocess.Popen(
            ["bindfs", "-f", str(self.behind), str(self.place)], stdin=subprocess.DEVNULL, cwd="/"
        )
        wait_for_mount(self.place)

    def vanish(self) -> None:
        """Every access raises ENOTCONN from now on."""
        self._process.kill()
        self._process.wait()

    def stand_still(self) -> None:
        """No access is answered from now on."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        subprocess.run(["umount", "-l", str(self.place)], check=False)
