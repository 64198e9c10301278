"""A control plane on loopback that speaks the internal API for real and does what each test scripts.

It keeps records with versions, tells watchers of every change, and counts each call by kind, because
"one wake" and "a stranger costs nothing" are judged by what the *control plane* saw, never by the edge.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiohttp import web

from edge.core.records import GrantRecord, SandboxRecord, State, Upstream
from edge.state import wire
from edge.state.port import Change, Heartbeat, Resync, UsageBatch, WatchEvent
from tests.flows.scripts import Call, Script, as_json, refusal, resume, told

TOKEN = "service-token-of-at-least-32-characters"
HEARTBEAT = 0.2


class ControlPlane:
    """Records and calls. ``on_resume`` answers resumes, ``on_grant`` (when set) look-ups of grants, ``fault``
    (when set) every call but the watch.
    """

    def __init__(self) -> None:
        self.sandboxes: dict[str, SandboxRecord] = {}
        self.grants: dict[str, GrantRecord] = {}
        self.upstreams: dict[str, Upstream] = {}
        """Where the next incarnation of a sandbox will be reached."""
        self.jwks: dict[str, Any] = {"keys": []}
        self.keys_gate = asyncio.Event()
        """While it is clear, the keys are asked for in vain."""
        self.keys_gate.set()
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.acks: list[wire.AckCall] = []
        self.usage: list[UsageBatch] = []
        self.incarnations: Counter[str] = Counter()
        """New incarnations begun since the start, by sandbox."""
        self.crashes: list[str] = []
        """Mistakes of a test's own script; `Stage` fails the test for them."""
        self.on_call: Callable[[Call], None] = lambda _: None
        """Hears of every call before it is answered."""
        self.on_record: Callable[[SandboxRecord | GrantRecord], None] = lambda _: None
        """Hears of every record that watchers are told of: a publisher's place."""
        self.on_resume: Script = resume
        self.on_grant: Script | None = None
        self.fault: Script | None = None
        self.port = 0
        self._changes: list[Change] = []
        self._first = 0  # the cursor before the oldest change that is kept
        self._watchers: set[asyncio.Queue[WatchEvent]] = set()
        self._beating = True
        self._something = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # --- Life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, the second time on the same port as before."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/.well-known/jwks.json", self._keys),
                web.get(f"{wire.PREFIX}/events", self._events),
                web.get(f"{wire.PREFIX}/sandboxes/{{id}}", self._call("sandbox", self._sandbox)),
                web.get(f"{wire.PREFIX}/grants/{{id}}", self._call("grant", None)),
                web.post(f"{wire.PREFIX}/sandboxes/{{id}}/resume", self._call("resume", None)),
                web.post(f"{wire.PREFIX}/usage", self._call("usage", self._take_usage)),
                web.post(f"{wire.PREFIX}/acks", self._call("acks", self._take_ack)),
            ]
        )
        # A script that waits for ever must end with its caller, or the test would hang.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Die: nobody listens any more, every connection ends."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    # --- For tests ----------------------------------------------------------------------------------

    def put(self, record: SandboxRecord | GrantRecord, *, tell: bool = True) -> Any:
        """Take over a record under the next version; watchers hear of it unless ``tell`` is off."""
        if isinstance(record, SandboxRecord):
            old = self.sandboxes.get(record.id)
            record = replace(record, version=old.version + 1 if old else record.version)
            self.sandboxes[record.id] = record
        else:
            known = self.grants.get(record.id)
            record = replace(record, version=known.version + 1 if known else record.version)
            self.grants[record.id] = record
        if tell:
            change = Change(self._cursor + 1, record)
            self._changes.append(change)
            for queue in self._watchers:
                queue.put_nowait(change)
            self.on_record(record)
        self._notify()
        return record

    def change_sandbox(
        self, sandbox_id: str, *, tell: bool = True, **changes: Any
    ) -> SandboxRecord:
        """Publish a sandbox's record with changes."""
        return self.put(replace(self.sandboxes[sandbox_id], **changes), tell=tell)

    def change_grant(self, grant_id: str, *, tell: bool = True, **changes: Any) -> GrantRecord:
        """Publish a grant's record with changes."""
        return self.put(replace(self.grants[grant_id], **changes), tell=tell)

    def begin_incarnation(self, sandbox_id: str, *, tell: bool = True) -> SandboxRecord:
        """The sandbox runs in a new incarnation."""
        self.incarnations[sandbox_id] += 1
        return self.change_sandbox(
            sandbox_id,
            tell=tell,
            state=State.RUNNING,
            incarnation=self.sandboxes[sandbox_id].incarnation + 1,
            running_since=time.time(),
            upstream=self.upstreams[sandbox_id],
        )

    def pause(self, sandbox_id: str, *, tell: bool = True) -> SandboxRecord:
        """The sandbox is paused."""
        return self.change_sandbox(
            sandbox_id, tell=tell, state=State.PAUSED, upstream=None, running_since=None
        )

    def fall_silent(self, *, silent: bool = True) -> None:
        """Heartbeats stop (or go on), connections stay."""
        self._beating = not silent

    def forget_changes(self) -> None:
        """Changes so far are kept no longer, with one among them that nobody was told: every watcher is told so."""
        self._first = self._cursor + 1
        self._changes.clear()

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until something seen or published here makes ``holds`` true."""
        async with asyncio.timeout(seconds):
            while not holds():
                await self._something.wait()

    async def called(self, kind: str, times: int = 1) -> None:
        """Wait until calls of a kind have come that often."""
        await self.until(lambda: self.counts[kind] >= times)

    @property
    def asked(self) -> dict[str, int]:
        """What a stranger must not cause: look-ups and resumes so far."""
        return {kind: self.counts[kind] for kind in ("sandbox", "grant", "resume")}

    @property
    def _cursor(self) -> int:
        return self._first + len(self._changes)

    def _notify(self) -> None:
        # A new event each time, so that whoever waits is let go once per happening.
        happened, self._something = self._something, asyncio.Event()
        happened.set()

    # --- Answers ------------------------------------------------------------------------------------

    def _call(self, kind: str, answer: Script | None) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return web.json_response({"code": "unauthorized"}, status=401)
            call = Call(kind, request.match_info.get("id", ""), request, await request.read(), self)
            self.calls.append(call)
            self.counts[kind] += 1
            self.on_call(call)
            self._notify()
            # Looked at now, not when the routes were made: scripts change during a test.
            try:
                scripted = {"resume": self.on_resume, "grant": self.on_grant or self._grant}
                return await (self.fault or answer or scripted[kind])(call)
            except Exception as e:
                self.crashes.append(f"{kind}: {e!r}")
                raise

        return handle

    async def _keys(self, _: web.Request) -> web.Response:
        self.counts["keys"] += 1
        self._notify()
        await self.keys_gate.wait()
        return web.json_response(self.jwks)

    async def _sandbox(self, call: Call) -> web.Response:
        record = self.sandboxes.get(call.id)
        return told(record) if record else refusal(404, "not_found")

    async def _grant(self, call: Call) -> web.Response:
        record = self.grants.get(call.id)
        return as_json(wire.grant_to_json(record)) if record else refusal(404, "not_found")

    async def _take_usage(self, call: Call) -> web.Response:
        self.usage.append(wire.usage_from_json(call.body))
        self._notify()
        return web.Response(status=204)

    async def _take_ack(self, call: Call) -> web.Response:
        self.acks.append(wire.ack_from_json(call.body))
        self._notify()
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.WebSocketResponse:
        self.counts["events"] += 1
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        queue: asyncio.Queue[WatchEvent] = asyncio.Queue()
        cursor = int(request.query.get("cursor", self._cursor))
        if self._first <= cursor <= self._cursor:
            for change in self._changes[cursor - self._first :]:
                queue.put_nowait(change)
            queue.put_nowait(Heartbeat(self._cursor))
        else:
            queue.put_nowait(Resync(self._cursor))
        self._watchers.add(queue)
        try:
            await self._tell(socket, queue)
        except ConnectionError:
            pass  # The edge has ended.
        finally:
            self._watchers.discard(queue)
        return socket

    async def _tell(self, socket: web.WebSocketResponse, queue: asyncio.Queue[WatchEvent]) -> None:
        event = await queue.get()
        while True:
            if self._beating or not isinstance(event, Heartbeat):
                await socket.send_str(wire.event_to_json(event))
            try:
                async with asyncio.timeout(HEARTBEAT):
                    event = await queue.get()
            except TimeoutError:
                event = Heartbeat(event.cursor)
