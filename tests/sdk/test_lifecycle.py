"""Lifecycle events with nullspace-sdk 0.1.9, unchanged: lists, streams that are cut, and its command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from nullspace import AsyncLifecycle, AsyncSandbox, Lifecycle, Sandbox
from nullspace.errors import SandboxError
from nullspace.types import LifecycleActorKind, LifecycleEvent, LifecycleOperation, LifecycleStatus

from tests.sdk.planes import KEY, Cutter, Plane

# What the client does with its WebSocket library is deprecated there; as an error it would be one more cut.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
)

PROGRAM = Path(sys.executable).with_name("nullspace")


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    """A control plane of the test's own."""
    async with Plane(tmp_path / "data") as running:
        yield running


class Thread:
    """The synchronous iterator, in a thread of its own, up to (and with) the event it is told to end at."""

    def __init__(self, events: Iterator[LifecycleEvent]) -> None:
        self._events = events
        self.seen: list[LifecycleEvent] = []
        self.last: str | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self._events:
                self.seen.append(event)
                if _is_end(event, self.last):
                    break
            self._events.close()  # type: ignore[attr-defined]
        except Exception as e:  # noqa: BLE001 - `end` raises it in the test
            self.error = e

    async def end(self) -> list[str]:
        """The ids of what it saw."""
        await asyncio.to_thread(self._thread.join, 60)
        assert not self._thread.is_alive(), f"it stands at event {len(self.seen)}"
        assert self.error is None, self.error
        return [event.id for event in self.seen]


class Task:
    """The asynchronous iterator, in the same way."""

    def __init__(self, events: AsyncIterator[LifecycleEvent]) -> None:
        self._events = events
        self.seen: list[LifecycleEvent] = []
        self.last: str | None = None
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for event in self._events:
            self.seen.append(event)
            if _is_end(event, self.last):
                break
        await self._events.aclose()  # type: ignore[attr-defined]

    async def end(self) -> list[str]:
        """The ids of what it saw."""
        async with asyncio.timeout(60):
            await self._task
        return [event.id for event in self.seen]


def _is_end(event: LifecycleEvent, sandbox: str | None) -> bool:
    done = (LifecycleOperation.DESTROY, LifecycleStatus.SUCCEEDED)
    return event.sandbox_id == sandbox and (event.operation, event.status) == done


async def _begun(readers: list[Any]) -> None:
    # Another process is on the way; looking again is all there is.
    async with asyncio.timeout(30):
        while not all(reader.seen for reader in readers):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


async def _last_life(plane: Plane, readers: list[Any]) -> None:
    """A life whose end all readers end at."""
    sandbox = (await plane.call("POST", "/sandboxes", {}))["id"]
    for reader in readers:
        reader.last = sandbox
    await plane.call("DELETE", f"/sandboxes/{sandbox}")


async def test_kills_and_cuts_lose_no_event_and_double_none(plane: Plane) -> None:
    """The way is cut again and again, the control plane killed twice and ended once, while events go on:
    every client sees what the list shows, once, in order.
    """
    first = await plane.live()
    async with Cutter(plane.port, seed=1) as way:
        login = {"base_url": f"http://127.0.0.1:{way.port}", "api_key": KEY}
        sync, asynchronous = Lifecycle(**login), AsyncLifecycle(**login)
        readers: list[Any] = [
            Thread(sync.stream_events()),
            Task(asynchronous.stream_events()),
            Thread(sync.stream_events(status="succeeded")),
            Task(asynchronous.stream_events(operation=LifecycleOperation.DESTROY)),
        ]
        direct = Lifecycle(**plane.login)
        readers.append(Thread(direct.stream_events(replay_limit=5)))
        await _begun(readers)
        for cuts, how in [(3, signal.SIGKILL), (6, signal.SIGTERM), (9, signal.SIGKILL)]:
            while way.cuts < cuts:
                await plane.live()
            await plane.end(how)
            await plane.start()
        way.calm = True
        await _last_life(plane, readers)
        seen = [await reader.end() for reader in readers]
        everything = await plane.listed()
        assert seen[0] == seen[1] == seen[4] == everything
        assert seen[2] == await plane.listed("&status=succeeded")
        assert seen[3] == await plane.listed("&operation=destroy")
        # The stream of a sandbox of the first run still answers.
        with closing(direct.stream_events(sandbox_id=first)) as events:
            assert [next(events).sandbox_id for _ in range(5)] == [first] * 5
        for client in (sync, direct):
            client.close()
        await asynchronous.close()


async def test_where_streams_begin(plane: Plane) -> None:
    """Replays, cursors and ``live_only``, as the client's arguments say."""
    for _ in range(3):
        await plane.live()
    ids = await plane.listed()
    client = AsyncLifecycle(**plane.login)

    async def first(count: int, **arguments: Any) -> list[str]:
        events = client.stream_events(**arguments)
        found = [(await anext(events)).id for _ in range(count)]
        await events.aclose()  # type: ignore[attr-defined]
        return found

    assert await first(15) == ids
    assert await first(4, replay_limit=4) == ids[-4:]
    assert await first(15, replay_limit=None) == ids
    assert await first(13, after_event_id=ids[1], replay_limit=1) == ids[2:]
    assert await first(3, operation="create") == await plane.listed("&operation=create")
    told = {"timeout_action": "destroy"}
    assert (await first(3, metadata=told))[0] == ids[0]
    for reader in (
        Task(client.stream_events(live_only=True)),
        Task(client.stream_events(replay_limit=0)),
    ):
        # Live from when the server has answered, which this client tells nobody; so try until it is.
        async with asyncio.timeout(30):
            while not reader.seen:
                await plane.live()
        await _last_life(plane, [reader])
        seen = await reader.end()
        assert seen == (await plane.listed())[-len(seen) :]
        assert not set(seen) & set(ids)
    await client.close()


@pytest.mark.parametrize("cursor", ["00000000-0000-4000-8000-000000000000", "x"])
async def test_an_unknown_cursor_is_an_error_and_the_end(plane: Plane, cursor: str) -> None:
    """Both clients raise, and do not try for ever."""
    sync, asynchronous = Lifecycle(**plane.login), AsyncLifecycle(**plane.login)
    with pytest.raises(SandboxError, match="after_event_id") as refused:
        await asyncio.to_thread(next, sync.stream_events(after_event_id=cursor))
    assert refused.value.code == "websocket_error"
    with pytest.raises(SandboxError, match="after_event_id"):
        await anext(asynchronous.stream_events(after_event_id=cursor))
    sync.close()
    await asynchronous.close()


async def test_the_stream_of_a_sandbox(plane: Plane) -> None:
    """From the handle: only its own events, also after it was killed, and the list agrees."""
    sandbox = await AsyncSandbox.create(on_timeout="pause", auto_resume=True, **plane.login)
    await plane.live()
    snapshot = await sandbox.hibernate()
    resumed = await AsyncSandbox.resume(snapshot.id, **plane.login)
    reader = Task(sandbox.stream_events())
    await _begun([reader])
    reader.last = sandbox.id
    await resumed.kill()
    ids = await reader.end()
    page = await sandbox.list_lifecycle(order_asc=True)
    assert [event.id for event in page.events] == ids
    woke = reader.seen[4]
    assert woke.operation is LifecycleOperation.RESUME_FROM_SNAPSHOT
    assert woke.actor_kind is LifecycleActorKind.USER
    assert (woke.snapshot_id, woke.source_sandbox_id) == (snapshot.id, sandbox.id)
    late = sandbox.stream_events(operation="destroy", status="succeeded")
    assert (await anext(late)).id == ids[-1]
    await late.aclose()  # type: ignore[attr-defined]
    lifecycle = AsyncLifecycle(**plane.login)
    by_snapshot = await lifecycle.list_snapshot_events(snapshot.id, order_asc=True)
    assert [event.id for event in by_snapshot.events] == ids[1:5]
    for client in (lifecycle, sandbox):
        await client.close()


async def test_handles_of_the_synchronous_client(plane: Plane) -> None:
    """The same from there; a sandbox there never was has no stream, a wrong key none at all."""

    def script() -> None:
        sandbox = Sandbox.create(**plane.login)
        sandbox.kill()
        with closing(sandbox.stream_events()) as events:
            operations = [next(events).operation.value for _ in range(3)]
        assert operations == ["create", "destroy", "destroy"]
        sandbox.id = "sb_00000000"
        with pytest.raises(SandboxError, match="HTTP 404") as unknown:
            next(sandbox.stream_events())
        assert unknown.value.code == "websocket_upgrade_error"
        with closing(Lifecycle(base_url=plane.login["base_url"], api_key="wrong")) as stranger:
            with pytest.raises(SandboxError) as refused:
                next(stranger.stream_events())
            assert refused.value.code == "unauthorized"

    await asyncio.to_thread(script)


async def test_subscriptions_with_callbacks(plane: Plane) -> None:
    """``subscribe`` of both clients: a replay, what happens, and a stop."""
    old = await plane.live()
    loop = asyncio.get_running_loop()
    got: dict[str, asyncio.Queue[str]] = {"sync": asyncio.Queue(), "async": asyncio.Queue()}
    sync, asynchronous = Lifecycle(**plane.login), AsyncLifecycle(**plane.login)

    def on_thread(event: LifecycleEvent) -> None:
        loop.call_soon_threadsafe(got["sync"].put_nowait, str(event.sandbox_id))

    threaded = await asyncio.to_thread(sync.subscribe, operation="create", on_event=on_thread)
    tasked = await asynchronous.subscribe(
        operation="create", on_event=lambda event: got["async"].put_nowait(str(event.sandbox_id))
    )
    async with asyncio.timeout(30):
        assert [await queue.get() for queue in got.values()] == [old, old]
        new = await plane.live()
        assert [await queue.get() for queue in got.values()] == [new, new]
    await asyncio.to_thread(threaded.stop)
    await tasked.stop()
    sync.close()
    await asynchronous.close()


async def test_the_command_line(plane: Plane) -> None:
    """``nullspace lifecycle events`` and ``stream``, as programs."""
    await plane.live()
    ids = await plane.listed()
    environ = {**os.environ, "NULLSPACE_API_URL": plane.login["base_url"], "NULLSPACE_API_KEY": KEY}

    async def run(*words: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(
            subprocess.run,
            [str(PROGRAM), "lifecycle", *words],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    status, out, _ = await run("events", "--order", "asc", "--limit", "2", "--offset", "1")
    page = json.loads(out)
    assert (status, [event["id"] for event in page["events"]]) == (0, ids[1:3])
    assert (page["offset"], page["limit"], page["has_more"]) == (1, 2, True)
    status, out, _ = await run("stream", "--max-events", "3", "--after-event-id", ids[0])
    assert (status, [json.loads(line)["id"] for line in out.splitlines()]) == (0, ids[1:4])
    status, out, _ = await run(
        "stream", "--max-events", "1", "--operation", "destroy", "--status", "succeeded",
        "--metadata-json", "{}",
    )  # fmt: skip
    assert (status, json.loads(out)["id"]) == (0, ids[-1])
    status, out, error = await run("stream", "--after-event-id", "no")
    assert (status, out) == (1, "") and "after_event_id" in error
