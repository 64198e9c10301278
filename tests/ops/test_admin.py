"""The admin listener by itself: three pages, on TCP or on a Unix socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.ops.admin import Admin
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


async def get(url: str, connector: aiohttp.BaseConnector | None = None) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
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


async def test_on_a_unix_socket(tmp_path: Path) -> None:
    """A worker's listener, which only the supervisor's user can reach."""
    fixed = Fixed()
    await fixed.admin.listen_privately(tmp_path / "0")
    try:
        connector = aiohttp.UnixConnector(str(tmp_path / "0"))
        assert (await get("http://worker/healthz", connector))[0] == 200
    finally:
        await fixed.admin.close()


async def test_a_taken_port_is_told() -> None:
    """By the setting's name; nothing is left open."""
    fixed = Fixed()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(StartError, match=r"^listen\.admin_port: .* is in use"),
    ):
        await fixed.admin.listen("127.0.0.1", taken.getsockname()[1])
    await fixed.admin.close()
