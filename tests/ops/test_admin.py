"""The admin listener by itself: three pages, on TCP or on a Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.ops.admin import Admin
from edge.ops.private import Places, ask
from edge.ops.process import StartError

TEXT = b"# HELP a_total A.\n# TYPE a_total counter\na_total 1.0\n"


class Fixed:
    """An admin listener whose reasons the test sets."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.admin = Admin(unready=self._unready, metrics=self._metrics)

    async def _unready(self) -> list[str]:
        return self.reasons

    async def _metrics(self) -> bytes:
        return TEXT


async def get(url: str) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.read()


async def test_three_pages_over_tcp() -> None:
    """Alive whatever happens; ready or not with the reasons; metrics in the text format."""
    fixed = Fixed()
    port = await fixed.admin.listen("127.0.0.1", 0)
    base = f"http://127.0.0.1:{port}"
    try:
        assert await get(f"{base}/readyz") == (
            200,
            "application/json; charset=utf-8",
            b'{"ready": true}',
        )
        fixed.reasons = ["draining", "keys not loaded"]
        status, _, body = await get(f"{base}/readyz")
        assert (status, json.loads(body)) == (503, {"ready": False, "reasons": fixed.reasons})
        status, _, body = await get(f"{base}/healthz")
        assert (status, json.loads(body)) == (200, {"alive": True})
        status, kind, body = await get(f"{base}/metrics")
        assert (status, body) == (200, TEXT) and kind.startswith("text/plain; version=")
        assert [family.name for family in text_string_to_metric_families(body.decode())] == ["a"]
        assert (await get(f"{base}/"))[0] == 404
    finally:
        await fixed.admin.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(f"{base}/healthz")


async def test_on_a_unix_socket() -> None:
    """A worker's listener, read by its supervisor: whatever its answer's status and length."""
    fixed, place = Fixed(), Places(1)[0]
    await fixed.admin.listen_privately(place)
    try:
        assert json.loads(await ask(place, "/healthz")) == {"alive": True}
        fixed.reasons = ["draining"]
        assert json.loads(await ask(place, "/readyz"))["reasons"] == ["draining"]
        assert await ask(place, "/metrics") == TEXT.decode()
    finally:
        await fixed.admin.close()
    with pytest.raises(OSError):
        await ask(place, "/healthz")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can come as somebody else")
async def test_who_comes_as_somebody_else_learns_nothing() -> None:
    """Abstract sockets have no permissions, and every user of the machine may connect."""
    fixed, place = Fixed(), Places(1)[0]
    await fixed.admin.listen_privately(place)
    sock = socket.socket(socket.AF_UNIX)
    try:
        os.seteuid(65534)
        sock.connect(str(place))
    finally:
        os.seteuid(0)
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await fixed.admin.close()
    assert answer.startswith(b"HTTP/1.0 403") and b"a_total" not in answer


async def test_a_taken_port_is_told() -> None:
    """By the setting's name; nothing is left open."""
    fixed = Fixed()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(StartError, match=r"^listen\.admin_port: .* is in use"),
    ):
        await fixed.admin.listen("127.0.0.1", taken.getsockname()[1])
    await fixed.admin.close()
