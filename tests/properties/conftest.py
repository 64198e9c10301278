"""One real edge for all examples of a test, on the loop of production."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.flows.scriptedapp import ScriptedApp
from tests.flows.stage import Stage, until
from tests.properties.live import Live, place, set_up


@pytest.fixture
async def live(tmp_path: Path, _watched_loop: None) -> AsyncIterator[Live]:
    """A sandbox whose app plays plans, behind an edge with the deadlines of production."""
    crashes: list[str] = []
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    assert handler is not None

    def crashed(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        crashes.append(f"{context['message']}: {context.get('exception')!r}")
        handler(loop, context)

    loop.set_exception_handler(crashed)
    async with Stage(tmp_path) as stage:
        live = set_up(stage, crashes)
        async with ScriptedApp(lambda connection: live.app(connection)) as app:
            place(live, app.port)
            yield live
            stage.edge.flow.close()
            await until(lambda: not any(stage.edge.admission.counts().values()))
    loop.set_exception_handler(handler)
