"""The connection to Redis: a single server, Sentinels or a Cluster, and one door for whatever goes wrong.

The client library is redis-py. Nothing of it is seen above this module: every failure, including an answer
of an impossible shape, is `RedisGone`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from edge.core.settings import RedisSettings

Entry = tuple[bytes, Mapping[bytes, bytes]]
"""A stream's entry: its id, its fields."""


class RedisGone(Exception):
    """There is no usable answer: down, slow, refusing, or talking nonsense."""


IMPOSSIBLE = "an answer of an impossible shape"


class Connection:
    """A pool of connections, opened on first use inside the running loop.

    ``timeout`` of a call is in seconds and covers waiting for a free connection.
    """

    def __init__(self, settings: RedisSettings) -> None:
        assert settings.url is not None
        self._settings = settings
        self._url = settings.url.get_secret_value()
        self._client: Redis | RedisCluster | None = None
        self._sentinel: Sentinel | None = None

    def groups(self, streams: Iterable[str]) -> list[list[str]]:
        """Which streams can be read by one command: in a Cluster each by its own."""
        return [[one] for one in streams] if self._settings.cluster else [list(streams)]

    async def run(self, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """Run a script. Raises `RedisGone`."""
        return await self._guarded(
            lambda client: client.eval(script, len(keys), *keys, *arguments), self._settings.timeout
        )

    async def run_all(
        self, script: str, calls: Sequence[tuple[Sequence[str], Sequence[str | bytes | int]]]
    ) -> list[Any]:
        """Run a script several times, in one go where one server has all keys. Raises `RedisGone`.

        ``calls`` are keys and arguments. In one go means that a reader of all of it wakes once.
        """
        if self._settings.cluster:
            return await asyncio.gather(*(self.run(script, keys, *args) for keys, args in calls))

        async def at_once(client: Any) -> list[Any]:
            pipeline = client.pipeline(transaction=True)
            for keys, arguments in calls:
                pipeline.eval(script, len(keys), *keys, *arguments)
            answers: list[Any] = await pipeline.execute()
            return answers

        answers: list[Any] = await self._guarded(at_once, self._settings.timeout)
        return answers

    async def add(self, stream: str, fields: Mapping[str, bytes], most: int) -> None:
        """Append to a stream that is kept at about ``most`` entries. Raises `RedisGone`."""
        await self._guarded(
            lambda client: client.xadd(stream, dict(fields), maxlen=most), self._settings.timeout
        )

    async def first(self, stream: str, count: int) -> list[Entry]:
        """The oldest entries of a stream. Raises `RedisGone`."""
        found = await self._guarded(
            lambda client: client.xrange(stream, count=count), self._settings.timeout
        )
        return _entries(found)

    async def delete(self, stream: str, ids: Sequence[bytes]) -> None:
        """Remove entries from a stream. Raises `RedisGone`."""
        await self._guarded(lambda client: client.xdel(stream, *ids), self._settings.timeout)

    async def last(self, stream: str) -> bytes:
        """The id of a stream's newest entry; ``0-0`` where there is none. Raises `RedisGone`."""
        found = await self._guarded(
            lambda client: client.xrevrange(stream, count=1), self._settings.timeout
        )
        return _entries(found)[0][0] if found else b"0-0"

    async def read(
        self, positions: Mapping[str, bytes], *, block: float, count: int
    ) -> list[tuple[str, list[Entry]]]:
        """What came after the positions, waiting up to ``block`` seconds for something. Raises `RedisGone`."""
        found = await self._guarded(
            lambda client: client.xread(dict(positions), count=count, block=round(block * 1000)),
            self._settings.timeout + block,
        )
        try:
            return [(name.decode(), _entries(entries)) for name, entries in found]
        except (TypeError, ValueError, AttributeError):
            raise RedisGone(IMPOSSIBLE) from None

    async def close(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        sentinel, self._sentinel = self._sentinel, None
        if client is not None:
            await client.aclose()
        for one in sentinel.sentinels if sentinel is not None else ():
            await one.aclose()

    async def _guarded(self, call: Any, timeout: float) -> Any:
        try:
            async with asyncio.timeout(timeout):
                return await call(self._open())
        except TimeoutError:
            raise RedisGone(f"no answer within {timeout:g} s") from None
        except (
            RedisError,
            OSError,
            ValueError,
            TypeError,
            IndexError,
            AttributeError,
            AssertionError,
        ) as e:
            # Not its text: it may quote what was sent. And redis-py trips over nonsense in many ways.
            raise RedisGone(type(e).__name__) from None

    def _open(self) -> Redis | RedisCluster:
        if self._client is None:
            self._client = self._make()
        return self._client

    def _make(self) -> Redis | RedisCluster:
        settings = self._settings
        common: dict[str, Any] = {
            # Waiting is bounded here and not by the socket, which a blocking read would trip over.
            "socket_timeout": None,
            "socket_connect_timeout": settings.timeout,
            # Every command may be repeated: what it does depends on what is there.
            "retry": Retry(NoBackoff(), 1),
            "protocol": 2,
            "driver_info": None,  # which would cost a command per connection
        }
        if self._url.startswith("rediss://") and settings.ca_file is not None:
            common["ssl_ca_certs"] = str(settings.ca_file)
        if settings.cluster:
            return RedisCluster.from_url(self._url, max_connections=settings.connections, **common)
        pool = BlockingConnectionPool.from_url(
            self._url, max_connections=settings.connections, timeout=settings.timeout, **common
        )
        if not settings.sentinels:
            return Redis.from_pool(pool)
        return self._by_sentinel(pool.connection_kwargs)

    def _by_sentinel(self, arguments: dict[str, Any]) -> Redis:
        settings = self._settings
        arguments = {k: v for k, v in arguments.items() if k not in ("host", "port", "path")}
        if self._url.startswith("rediss://"):
            arguments["ssl"] = True
        addresses = [
            (host, int(port))
            for host, _, port in (one.rpartition(":") for one in settings.sentinels)
        ]
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
            addresses,
            sentinel_kwargs={"socket_timeout": settings.timeout, "protocol": 2},
            **arguments,
        )
        primary: Redis = self._sentinel.master_for(
            settings.sentinel_service, max_connections=settings.connections
        )
        return primary


def _entries(found: Any) -> list[Entry]:
    """Entries as the client library gives them. Raises `RedisGone` for what are none."""
    try:
        entries = [(entry_id, fields) for entry_id, fields in found]
    except (TypeError, ValueError):
        raise RedisGone(IMPOSSIBLE) from None
    for entry_id, fields in entries:
        if not isinstance(entry_id, bytes) or not isinstance(fields, Mapping):
            raise RedisGone(IMPOSSIBLE)
    return entries
