"""The state port over HTTP: the internal API of ``docs/internal-api.yaml``, from the edge's side.

Whatever goes wrong on the way (no connection, no answer in time, a status or a body that is not in the
contract) becomes `Unavailable` here, with a message that holds no credential. An answer is believed
only when it is in the wire format and about the id that was asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from edge import __version__
from edge.core.records import GrantRecord, SandboxRecord
from edge.core.settings import ControlPlaneSettings
from edge.state import wire
from edge.state.calls import failure, open_session, read_bounded
from edge.state.port import RefusalReason, ResumeRefused, Unavailable, UsageBatch, WatchEvent

MAX_BODY = 1 << 20
"""Bytes of an answer, or of one frame of the watch, that are read. A record has a few hundred."""

RESUME_MARGIN = 1.0
"""Seconds an answer to a resume may come after the control plane's own time for it is up."""

WATCH_SILENCE = 3.0
"""Seconds without a frame after which a watch is given up; heartbeats come every 0.3 s.

Part of what ``docs/internal-api.yaml`` promises, and no setting: ten heartbeats in a row have not come, however
long the edge may believe what it knows. ``catalog.stale_after`` bounds something else, the time without any
event of any port, in which this one may have to connect. Being shorter, this finds a dead connection while
there is time for another one before the control plane counts as silent.
"""

SHORT_CALLS = 64
"""Look-ups, reports and acks under way at once."""

RESUME_CALLS = 1024
"""Resumes under way at once. They have their own room, so that they cannot hold up look-ups."""

# Shorter than the idle limits of common servers (5 s and up): a POST on a connection that the server
# is just closing would fail, and a resume is never sent twice from here.
_IDLE_CONNECTION = 4.0

_REFUSALS = {
    (404, "not_found"): RefusalReason.NOT_FOUND,
    (409, "auto_resume_disabled"): RefusalReason.AUTO_RESUME_DISABLED,
    (503, "resume_failed"): RefusalReason.FAILED,
    (503, "resume_timeout"): RefusalReason.TIMEOUT,
}


R = TypeVar("R", SandboxRecord, GrantRecord)


class HttpStatePort:
    """`StatePort` over one ``aiohttp.ClientSession``, opened on first use inside the running loop.

    Raises ValueError for a ``settings.url`` that is not a plain http(s) base URL. ``silence`` is in
    seconds and says when a watch without frames is given up.
    """

    def __init__(
        self, settings: ControlPlaneSettings, edge_id: str, *, silence: float = WATCH_SILENCE
    ) -> None:
        self._base = _base_url(settings.url)
        self._token = settings.token
        self._timeout = settings.timeout
        self._edge_id = edge_id
        self._silence = silence
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._short = asyncio.Semaphore(SHORT_CALLS)
        self._long = asyncio.Semaphore(RESUME_CALLS)

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        """See `StatePort.sandbox`."""
        return await self._record("sandboxes", sandbox_id, wire.sandbox_from_json)

    async def grant(self, grant_id: str) -> GrantRecord | None:
        """See `StatePort.grant`."""
        return await self._record("grants", grant_id, wire.grant_from_json)

    async def resume(
        self, sandbox_id: str, paused_incarnation: int, reason: str, timeout: float
    ) -> SandboxRecord:
        """See `StatePort.resume`. Sent once: whether to try again is for those who wait to decide."""
        segment = _segment(sandbox_id)
        if segment is None:
            raise ResumeRefused(RefusalReason.NOT_FOUND)
        call = wire.ResumeCall(
            paused_incarnation=paused_incarnation, reason=reason, timeout=timeout
        )
        status, body = await self._call(
            "POST",
            f"sandboxes/{segment}/resume",
            call.model_dump_json().encode(),
            timeout=timeout + RESUME_MARGIN,
            room=self._long,
        )
        if status == 200:
            return _believed("sandboxes", sandbox_id, wire.sandbox_from_json, body)
        refusal = _REFUSALS.get((status, _code(body) or ""))
        if refusal is None:
            raise Unavailable(f"resume: status {status}")
        raise ResumeRefused(refusal)

    async def report(self, batch: UsageBatch) -> None:
        """See `StatePort.report`."""
        await self._tell("usage", wire.usage_to_json(batch))

    async def ack(self, sandbox_id: str, version: int, in_flight: int) -> None:
        """See `StatePort.ack`."""
        call = wire.AckCall(
            edge=self._edge_id, sandbox_id=sandbox_id, version=version, in_flight=in_flight
        )
        await self._tell("acks", call.model_dump_json().encode())

    async def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
        """See `StatePort.watch`. Close the generator (``aclosing``) to let go of the connection."""
        query = {"edge": self._edge_id} | ({} if cursor is None else {"cursor": str(cursor)})
        socket = await self._connect(self._url("events").with_query(query))
        try:
            while True:
                yield await self._next_event(socket)
        finally:
            await socket.close()

    async def close(self) -> None:
        """See `StatePort.close`. Calls made later raise `Unavailable`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _record(self, kind: str, record_id: str, parse: Callable[[bytes], R]) -> R | None:
        segment = _segment(record_id)
        if segment is None:
            return None
        status, body = await self._call("GET", f"{kind}/{segment}")
        # A 404 without the API's own code comes from something else that listens there (a proxy in
        # front, a wrong base URL), and must not make every sandbox look destroyed.
        if status == 404 and _code(body) == "not_found":
            return None
        if status != 200:
            raise Unavailable(f"{kind}: status {status}")
        return _believed(kind, record_id, parse, body)

    async def _tell(self, path: str, body: bytes) -> None:
        status, _ = await self._call("POST", path, body)
        if status != 204:
            raise Unavailable(f"{path}: status {status}")

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout: float | None = None,
        room: asyncio.Semaphore | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of one call. ``timeout`` (seconds) covers waiting for room as well."""
        limit = self._timeout if timeout is None else timeout
        headers = {"Content-Type": "application/json"} if body is not None else {}
        what = path.partition("/")[0]
        try:
            async with (
                asyncio.timeout(limit),
                room or self._short,
                self._open().request(method, self._url(path), data=body, headers=headers) as answer,
            ):
                return answer.status, await read_bounded(answer, MAX_BODY)
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise Unavailable(f"{what}: {failure(e, limit)}") from None

    async def _connect(self, url: URL) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._open().ws_connect(
                    url,
                    max_msg_size=MAX_BODY,
                    # There is nothing to say at the end; a dead peer must not hold up our own.
                    timeout=aiohttp.ClientWSTimeout(ws_close=0.2),
                )
        except (aiohttp.ClientError, OSError, ValueError, AssertionError) as e:
            # aiohttp asserts that the connection is still there after a 101.
            raise Unavailable(f"events: {failure(e, self._timeout)}") from None

    async def _next_event(self, socket: aiohttp.ClientWebSocketResponse) -> WatchEvent:
        try:
            # Around the whole receive: aiohttp's own limit starts anew with every ping.
            async with asyncio.timeout(self._silence):
                message = await socket.receive()
        except (aiohttp.ClientError, OSError) as e:
            raise Unavailable(f"events: {failure(e, self._silence)}") from None
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise Unavailable(f"events: ended with {message.type.name.lower()}")
        try:
            return wire.event_from_json(message.data)
        except wire.WireError as e:
            raise Unavailable(f"events: {e}") from None

    def _url(self, path: str) -> URL:
        # Already encoded: yarl would decode some of what _segment encoded.
        return URL(f"{self._base}{wire.PREFIX}/{path}", encoded=True)

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise aiohttp.ClientConnectionError("the state port is closed")
        if self._session is None:
            self._session = open_session(
                # The semaphores bound the calls; the watch must never queue behind them.
                aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTION),
                {
                    "Authorization": f"Bearer {self._token.get_secret_value()}",
                    "User-Agent": f"preview-edge/{__version__}",
                },
            )
        return self._session


def _base_url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    plain = url.user is None and url.password is None and not url.query_string and not url.fragment
    if url.scheme not in ("http", "https") or not url.host or not plain:
        raise ValueError("control_plane.url must be like https://host:port, without user or query")
    return str(url).rstrip("/")


def _segment(record_id: str) -> str | None:
    """An id as one path segment; None for what no record can be called.

    Dot segments would be resolved on the way (RFC 3986 section 5.2.4) and reach another resource.
    """
    try:
        return None if record_id in ("", ".", "..") else quote(record_id, safe="")
    except UnicodeEncodeError:
        return None


def _believed(kind: str, record_id: str, parse: Callable[[bytes], R], body: bytes) -> R:
    try:
        record = parse(body)
    except wire.WireError as e:
        raise Unavailable(f"{kind}: {e}") from None
    if record.id != record_id:
        raise Unavailable(f"{kind}: the answer is about another id")
    return record


def _code(body: bytes) -> str | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    code = answer.get("code") if isinstance(answer, dict) else None
    return code if isinstance(code, str) else None
