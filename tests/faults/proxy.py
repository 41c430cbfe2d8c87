"""A TCP proxy between a shop and its servers, to cut and stall their connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from tests.support.processes import free_port


class Proxy:
    """Forwards a port of its own to `target` on this host, from a thread of its own."""

    def __init__(self, target: int) -> None:
        self.port, self.target = free_port(), target
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._listening.wait(10)

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        self._loop.call_soon_threadsafe(self._abort)

    def stall(self) -> None:
        """Let nothing through until `flow`; connections stay open."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        """Let everything through again, what was held back first."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def close(self) -> None:
        """End it, with every connection."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._flows.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self._listening.set()
        self._loop.run_forever()
        self._flows.set()
        while tasks := asyncio.all_tasks(self._loop):  # also that of a connection that has only just come
            self._abort()
            self._loop.run_until_complete(asyncio.wait(tasks))
        server.close()  # last: what comes in after that would never be closed
        self._loop.run_until_complete(asyncio.sleep(0))  # in which the transports close
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(back)
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
            self._writers.discard(back)
        writer.transport.abort()
        self._writers.discard(writer)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
