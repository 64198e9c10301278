"""Sandboxes without processes, in virtual time: what the runtime does is up to the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from virtual import VirtualLoop, run

from edge.appliance.barrier import Edges
from edge.appliance.events import EventFilter, EventLog
from edge.appliance.feed import Feed
from edge.appliance.requests import TimeoutAction
from edge.appliance.sandbox import Plan, Sandbox
from edge.appliance.sandboxes import Sandboxes
from edge.appliance.store import Store
from edge.appliance.tasks import Scope


class Scripted:
    """Executions that take the time and fail the way the test says; ``calls`` is what was asked."""

    isolated = False

    def publish(self, sandbox_id: str, port: int) -> int:
        self.calls.append(f"publish {port}")
        if "publish" in self.fail:
            raise self.fail["publish"]
        return 10_000 + port

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: dict[str, Exception] = {}
        self.seconds: dict[str, float] = {}
        self.setup: dict[str, Any] = {}

    async def _do(self, what: str) -> None:
        self.calls.append(what)
        await asyncio.sleep(self.seconds.get(what, 0))
        if what in self.fail:
            raise self.fail[what]

    async def create(
        self, sandbox_id: str, *, envs: dict[str, str], cwd: str | None, **setup: Any
    ) -> None:
        self.setup = setup
        await self._do("create")

    async def freeze(self, sandbox_id: str) -> int:
        await self._do("freeze")
        return 4096

    async def thaw(self, sandbox_id: str) -> None:
        await self._do("thaw")

    async def destroy(self, sandbox_id: str) -> None:
        await self._do("destroy")


class Stage:
    """Everything around the sandboxes, and the sandboxes. ``wall`` is the loop's time."""

    def __init__(self, loop: VirtualLoop, store: Store) -> None:
        self.loop = loop
        self.store = store
        self.runtime = Scripted()
        self.feed = Feed(0)
        self.edges = Edges()
        self.events = EventLog(store, loop.time)
        self.crashes: list[BaseException] = []
        self.logged: list[str] = []
        self.forgotten: list[str] = []
        self.scope = Scope(lambda _, error: self.crashes.append(error))
        self.sandboxes = Sandboxes(
            self.runtime,
            store,
            feed=self.feed,
            edges=self.edges,
            events=self.events,
            scope=self.scope,
            wall=loop.time,
            log=lambda event, **_: self.logged.append(event),
            on_forgotten=self.forgotten.append,
        )

    async def create(
        self,
        *,
        timeout: float = 1000.0,
        inactivity: float | None = None,
        action: TimeoutAction = "hibernate",
        auto_resume: bool = True,
        ephemeral: bool = False,
    ) -> Sandbox:
        """A running sandbox; times in seconds."""
        plan = Plan(
            template="base",
            vcpus=1,
            memory_mb=1,
            cwd="/workspace",
            metadata={},
            auto_resume=auto_resume,
            inactivity_timeout=inactivity,
            checkout={},
            mask_request_host=None,
            traffic_token_sha256=None,
            ephemeral=ephemeral,
        )
        return await self.sandboxes.create(
            plan, envs={}, cwd=None, timeout_ms=int(timeout * 1000), timeout_action=action
        )

    def states(self) -> list[str]:
        """Every state that edges were told of, in order."""
        changes = self.feed.since(0) or []
        return [change.record.state.value for change in changes]  # type: ignore[union-attr]

    def happened(self) -> list[str]:
        """Every lifecycle event as ``operation status``, in order."""
        events, _ = self.events.select(EventFilter(), offset=0, limit=1000, ascending=True)
        return [f"{event.operation} {event.status}" for event in events]


def play(script: Callable[[Stage], Coroutine[Any, Any, None]], store: Store | None = None) -> None:
    """Run a script in virtual time and clean up behind it; ``store`` may have been another stage's."""

    async def main(loop: VirtualLoop) -> None:
        kept = store or Store(None)
        stage = Stage(loop, kept)
        await script(stage)
        stage.sandboxes.close()
        await stage.scope.close()
        if store is None:
            kept.close()

    run(main)
