"""Real sets of servers: a primary with a replica and three Sentinels, and a Cluster of three with a replica.

They are set up by their own state files in place of commands and gossip, which would take many seconds.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from bench.ports import free_port
from edge.core.redis_settings import RedisSettings
from tests.state.redis.valkey import Valkey

SERVICE = "mymaster"
PASSABLE = ("--repl-diskless-sync-delay", "0", "--repl-diskless-load", "on-empty-db")


class Set:
    """Servers that are frozen, killed and started together; ``primary`` is the one whose place ``replica`` takes."""

    primary: Valkey
    replica: Valkey
    _set_up = False

    @property
    def data(self) -> Sequence[Valkey]:
        """Those that hold data."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start these, empty."""
        raise NotImplementedError

    async def set_up(self) -> None:
        """Start everything for the first time."""
        raise NotImplementedError

    def end(self) -> None:
        """Nothing is needed any more."""
        for server in self.data:
            server.kill()

    def kill(self) -> None:
        """All die."""
        for server in self.data:
            server.kill()

    async def clean(self) -> None:
        """As if it was just started."""
        if not self._set_up:
            self._set_up = True
            await self.set_up()
            return
        if not all(server.alive for server in self.data):
            self.kill()
            await self.start()
            return
        for server in self.data:
            async with server.client() as client:
                await client.config_set("maxmemory", "0")
                if (await client.info("replication"))["role"] == "master":
                    await client.flushall()
        await self.synced()

    async def __aenter__(self) -> Self:
        await self.clean()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()

    def freeze(self) -> None:
        """All hang."""
        for server in self.data:
            server.freeze()

    def thaw(self) -> None:
        """All go on."""
        for server in self.data:
            server.thaw()

    async def synced(self) -> None:
        """Wait until the replica has what the primary has now."""
        async with asyncio.timeout(20), self.primary.client() as one, self.replica.client() as two:
            target = (await one.info("replication"))["master_repl_offset"]
            while True:
                found = await two.info("replication")
                if found.get("master_link_status") == "up" and found["slave_repl_offset"] >= target:
                    return
                await asyncio.sleep(0.05)

    async def cut(self) -> None:
        """Whatever is written from now on does not reach the replica."""
        self.replica.freeze()
        async with self.primary.client() as client:
            await client.client_kill_filter(_type="replica")

    async def fail_over(self) -> None:
        """The primary dies; back when its replica has taken over."""
        self.primary.kill()
        self.replica.thaw()
        await self.taken_over()

    async def taken_over(self) -> None:
        """Wait until the replica is the primary."""
        async with asyncio.timeout(30), self.replica.client() as client:
            while (await client.info("replication"))["role"] != "master":  # noqa: ASYNC110
                await asyncio.sleep(0.05)


class SentinelSet(Set):
    """A primary, its replica, and three Sentinels that agree by two.

    ``steady``: the replica takes no place. A machine that stands still for a second does not change the roles.
    """

    def __init__(self, folder: Path, *, steady: bool = False) -> None:
        down_after = 600_000 if steady else 600
        self.primary = Valkey(folder, *PASSABLE)
        self.replica = Valkey(folder, *PASSABLE, "--replicaof", "127.0.0.1", str(self.primary.port))
        ports = [free_port() for _ in range(3)]
        ids = [secrets.token_hex(20) for _ in ports]
        self.sentinels = []
        for port, own in zip(ports, ids, strict=True):
            file = folder / f"sentinel-{port}.conf"
            others = [
                f"sentinel known-sentinel {SERVICE} 127.0.0.1 {other_port} {other}"
                for other_port, other in zip(ports, ids, strict=True)
                if other != own
            ]
            file.write_text(
                "\n".join(
                    [
                        f"sentinel myid {own}",
                        f"sentinel monitor {SERVICE} 127.0.0.1 {self.primary.port} 2",
                        f"sentinel down-after-milliseconds {SERVICE} {down_after}",
                        f"sentinel failover-timeout {SERVICE} 3000",
                        f"sentinel known-replica {SERVICE} 127.0.0.1 {self.replica.port}",
                        *others,
                        "",
                    ]
                )
            )
            self.sentinels.append(Valkey(folder, port=port, leading=(str(file), "--sentinel")))

    @property
    def data(self) -> Sequence[Valkey]:
        """Without the Sentinels."""
        return (self.primary, self.replica)

    @property
    def settings(self) -> RedisSettings:
        """What an edge is told about it. The URL's host is nobody's."""
        addresses = tuple(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return RedisSettings.model_validate(
            {"url": "redis://nobody.invalid", "sentinels": addresses}
        )

    def client(self) -> Redis:
        """A client of the primary there was at the start."""
        return self.primary.client()

    async def set_up(self) -> None:
        """The Sentinels as well."""
        await self.start()
        for sentinel in self.sentinels:
            await sentinel.start()
            async with sentinel.client() as client:
                await client.execute_command(
                    "SENTINEL", "DEBUG", "ping-period", "200", "ask-period", "200",
                    "info-period", "500", "publish-period", "500",
                )  # fmt: skip
        async with asyncio.timeout(20), self.sentinels[0].client() as client:
            while (await self._known(client)) != b"1 2":  # noqa: ASYNC110 - no events
                await asyncio.sleep(0.05)

    async def _known(self, client: Redis) -> bytes:
        found = await client.execute_command("SENTINEL", "MASTER", SERVICE)
        if isinstance(found, list):
            found = dict(zip(found[::2], found[1::2], strict=True))
        found = {_text(key): _text(value) for key, value in found.items()}
        if found["flags"] != "master":
            return b""
        return f"{found['num-slaves']} {found['num-other-sentinels']}".encode()

    def end(self) -> None:
        """The Sentinels go first, so that they promote nobody."""
        for server in (*self.sentinels, *self.data):
            server.kill()

    async def start(self) -> None:
        """The primary and its replica, empty."""
        await self.primary.start()
        await self.replica.start()
        await self.synced()


class ClusterSet(Set):
    """Three primaries, and a replica of the first. ``steady``: as for Sentinels; nor does the whole say that it is down."""

    def __init__(self, folder: Path, *more: str, steady: bool = False) -> None:
        options = (
            *PASSABLE, "--cluster-enabled", "yes",
            "--cluster-node-timeout", "60000" if steady else "1000",
            "--cluster-replica-validity-factor", "0",
            "--cluster-replica-no-failover", "yes" if steady else "no", *more,
        )  # fmt: skip
        self.servers = [
            Valkey(folder, *options, "--cluster-port", str(free_port())) for _ in range(4)
        ]
        self.primary, _, _, self.replica = self.servers

    @property
    def data(self) -> Sequence[Valkey]:
        """All of them."""
        return self.servers

    @property
    def settings(self) -> RedisSettings:
        """What an edge is told about it: one node, which is none of those that die."""
        return RedisSettings.model_validate({"url": self.servers[1].url, "cluster": True})

    def client(self) -> Any:
        """A client of the whole."""
        return RedisCluster(port=self.servers[1].port, host="127.0.0.1", protocol=2)

    async def set_up(self) -> None:
        """With the slots given out."""
        self._write_state()
        await self.start()

    def _write_state(self) -> None:
        ids = [secrets.token_hex(20) for _ in self.servers]
        slots = ["0-5460", "5461-10922", "10923-16383", ""]
        for me, server in enumerate(self.servers):
            lines = []
            for at, other in enumerate(self.servers):
                bus = other._options[other._options.index("--cluster-port") + 1]
                role = "slave" if at == 3 else "master"
                flags = f"myself,{role}" if at == me else role
                of = ids[0] if at == 3 else "-"
                epoch = 1 if at in (0, 3) else at + 1
                lines.append(
                    f"{ids[at]} 127.0.0.1:{other.port}@{bus} {flags} {of} 0 0 {epoch} connected {slots[at]}"
                )
            lines.append("vars currentEpoch 5 lastVoteEpoch 0")
            (server.folder / "nodes.conf").write_text("\n".join(lines) + "\n")

    async def start(self) -> None:
        """All of them, empty; back when they serve."""
        for server in self.servers:
            server.spawn()
        for server in self.servers:
            await server.answers()
        for server in self.servers:
            async with asyncio.timeout(20), server.client() as client:
                while not await self._serves(client):  # noqa: ASYNC110 - no events
                    await asyncio.sleep(0.05)
        await self.synced()

    async def _serves(self, client: Redis) -> bool:
        try:
            info = await client.execute_command("CLUSTER", "INFO")
        except RedisError:
            return False
        state = info["cluster_state"] if isinstance(info, dict) else _text(info)
        return state == "ok" or "cluster_state:ok" in state


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
