"""A network between workers and their driver that can be cut without anybody being told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading


class Proxy:
    """Passes on what comes to a port of this machine to another one, until it is cut.

    A cut network swallows everything, keeps every connection open, and tells nobody the end of one: what a firewall
    that forgets connections does, or a switch without power. It runs in a thread of its own.
    """

    def __init__(self) -> None:
        self.target = 0
        """Port to pass on to."""
        self.joined = 0
        """Connections that were made."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        """Where it listens."""
        self._cut = False
        self._first: asyncio.StreamWriter | None = None
        """The end near the worker of the first connection."""
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Swallow everything from now on."""
        self._loop.call_soon_threadsafe(setattr, self, "_cut", True)

    def drop(self) -> None:
        """Forget the first connection: its end near the worker is closed, the other one stays open for ever."""
        assert self._first is not None
        self._loop.call_soon_threadsafe(self._first.transport.abort)

    def close(self) -> None:
        """End everything."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._join, sock=self._listening)
        await self._over.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _join(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self.target)
        self._first = self._first or near_out
        self.joined += 1
        try:
            await asyncio.gather(self._pass_on(near_in, far_out), self._pass_on(far_in, near_out))
        finally:
            for stream in (near_out, far_out):
                stream.close()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        lost = False
        try:
            while data := await source.read(65536):
                lost = lost or self._cut
                if not lost:
                    target.write(data)
        except ConnectionError:
            lost = True
        if lost or self._cut:  # nobody hears of the end either
            await self._over.wait()
        with contextlib.suppress(ConnectionError):
            target.close()
