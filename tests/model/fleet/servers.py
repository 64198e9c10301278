"""The model's Redis as an actor, and the connection to it, which takes the place of `edge.state.redis.connect`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from edge.core.redis_settings import RedisSettings
from edge.state.redis import changes, layout, lease, port, publisher, scripts
from edge.state.redis.connect import RedisGone
from tests.model.fleet.network import Lost, Network
from tests.model.fleet.store import Store, WrongType

SERVERS: ContextVar[Servers] = ContextVar("SERVERS")
SHARDS = 2
"""As good as sixteen, and eight times as fast."""


class Server:
    """One server's store, and who waits for news from it."""

    def __init__(self, name: str, store: Store, servers: Servers) -> None:
        self.name = name
        self.store = store
        self._servers = servers
        self._news = asyncio.Event()

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """One script."""
        watched = script in (scripts.KEEP, scripts.LEAVE)
        before = self._lease(keys[0]) if watched else None
        answer = self.store.run(script, keys, *arguments)
        others = before is not None and before[0] != str(arguments[0]).encode()
        if others and self._lease(keys[0]) != before:
            self._servers.complain("a_lease_is_its_holders", f"{keys[0]} changed by another")
        self.tell()
        return answer

    def _lease(self, key: str) -> tuple[Any, Any] | None:
        held = self.store.get(key)
        return None if held is None else (held, self.store.until.get(key))

    def tell(self) -> None:
        """Something may have changed."""
        self._news.set()
        self._news = asyncio.Event()

    async def read(
        self, positions: Mapping[str, bytes], block: float, count: int
    ) -> list[tuple[str, list[Any]]]:
        """XREAD."""
        try:
            async with asyncio.timeout(block):
                while True:
                    news = self._news
                    found = [
                        (stream, entries)
                        for stream, at in positions.items()
                        if (entries := self.store.after(stream, at, count))
                    ]
                    if found:
                        return found
                    await news.wait()
        except TimeoutError:
            return []


class Servers:
    """The servers there are; after a failover each connection changes over in its own time."""

    def __init__(self, network: Network, complain: Any) -> None:
        self.network = network
        self.complain = complain
        self.connections: list[ModelConnection] = []
        clock = network.loop
        self.primary = Server("redis-0", Store("r0", lambda: round(clock.time() * 1000)), self)
        self.by_name = {"redis-0": self.primary}

    def replace(self, name: str, store: Store) -> None:
        """Another server is the primary from now on."""
        self.primary = self.by_name[name] = Server(name, store, self)
        for connection in self.connections:
            self.network.loop.later(self.network.rng.uniform(0.0, 1.0), connection.change_over)


class ModelConnection:
    """As `edge.state.redis.connect.Connection`, over the model's network."""

    def __init__(self, settings: RedisSettings, *, most: int = 0) -> None:
        self._servers = SERVERS.get()
        self._settings = settings
        self.to = self._servers.primary.name
        self._servers.connections.append(self)

    def change_over(self) -> None:
        """It has found out who is the primary now."""
        self.to = self._servers.primary.name

    async def _guarded(self, work: Any, timeout: float) -> Any:
        to = self.to
        server = self._servers.by_name[to]
        try:
            return await self._servers.network.call(to, lambda: work(server), timeout)
        except Lost:
            raise RedisGone("no answer") from None
        except WrongType:
            raise RedisGone("ResponseError") from None

    def groups(self, streams: Iterable[str]) -> list[list[str]]:
        return [list(streams)]

    async def look(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        return await self.run(script, keys, *arguments)

    async def run(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        return await self._guarded(
            lambda server: server.run(script, keys, arguments), self._settings.timeout
        )

    async def run_all(self, script: str, calls: Sequence[Any]) -> list[Any]:
        return await self._guarded(
            lambda server: [server.run(script, *call) for call in calls], self._settings.timeout
        )

    async def last(self, stream: str) -> bytes:
        def newest(server: Server) -> bytes:
            at = server.store.newest(stream)
            return b"0-0" if at is None else b"%d-%d" % at

        return await self._guarded(newest, self._settings.timeout)

    async def read(self, positions: Mapping[str, bytes], *, block: float, count: int) -> Any:
        return await self._guarded(
            lambda server: server.read(positions, block, count), self._settings.timeout + block
        )

    async def close(self) -> None:
        """Nothing to close."""


@contextmanager
def in_place() -> Iterator[pytest.MonkeyPatch]:
    """The adapter talks to the model's servers in here, and has fewer shards."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (port, publisher):
            patch.setattr(module, "Connection", ModelConnection)
        for module in (changes, layout, port, publisher):
            patch.setattr(module, "SHARDS", SHARDS)
        numbers = iter(range(1 << 60))
        patch.setattr(lease.secrets, "token_hex", lambda size: f"{next(numbers):0{2 * size}x}")
        yield patch
