"""A network between workers and their driver that can be cut without anybody being told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading


class Proxy:
    """Passes on what comes to a port of this machine to another one, until it is cut.

    A cut network swallows everything, keeps every connection open, and accepts no end of one: what a firewall that
    forgets connections does, or a switch without power. It runs in a thread of its own.
    """

    def __init__(self) -> None:
        self.target = 0
        """Port to pass on to."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        """Where it listens."""
        self._open = threading.Event()
        self._open.set()
        self._over = threading.Event()
        self._dropped = threading.Event()
        self.joined = 0
        """Connections that were made."""
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Swallow everything from now on."""
        self._open.clear()

    def drop(self) -> None:
        """Forget every connection: its end near the worker is closed, the other one stays open for ever."""
        self._dropped.set()

    def close(self) -> None:
        """End everything."""
        self._over.set()
        self._thread.join(10)
        self._listening.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._join, sock=self._listening)
        while not self._over.is_set():
            await asyncio.sleep(0.05)
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _join(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self.target)
        self.joined += 1
        with contextlib.suppress(asyncio.CancelledError):
            if self.joined == 1:
                asyncio.ensure_future(self._drop(near_out))
            await asyncio.gather(self._pass_on(near_in, far_out), self._pass_on(far_in, near_out))
        for stream in (near_out, far_out):
            stream.close()

    async def _drop(self, near_out: asyncio.StreamWriter) -> None:
        """Close the worker's end of the first connection when it is to be dropped; the other end hears nothing."""
        while not self._dropped.is_set():
            await asyncio.sleep(0.01)
        near_out.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        swallowed = False
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                swallowed = swallowed or not self._open.is_set()
                if not swallowed:
                    target.write(data)
        while swallowed or self._dropped.is_set() or not self._open.is_set():  # nobody hears of the end either
            await asyncio.sleep(0.05)
        target.close()
