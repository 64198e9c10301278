"""Calls of the edge's own: nothing happens by itself, nothing is endless, and words for what went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from edge.state.calls import Oversized, Redirected, failure, open_session, read_bounded

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


async def test_a_session_does_nothing_by_itself(serve: Serve) -> None:
    """No cookie is sent back, and what is compressed all the same is not decompressed."""
    seen: list[tuple[str | None, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers.get("Cookie"), request.headers["Accept-Encoding"]))
        return web.Response(
            body=b"\x1f\x8b not gzip",
            headers={"Set-Cookie": "a=1", "Content-Encoding": "gzip"},
        )

    url = await serve(handler)
    async with open_session(headers={"X-Ours": "1"}) as session:
        for _ in range(2):
            async with session.get(url) as answer:
                assert await read_bounded(answer, 100) == b"\x1f\x8b not gzip"
    assert seen == [(None, "identity")] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error(serve: Serve, status: int) -> None:
    """Nobody is asked but whom the settings name."""
    asked = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    url = await serve(handler)
    async with open_session() as session:
        with pytest.raises(Redirected):
            await session.get(url)
    assert asked == ["/"]


@pytest.mark.parametrize(("size", "fits"), [(0, True), (70_000, True), (70_001, False)])
async def test_a_body_is_read_up_to_its_bound(serve: Serve, size: int, fits: bool) -> None:
    """Whole, or not at all."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * size)

    url = await serve(handler)
    async with open_session() as session, session.get(url) as answer:
        if fits:
            assert len(await read_bounded(answer, 70_000)) == size
        else:
            with pytest.raises(Oversized):
                await read_bounded(answer, 70_000)


REQUEST = aiohttp.RequestInfo(URL("http://x/?edge_token=secret"), "GET", None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer within 2.5 s"),
        (aiohttp.WSServerHandshakeError(REQUEST, (), status=403), "no WebSocket, status 403"),
        (Redirected(), "a redirect, which is not followed"),
        (Oversized(), "the answer is too long"),
        (ValueError("http://x/?edge_token=secret"), "no usable answer (ValueError)"),
    ],
)
def test_a_failure_is_told_in_words_without_the_request(error: Exception, words: str) -> None:
    """What nobody has thought of is named by its type: its text may hold a URL or a header."""
    assert failure(error, 2.5) == words


async def test_a_refused_connection_is_told_in_the_systems_words(unused_tcp_port: int) -> None:
    """And by no address: the settings have it."""
    async with open_session() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(f"http://127.0.0.1:{unused_tcp_port}/")
    assert failure(caught.value, 1.0).startswith("cannot connect: Connect")
