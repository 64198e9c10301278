"""The stream: it says that something has changed, ends with its session, and there are few."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientResponse
from service import KEY, PAUSES, Service, until

from edge.appliance.console import live
from edge.appliance.console.guard import FIELDS
from edge.appliance.console.live import MAX_STREAMS, Streams, first_of
from edge.appliance.console.visit import CONSOLE, Console
from edge.appliance.tasks import Scope
from tests.appliance.console.desk import Desk


class Stream:
    """What a page hears."""

    def __init__(self, answer: ClientResponse) -> None:
        self.answer = answer

    async def next(self) -> str:
        """The next message's name; empty at the end of the stream."""
        async with asyncio.timeout(10):
            name = (await self.answer.content.readline()).decode()
            if name:
                assert await self.answer.content.readline() == b"data:\n"
                assert await self.answer.content.readline() == b"\n"
        return name.removeprefix("event: ").strip()

    async def until(self, name: str) -> None:
        """Hear messages up to one of this name."""
        while (heard := await self.next()) != name:
            assert heard == "changed"


@asynccontextmanager
async def listening(desk: Desk) -> AsyncIterator[Stream]:
    """A stream that has said its first word."""
    headers = {"Cookie": desk.cookie, "Sec-Fetch-Site": "same-origin"}
    where = f"{desk.origin}/console/stream"
    async with desk.service.session.get(where, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert FIELDS.items() <= dict(answer.headers).items()
        stream = Stream(answer)
        assert await stream.next() == "changed"
        yield stream


def console_of(service: Service) -> Console:
    """What the console keeps."""
    assert service.plane._runner is not None
    (app,) = service.plane._runner.app._subapps
    return app[CONSOLE]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No message without a change."""
    monkeypatch.setattr(live, "BEAT", 3600.0)


@pytest.mark.usefixtures("quiet")
async def test_every_kind_of_change_is_told(service: Service, desk: Desk) -> None:
    """A state, an event alone, a grant, and what traffic amounts to; each wakes the stream."""
    async with listening(desk) as stream:
        sandbox = await service.create(**PAUSES)
        assert await stream.next() == "changed"
        await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
        assert await stream.next() == "changed"
        await service.api("POST", f"/v1/sandboxes/{sandbox}/timeout", {"timeout_ms": 60_000})
        assert await stream.next() == "changed"
        path = f"/v1/sandboxes/{sandbox}/ports/80/signed-preview-url"
        _, made = await service.api("POST", path, {})
        assert await stream.next() == "changed"
        item = {"sandbox_id": sandbox, "grant_id": made["grant"]["id"], "requests": 1}
        status, _ = await service.edge(
            "POST", "usage", {"edge": "e", "sequence": 1, "items": [item]}
        )
        assert status == 204
        assert await stream.next() == "changed"


async def test_a_page_is_told_now_and_then_although_nothing_happens(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ages and times left go on."""
    monkeypatch.setattr(live, "BEAT", 0.01)
    async with listening(desk) as stream:
        assert [await stream.next(), await stream.next()] == ["changed", "changed"]


@pytest.mark.usefixtures("quiet")
async def test_many_changes_make_few_messages(
    service: Service, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While changes are gathered nothing is said, however many there are; the end is, at once."""
    monkeypatch.setattr(live, "GATHER", 3600.0)
    async with listening(desk) as stream:
        sandbox = await service.create()
        for _ in range(20):
            await service.api("POST", f"/v1/sandboxes/{sandbox}/timeout", {"timeout_ms": 60_000})
        await desk.post("/logout")
        assert await stream.next() == "over"


@pytest.mark.usefixtures("quiet")
async def test_it_ends_with_its_session(service: Service, desk: Desk) -> None:
    """Logging out ends the streams of this login, and of no other."""
    other = Desk(service)
    await other.log_in()
    async with listening(desk) as stream, listening(other) as others:
        await desk.post("/logout")
        await stream.until("over")
        assert await stream.next() == ""
        await service.create()
        assert await others.next() == "changed"


@pytest.mark.usefixtures("quiet")
async def test_it_ends_when_the_sessions_time_is_up(service: Service, desk: Desk) -> None:
    """By itself: it never waits for longer than the session lasts."""
    sessions, now = console_of(service).sessions, 1000.0
    sessions._clock = lambda: now
    (session,) = sessions._all.values()
    session.ends_at = now + 0.3
    async with listening(desk) as stream:
        now = session.ends_at
        await stream.until("over")
        assert await stream.next() == ""
    assert (await desk.get()).location == "/console/login"


@pytest.mark.usefixtures("quiet")
async def test_one_too_many_ends_the_oldest(service: Service, desk: Desk) -> None:
    """Which hears why; the others go on."""
    streams = console_of(service).streams
    async with listening(desk) as oldest, listening(desk) as second:
        rest = [listening(desk) for _ in range(MAX_STREAMS - 1)]
        opened = [await stream.__aenter__() for stream in rest]
        await oldest.until("full")
        assert await oldest.next() == ""
        assert len(streams) == MAX_STREAMS
        await service.create()
        assert await second.next() == "changed" and await opened[-1].next() == "changed"
        for stream in rest:
            await stream.__aexit__(None, None, None)


async def test_who_is_gone_gives_the_place_back(
    service: Service, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next message at the latest."""
    monkeypatch.setattr(live, "BEAT", 0.01)
    streams = console_of(service).streams
    async with listening(desk):
        assert len(streams) == 1
    await until(lambda: len(streams) == 0)


async def test_an_open_stream_does_not_hold_up_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control plane stops with pages open, without a complaint."""
    async with Service(tmp_path) as service:
        desk = Desk(service)
        await desk.log_in(KEY)
        async with listening(desk) as stream:
            await service.plane.stop()
            while await stream.next():
                pass
    assert "crash" not in capsys.readouterr().err


def test_places_are_given_back_whatever_happens() -> None:
    """Also by one that was lost already."""
    streams = Streams(most=1)
    with streams.taken() as first:
        with streams.taken() as second:
            assert first.lost.is_set() and not second.lost.is_set()
            assert len(streams) == 1
        assert len(streams) == 0
    assert len(streams) == 0


async def test_waiting_for_the_first_of_several() -> None:
    """One that is set already costs no task; a closed scope is an end like any other."""
    scope = Scope(lambda *_: None)
    one, other = asyncio.Event(), asyncio.Event()
    waiting = asyncio.create_task(first_of(scope, (one, other), 60.0))
    await asyncio.sleep(0)
    other.set()
    await waiting
    await first_of(scope, (one, other), 60.0)
    await first_of(scope, (one,), 0.0)
    await scope.close()
    with pytest.raises(ConnectionError):
        await first_of(scope, (one,), 60.0)
