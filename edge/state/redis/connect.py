"""The connection to Redis: a single server, Sentinels or a Cluster, and one door for whatever goes wrong.

The client library is redis-py. Nothing of it is seen above this module: every failure, including an answer
of an impossible shape, is `RedisGone`.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError

from edge.core.redis_settings import RedisSettings

Entry = tuple[bytes, Mapping[bytes, bytes]]
"""A stream's entry: its id, its fields."""


class RedisGone(Exception):
    """There is no usable answer: down, slow, refusing, or talking nonsense."""


IMPOSSIBLE = "an answer of an impossible shape"


class Connection:
    """Connections to one Redis, opened on first use inside the running loop.

    A call takes `RedisSettings.timeout` at most, waiting for its turn included. ``most`` is how
    many are under way at once (`RedisSettings.connections` by default).
    Raises `ValueError` for settings that can never work.
    """

    def __init__(self, settings: RedisSettings, *, most: int = 0) -> None:
        assert settings.url is not None
        _check(settings.ca_file)
        self._settings = settings
        self._url = settings.url.get_secret_value()
        self._most = most or settings.connections
        # Pools of Sentinels and Clusters refuse where they should let wait, so nobody comes to a full one.
        self._turns = asyncio.Semaphore(self._most)
        self._client: Redis | RedisCluster | None = None
        self._sentinel: Sentinel | None = None

    def groups(self, streams: Iterable[str]) -> list[list[str]]:
        """Which streams can be read by one command: in a Cluster each by its own."""
        return [[one] for one in streams] if self._settings.cluster else [list(streams)]

    async def look(self, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """Run a script that writes nothing, which takes no right to write. Raises `RedisGone`."""
        command: tuple[Any, ...] = ("EVAL_RO", script, len(keys), *keys, *arguments)
        return await self._guarded(
            lambda client: _sent(client, keys[0], *command), self._settings.timeout
        )

    async def run(self, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """Run a script. Raises `RedisGone`."""
        return await self._guarded(
            lambda client: client.eval(script, len(keys), *keys, *arguments), self._settings.timeout
        )

    async def run_all(
        self, script: str, calls: Sequence[tuple[Sequence[str], Sequence[str | bytes | int]]]
    ) -> list[Any]:
        """Run a script several times, in one go where one server has all keys. Raises `RedisGone`.

        ``calls`` are keys and arguments. In one go means that a reader of all of it wakes once. In a Cluster the calls
        for one hash tag follow each other, whereas the tags go side by side.
        """
        if self._settings.cluster:
            return await self._by_tag(script, calls)

        async def at_once(client: Any) -> list[Any]:
            pipeline = client.pipeline(transaction=True)
            for keys, arguments in calls:
                pipeline.eval(script, len(keys), *keys, *arguments)
            answers: list[Any] = await pipeline.execute()
            return answers

        answers: list[Any] = await self._guarded(at_once, self._settings.timeout)
        return answers

    async def _by_tag(
        self, script: str, calls: Sequence[tuple[Sequence[str], Sequence[str | bytes | int]]]
    ) -> list[Any]:
        tags: dict[str, list[int]] = {}
        for at, (keys, _) in enumerate(calls):
            tags.setdefault(keys[0].partition("{")[2].partition("}")[0], []).append(at)
        answers: list[Any] = [None] * len(calls)

        async def in_turn(places: list[int]) -> None:
            for at in places:
                keys, arguments = calls[at]
                answers[at] = await self.run(script, keys, *arguments)

        done = await asyncio.gather(*map(in_turn, tags.values()), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure
        return answers

    async def add(self, stream: str, fields: Mapping[str, bytes], most: int) -> None:
        """Append to a stream that is kept at about ``most`` entries. Raises `RedisGone`."""
        await self._guarded(
            lambda client: client.xadd(stream, dict(fields), maxlen=most), self._settings.timeout
        )

    async def length(self, stream: str) -> int:
        """How many entries a stream has. Raises `RedisGone`."""
        found = await self._guarded(lambda client: client.xlen(stream), self._settings.timeout)
        if not isinstance(found, int):
            raise RedisGone(IMPOSSIBLE)
        return found

    async def remove(self, stream: str, entry_id: bytes) -> None:
        """Delete an entry. Raises `RedisGone`."""
        await self._guarded(lambda client: client.xdel(stream, entry_id), self._settings.timeout)

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
        limits = ("COUNT", count, "BLOCK", round(block * 1000))
        command: tuple[Any, ...] = ("XREAD", *limits, "STREAMS", *positions, *positions.values())
        found = await self._guarded(
            lambda client: _sent(client, next(iter(positions)), *command),
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
        if isinstance(client, RedisCluster):
            # It closes nothing while it means to look for the nodes anew.
            await client.nodes_manager.aclose()
            await client.nodes_manager.aclose("startup_nodes")
        for one in sentinel.sentinels if sentinel is not None else ():
            await one.aclose()

    async def _guarded(self, call: Any, timeout: float) -> Any:
        try:
            async with asyncio.timeout(timeout), self._turns:
                client = self._open()
                if isinstance(client, RedisCluster):
                    # Commands that come before it knows the nodes, redis-py sends to any of them.
                    await client.initialize()
                return await call(client)
        except TimeoutError:
            if isinstance(self._client, RedisCluster):
                # A node that hangs may have been replaced. redis-py looks for the new one after errors that
                # it sees itself, and it has not seen this one.
                self._client._initialize = True  # noqa: SLF001 - there is no public way
            if self._sentinel is not None:
                random.shuffle(self._sentinel.sentinels)  # the first may be the one that hangs
            raise RedisGone(f"no answer within {timeout:g} s") from None
        except Exception as e:  # noqa: BLE001 - one door for whatever goes wrong
            # Any: a Cluster's errors are no `RedisError`, and redis-py trips over nonsense in many ways.
            # And not its text, which may quote what was sent.
            raise RedisGone(_why(e)) from None

    def _open(self) -> Redis | RedisCluster:
        if self._client is None:
            self._client = self._make()
        return self._client

    def _make(self) -> Redis | RedisCluster:
        settings = self._settings
        common: dict[str, Any] = {
            # Waiting is bounded above. With a bound of its own redis-py uses `asyncio.wait_for`, which in
            # Python 3.11 swallows a cancellation now and then (CPython issue 86296).
            "socket_timeout": None,
            "socket_connect_timeout": settings.timeout,
            # Every command may be repeated: what it does depends on what is there.
            "retry": Retry(NoBackoff(), 1),
            "protocol": 2,
            "driver_info": None,  # which would cost a command per connection
            "max_connections": self._most,
        }
        if self._url.startswith("rediss://") and settings.ca_file is not None:
            common["ssl_ca_certs"] = str(settings.ca_file)
        if settings.cluster:
            # With each fifth key that has moved, redis-py would close the connections that others wait on.
            return RedisCluster.from_url(self._url, reinitialize_steps=0, **common)
        if not settings.sentinels:
            return Redis.from_url(self._url, **common)
        return self._by_sentinel(Redis.from_url(self._url, **common))

    def _by_sentinel(self, plain: Redis) -> Redis:
        """The primary that Sentinels name, with everything else as for a single server."""
        settings = self._settings
        skipped = ("host", "port", "path")
        arguments = {
            k: v for k, v in plain.connection_pool.connection_kwargs.items() if k not in skipped
        }
        if self._url.startswith("rediss://"):
            arguments["ssl"] = True
        addresses = [
            (host, int(port))
            for host, _, port in (one.rpartition(":") for one in settings.sentinels)
        ]
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
            addresses,
            sentinel_kwargs={
                **self._of_sentinels(),
                "socket_timeout": None,  # as above
                "socket_connect_timeout": settings.timeout,
                "retry": Retry(NoBackoff(), 0),  # there are others
                "protocol": 2,
                "driver_info": None,
            },
            **arguments,
        )
        primary: Redis = self._sentinel.master_for(
            settings.sentinel_service, max_connections=self._most
        )
        return primary

    def _of_sentinels(self) -> dict[str, Any]:
        settings, arguments = self._settings, dict[str, Any]()
        if settings.sentinel_password is not None:
            arguments["password"] = settings.sentinel_password.get_secret_value()
        if settings.sentinel_tls:
            arguments["ssl"] = True
            arguments["ssl_ca_certs"] = settings.ca_file and str(settings.ca_file)
        return arguments


async def _sent(client: Any, key: str, *command: str | bytes | int) -> Any:
    """Send a command to the node that has the key. By itself redis-py asks a server first where the keys of such
    a command are, each time.
    """
    if not isinstance(client, RedisCluster):
        return await client.execute_command(*command)
    return await client.execute_command(*command, target_nodes=client.get_node_from_key(key))


def _check(ca_file: Path | None) -> None:
    """Raises `ValueError` for a file whose certificates cannot be used."""
    if ca_file is None:
        return
    try:
        ssl.create_default_context(cafile=ca_file)
    except OSError as e:
        why = "no certificates in PEM format" if isinstance(e, ssl.SSLError) else e.strerror
        raise ValueError(f"redis.ca_file: {ca_file}: {why}") from None


def _why(error: BaseException) -> str:
    """What to tell the operator, in words of ours."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError():
                return "TLS: the certificate is not trusted (redis.ca_file?) or of another host"
            case ssl.SSLError():
                return "TLS: no connection could be agreed upon"
            case AuthenticationError():
                return "user or password is refused"
            case NoPermissionError():
                return "the user may not do this (config/redis.acl has what it takes)"
            case ConnectionRefusedError():
                return "nobody listens there"
            case socket.gaierror():
                return "its host name cannot be resolved"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _entries(found: Any) -> list[Entry]:
    """Entries as the client library gives them. Raises `RedisGone` for what are none."""
    try:
        entries = [(entry_id, fields) for entry_id, fields in found]
    except (TypeError, ValueError):
        raise RedisGone(IMPOSSIBLE) from None
    for entry_id, fields in entries:
        if not isinstance(entry_id, bytes) or not isinstance(fields, Mapping):
            raise RedisGone(IMPOSSIBLE)
        if not all(isinstance(part, bytes) for field in fields.items() for part in field):
            raise RedisGone(IMPOSSIBLE)
    return entries
