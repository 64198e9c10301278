"""A process of Node with the peers that are written for it, and the WebSocket library `ws` among them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tests.peers.part import Events, Part, Serving

_HERE = Path(__file__).parent


class Actor:
    """One connection to the process: an order to play something, and what comes back, line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def order(self, role: str, **how: Any) -> Self:
        """Say what to play."""
        self._writer.write(json.dumps({"role": role} | how).encode() + b"\n")
        await self._writer.drain()
        return self

    async def told(self) -> dict[str, Any]:
        """The next line that comes back."""
        line = await self._reader.readline()
        assert line, "the actor left"
        said: dict[str, Any] = json.loads(line)
        assert "error" not in said, said["error"]
        return said


class Node:
    """The process. As a `Peer` it plays with `ws`."""

    def __init__(self, port: int) -> None:
        self._port = port

    @asynccontextmanager
    async def actor(self) -> AsyncIterator[Actor]:
        """Somebody who can be given one order; all that it opened ends with it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 26)
        try:
            yield Actor(reader, writer)
        finally:
            writer.close()

    @asynccontextmanager
    async def serve(self, part: Part) -> AsyncIterator[Serving]:
        """Play the server."""
        async with self.actor() as actor:
            await actor.order("serve", part=asdict(part))

            async def events() -> Events:
                seen: Events = (await actor.told())["events"]
                return seen

            yield Serving((await actor.told())["port"], events())

    async def visit(self, part: Part, port: int, host: str, target: str) -> Events:
        """Play the client."""
        async with self.actor() as actor:
            await actor.order("visit", part=asdict(part), port=port, host=host, target=target)
            events: Events = (await actor.told())["events"]
            return events


@contextmanager
def started(modules: Path | None) -> Iterator[Node]:
    """The process, until the end. ``modules`` is where `ws` is installed, None to do without."""
    command = ["node", str(_HERE / "node_peer.js"), str(modules)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            yield Node(int(process.stdout.readline()))
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
