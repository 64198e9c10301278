"""The demo app, run as the sandbox runs it: a counter, a page, a clock that falls silent."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import ClientSession, web

from edge.appliance import demo


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The app's file as a module; it is a script, not part of the package's interface."""
    spec = importlib.util.spec_from_file_location("demo_app", demo.APP)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TICKING", 1)
    return module


@pytest.fixture
async def session(module: ModuleType) -> AsyncIterator[ClientSession]:
    """A client of a running app whose clock ticks for one second."""
    runner = web.AppRunner(module.build_app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


async def _count(session: ClientSession) -> int:
    async with session.get("/?edge_token=x") as answer:
        assert answer.content_type == "text/html"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        found = re.search(r'id="count">(\d+)<', await answer.text())
        assert found is not None
        return int(found[1])


async def test_the_counter_counts_loads_and_presses(session: ClientSession) -> None:
    """Each load and each press of the button is one; being healthy is none."""
    assert await _count(session) == 1
    async with session.post("/add") as answer:
        assert await answer.json() == {"count": 2}
    async with session.get("/healthz") as answer:
        assert answer.status == 200
    assert await _count(session) == 3


async def test_the_clock_falls_silent_until_used(session: ClientSession) -> None:
    """Ticks, then quiet, then nothing more by itself; a message starts it again."""
    async with session.ws_connect("/?edge_token=x") as socket:
        for _ in range(2):
            assert (await socket.receive_json())["type"] == "tick"
            assert (await socket.receive_json())["type"] == "quiet"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.receive(), 0.3)
            await socket.send_str("used")
        assert (await socket.receive_json())["type"] == "tick"
        await socket.send_str("used")
        assert (await socket.receive_json())["type"] == "tick"


def test_the_page_is_whole_by_itself() -> None:
    """No other address is named in it, so that it shows what a preview can do, not what a network can."""
    page = Path(demo.APP).with_name("page.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)\s*=\s*\"(?!data:)", page) == []
    assert "http://" not in page and "https://" not in page
    assert page.count("{{count}}") == 1
