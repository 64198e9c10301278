"""Your own FastAPI app in front of one preview: checks who asks, then passes everything on as it comes.

    uvicorn --app-dir examples/fastapi app:app --port 8000 --no-proxy-headers --no-server-header --no-date-header

`README.md` says what the environment has to have. Without the last two options uvicorn would add its own to the
app's; the first of the three is because whoever is in front may not say who asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect, HTTPConnection
from target import Target, Targets
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade expect".split()
)
# Written by this app. A visitor's own must not get through, nor anything of the x-nullspace- family.
OURS = frozenset(b"host forwarded x-forwarded-host x-forwarded-proto x-forwarded-for".split())
HANDSHAKE = b"sec-websocket-"
CONNECT = 5.0
"""Seconds. How long an answer may take is the edge's business, and a WebSocket may be silent for hours."""

Fields = list[tuple[bytes, bytes]]

targets = Targets()
# The transport and not `httpx.AsyncClient`, which would follow redirects, add fields of its own, and keep the
# cookies of one visitor to send them with the requests of another.
edge = httpx.AsyncHTTPTransport(
    limits=httpx.Limits(max_keepalive_connections=32, keepalive_expiry=60)
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """While the app runs."""
    async with targets.kept(), edge:
        yield


app = FastAPI(
    lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
)


# --- HTTP -------------------------------------------------------------------------------------------


@app.api_route("/{_:path}", methods=METHODS)
async def http(request: Request) -> Response:
    """One request and its answer, both streamed. Here is the place to ask whether this visitor may."""
    target = targets.current
    has_body = {"content-length", "transfer-encoding"} & set(request.headers)
    sent = httpx.Request(
        request.method,
        target.origin,
        headers=target.headers(target.http_token) + fields_for_edge(request),
        content=request.stream() if has_body else None,
        extensions={
            "target": path_of(request),  # byte for byte, where a URL would be normalised
            "timeout": {"connect": CONNECT, "read": None, "write": None, "pool": None},
        },
    )
    try:
        answer = await edge.handle_async_request(sent)
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it: the visitor left during an upload
    except httpx.TransportError as e:
        return JSONResponse({"error": f"The edge does not answer: {e!r}"}, 502)
    response = StreamingResponse(body_of(answer), answer.status_code)
    response.raw_headers = without_hops(answer.headers.raw)
    return response


async def body_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as the edge sends it; the connection is let go when the visitor leaves, too."""
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()


# --- WebSocket --------------------------------------------------------------------------------------


class Upgrade(connect):
    """A handshake that takes the first answer for what it is: neither redirects nor retries."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """What was answered goes to the visitor."""
        return exc


@app.websocket("/{_:path}")
async def websocket(visitor: WebSocket) -> None:
    """Accepted once the app has accepted it; its refusal, or the edge's, goes back as it is."""
    target = targets.current
    try:
        upstream = await open_upstream(target, visitor)
    except InvalidStatus as e:
        refusal = Response(bytes(e.response.body), e.response.status_code)
        refusal.raw_headers = without_hops(
            (name.lower().encode(), value.encode())
            for name, value in e.response.headers.raw_items()
        )
        await visitor.send_denial_response(refusal)
        return
    except (OSError, InvalidHandshake, TimeoutError) as e:
        await visitor.send_denial_response(
            JSONResponse({"error": f"The edge does not answer: {e!r}"}, 502)
        )
        return
    async with upstream:
        await visitor.accept(upstream.subprotocol, headers=cookies_of(upstream))
        # Whoever ends first ends the other: by its close code, or by leaving.
        ways = [
            asyncio.create_task(to_upstream(visitor, upstream)),
            asyncio.create_task(to_visitor(upstream, visitor)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def open_upstream(target: Target, visitor: WebSocket) -> ClientConnection:
    """The handshake with the app, through the edge."""
    origin = urlsplit(target.origin)
    secure = origin.scheme == "https"
    fields = target.headers(target.websocket_token) + fields_for_edge(visitor)
    place = {"host": origin.hostname, "port": origin.port or (443 if secure else 80)}
    if secure:
        place["server_hostname"] = origin.hostname
    return await Upgrade(
        f"{'wss' if secure else 'ws'}://{target.host}{path_of(visitor).decode('ascii')}",
        additional_headers=[
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in fields
            if name != b"host" and not name.startswith(HANDSHAKE)
        ],
        subprotocols=visitor.scope["subprotocols"] or None,
        user_agent_header=None,
        compression=None,
        max_size=None,
        open_timeout=None,  # the edge has a bound for waking a sandbox
        ping_interval=None,  # visitor and app look after each other
        proxy=None,
        **place,
    )


async def to_upstream(visitor: WebSocket, upstream: ClientConnection) -> None:
    """What the visitor says."""
    while True:
        said = await visitor.receive()
        if said["type"] == "websocket.disconnect":
            await upstream.close(*closing(said.get("code"), said.get("reason")))
            return
        text = said.get("text")
        await upstream.send(said["bytes"] if text is None else text)


async def to_visitor(upstream: ClientConnection, visitor: WebSocket) -> None:
    """What the app says."""
    try:
        async for said in upstream:
            await (visitor.send_text(said) if isinstance(said, str) else visitor.send_bytes(said))
    except ConnectionClosed:
        pass
    except WebSocketDisconnect:
        return
    await visitor.close(*closing(upstream.close_code, upstream.close_reason))


def closing(code: int | None, reason: str | None) -> tuple[int, str]:
    """Code and reason of a close frame; 1005, 1006 and 1015 say that there was none and cannot be sent."""
    if code in {None, 1005}:
        return 1000, ""
    return (1011, "") if code in {1006, 1015} else (code, reason or "")


# --- Fields -----------------------------------------------------------------------------------------


def path_of(visitor: HTTPConnection) -> bytes:
    """Path and query, byte for byte."""
    query = visitor.scope["query_string"]
    return visitor.scope["raw_path"] + (b"?" + query if query else b"")


def fields_for_edge(visitor: HTTPConnection) -> Fields:
    """The visitor's fields, with the truth about who asked."""
    # By the scope and not by `visitor.url`, which is not to be had where Host is no host; HTTP/1.0 may lack it.
    scheme = visitor.scope["scheme"].replace("ws", "http").encode()
    name, port = visitor.scope["server"]
    host = visitor.headers.get("host") or f"{name}:{port}"
    found = [
        (name, value)
        for name, value in without_hops(visitor.headers.raw)
        if name not in OURS and not name.startswith(b"x-nullspace-")
    ]
    found.append((b"x-forwarded-host", host.encode("latin-1")))
    found.append((b"x-forwarded-proto", scheme))
    if visitor.client is not None:
        found.append((b"x-forwarded-for", visitor.client.host.encode()))
    return found


def without_hops(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Without what is for the next hop only: the fixed names, and those that ``Connection`` lists."""
    fields = [(name.lower(), value) for name, value in fields]
    listed = b",".join(value for name, value in fields if name == b"connection").lower()
    hops = HOP_BY_HOP | {name.strip() for name in listed.split(b",")}
    return [(name, value) for name, value in fields if name not in hops]


def cookies_of(upstream: ClientConnection) -> Fields:
    """Cookies that the app set with its handshake."""
    assert upstream.response is not None
    cookies = upstream.response.headers.get_all("set-cookie")
    return [(b"set-cookie", cookie.encode()) for cookie in cookies]
