"""A wire between two of the parts. A test may cut it (nothing arrives any more, and nobody is told) or make it long."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Link:
    """Forwards to a port of this machine. What is sent while it is cut arrives when it is mended."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._whole = asyncio.Event()
        self._whole.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0
        self.delay = 0.0
        """Seconds that whatever is sent takes from here on."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)

    def cut(self) -> None:
        """From now on connections hang, new ones as well."""
        self._whole.clear()

    def mend(self) -> None:
        """Go on, with what has been held back."""
        self._whole.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)
        # Cancelled is how it ends; the server's own callback would take it for a mistake.
        with suppress(OSError, asyncio.CancelledError):
            try:
                await self._whole.wait()
                there = await asyncio.open_connection("127.0.0.1", self._target)
                try:
                    await self._both_ways((reader, writer), there)
                finally:
                    there[1].close()
            finally:
                writer.close()

    async def _both_ways(
        self,
        one: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        other: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        ways = [
            asyncio.create_task(self._pump(one[0], other[1])),
            asyncio.create_task(self._pump(other[0], one[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay)
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
