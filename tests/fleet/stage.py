"""A fleet in one process: a real Redis, the scripted control plane with a publisher, three edges as production builds them.

For what needs no signals: clocks that a test moves, control planes that answer by script, the insides of edges.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from edge.core.records import SandboxRecord, State
from edge.core.redis_settings import RedisSettings
from edge.ops.edge import Edge
from edge.ops.server import build_edge
from edge.state.redis import Publisher, RedisStatePort
from edge.wake.trust import Trust
from tests.fleet.link import Link
from tests.flows.rawclient import Answer, RawClient
from tests.flows.stage import Preview, Stage, until
from tests.state.redis.sets import Set
from tests.state.redis.valkey import Valkey

EDGES = 3


class FleetStage(Stage):
    """`Stage` with several edges over one Redis. ``skews`` are seconds by which edges' wall clocks are ahead."""

    def __init__(
        self,
        tmp_path: Path,
        server: Valkey | Set,
        *,
        skews: tuple[float, ...] = (0.0,) * EDGES,
        linked: bool = False,
        **settings: Any,
    ) -> None:
        told = server.settings.model_dump(exclude_unset=True)
        settings["redis"] = told | settings.get("redis", {})
        super().__init__(tmp_path, **settings)
        self.redis = server
        self.edges: list[Edge] = []
        self.told: list[str] = []
        self.sent = 0
        self.answered: Counter[int] = Counter()
        self.healed = 0.0
        """Seconds that `whole` has waited last."""
        self.links: dict[str, Link] = {}
        """With ``linked``: what lies between Redis and "plane" or an edge, and before the control plane."""
        self._linked = linked
        self._skews = skews
        self._publishing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        plane = self.plane
        self.publisher = Publisher(
            RedisSettings.model_validate(await self._redis_of("plane")),
            lambda: [*plane.sandboxes.values(), *plane.grants.values()],
            wall=time.time,
            log=lambda event, **_: self.told.append(event),
        )
        plane.on_record = self.publisher.publish
        self.publish()
        return await super().__aenter__()

    async def __aexit__(self, *problem: object) -> None:
        try:
            await super().__aexit__(*problem)
        finally:
            await self.publish_no_more()

    def publish(self) -> None:
        """The publisher runs."""
        self._publishing = asyncio.create_task(self.publisher.run())

    async def publish_no_more(self) -> None:
        """The publisher is stopped."""
        task, self._publishing = self._publishing, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def start_edge(self) -> Edge:
        """All of them, caught up over Redis."""
        for number, skew in enumerate(self._skews, 1):
            name = f"edge-{number}"
            plane = self._changes.get("control_plane", {}) | {"edge_id": name}
            if self._linked:
                way = await self._link(f"{name} to the control plane", self.plane.port)
                plane["url"] = f"http://127.0.0.1:{way}"
            self._changes["control_plane"] = plane
            self._changes["redis"] = await self._redis_of(name)
            edge = build_edge(
                self.settings(),
                wall=lambda skew=skew: time.time() + self.ahead + skew,
                clock=lambda: self._clock() + self.passed,
            )
            await edge.start()
            self._edges.append(edge)
            self.edges.append(edge)
        self.edge = self.edges[0]
        await self.whole()
        return self.edge

    async def _redis_of(self, name: str) -> dict[str, Any]:
        settings: dict[str, Any] = dict(self._changes["redis"])
        if self._linked:
            assert isinstance(self.redis, Valkey)
            settings["url"] = f"redis://127.0.0.1:{await self._link(name, self.redis.port)}/0"
        return settings

    async def _link(self, name: str, target: int) -> int:
        link = self.links[name] = await self._cleanup.enter_async_context(Link(target))
        return link.port

    @property
    def links_to_redis(self) -> list[Link]:
        """Those of the control plane and of the edges."""
        return [link for name, link in self.links.items() if "to the control plane" not in name]

    def port(self, name: str) -> int:
        """Where an edge takes traffic."""
        return self.edges[int(name.removeprefix("edge-")) - 1].port

    @property
    def waiting(self) -> int:
        """Requests that wait for a wake, at all edges."""
        return sum(edge.wakes.waiting() for edge in self.edges)

    def follows_redis(self, edge: Edge) -> bool:
        """Whether it believes what it reads there."""
        port = edge.state_port
        assert isinstance(port, RedisStatePort)
        return port._believed and edge.catalog.trust() is Trust.FRESH

    async def whole(self) -> None:
        """Until every edge follows Redis."""
        began = time.monotonic()
        await until(lambda: all(map(self.follows_redis, self.edges)), 40.0)
        self.healed = time.monotonic() - began

    async def knows(self, record: SandboxRecord) -> None:
        """Until every edge has a sandbox's record (which it had in an older version)."""
        await until(lambda: all(edge.catalog.sandbox(record.id) == record for edge in self.edges))

    async def fresh(self) -> None:
        """Until every edge is caught up, with whomever."""
        await until(lambda: all(edge.catalog.trust() is Trust.FRESH for edge in self.edges), 40.0)

    async def at(self, edge: Edge, request: bytes) -> Answer:
        """One request to one edge."""
        self.sent += 1
        async with await RawClient.open(edge.port) as client:
            answer = await client.ask(request)
        self.answered[answer.status] += 1
        return answer

    def line(self, what: str) -> str:
        """For the report. What was answered is judged by the test."""
        told = ", ".join(f"{count} x {status}" for status, count in sorted(self.answered.items()))
        return (
            f"{what:<62} sent {self.sent:>4}, answered {self.answered.total():>4} ({told}), "
            f"lost {self.sent - self.answered.total()}, "
            f"incarnations {self.plane.incarnations.total()}, healed {self.healed:.1f} s after"
        )

    async def everywhere(self, request: bytes) -> list[int]:
        """What each edge answers."""
        return [(await self.at(edge, request)).status for edge in self.edges]

    async def until_everywhere(self, request: bytes, status: int, seconds: float = 20.0) -> None:
        """Until each edge has answered so."""
        async with asyncio.timeout(seconds):
            for edge in self.edges:
                while (await self.at(edge, request)).status != status:  # noqa: ASYNC110 - asking is all there is
                    await asyncio.sleep(0.02)

    async def wakes(self, box: Preview) -> None:
        """A paused sandbox is woken from all edges at once, into one new incarnation."""
        assert self.plane.sandboxes[box.id].state is State.PAUSED
        before = self.plane.incarnations[box.id]
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self.at(edge, box.get("/w"))) for edge in self.edges]
        assert [one.result().body for one in asked] == [b"GET /w HTTP/1.1\n"] * len(self.edges)
        assert self.plane.incarnations[box.id] == before + 1
