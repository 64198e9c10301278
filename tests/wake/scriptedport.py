"""A state port whose every answer is scripted, and records to answer with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from edge.core.reports import ExchangeReport, WakeReport
from edge.state.port import Unavailable, UsageBatch, WatchEvent


def sandbox(
    version: int = 1,
    state: State = State.RUNNING,
    incarnation: int = 1,
    *,
    auto_resume: bool = True,
) -> SandboxRecord:
    """A record of sandbox ``sb``."""
    upstream = Upstream("127.0.0.1") if state is State.RUNNING else None
    return SandboxRecord(
        "sb", state, version, incarnation, auto_resume=auto_resume, upstream=upstream
    )


def grant(version: int = 1, status: GrantStatus = GrantStatus.ACTIVE) -> GrantRecord:
    """A record of grant ``g`` for sandbox ``sb``."""
    return GrantRecord("g", "sb", 80, frozenset({Transport.HTTP}), status, 1e12, version)


Answer = Any
"""What a call gives: a value, an exception to raise, or an async function of the call's arguments."""


class ScriptedPort:
    """Answers calls with the next of ``answers[method]``; the last one is repeated for ever."""

    def __init__(self, **answers: list[Answer]) -> None:
        self.answers = answers
        self.calls: list[tuple[Any, ...]] = []
        self.watches: list[int | None] = []
        self.events: asyncio.Queue[WatchEvent | Exception | None] = asyncio.Queue()

    def count(self, method: str) -> int:
        """How often a method was called."""
        return sum(call[0] == method for call in self.calls)

    async def _answer(self, method: str, *arguments: Any) -> Any:
        self.calls.append((method, *arguments))
        answers = self.answers.get(method)
        assert answers, f"unexpected call: {method}{arguments}"
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return await answer(*arguments) if callable(answer) else answer

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        return await self._answer("sandbox", sandbox_id)

    async def grant(self, grant_id: str) -> GrantRecord | None:
        return await self._answer("grant", grant_id)

    async def resume(
        self, sandbox_id: str, paused_incarnation: int, reason: str, timeout: float
    ) -> SandboxRecord:
        return await self._answer("resume", sandbox_id, paused_incarnation, timeout)

    async def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
        self.watches.append(cursor)
        while (event := await self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    async def report(self, batch: UsageBatch) -> None:
        await self._answer("report", batch)

    async def ack(self, sandbox_id: str, version: int, in_flight: int) -> None:
        await self._answer("ack", sandbox_id, version, in_flight)

    async def close(self) -> None:
        """Nothing to let go of."""


def after(seconds: float, answer: Any) -> Callable[..., Awaitable[Any]]:
    """An answer that takes its time."""

    async def give(*_: Any) -> Any:
        await asyncio.sleep(seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return give


DOWN = Unavailable("down")


class Notes:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.wakes: list[WakeReport] = []
        self.events: list[tuple[str, dict[str, object]]] = []

    def exchange(self, report: ExchangeReport) -> None:
        raise AssertionError("this room has no exchanges")

    def wake(self, report: WakeReport) -> None:
        self.wakes.append(report)

    def dialed(self, outcome: str) -> None:
        raise AssertionError("this room dials nobody")

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))

    def names(self) -> list[str]:
        """The events' names, in order."""
        return [name for name, _ in self.events]
