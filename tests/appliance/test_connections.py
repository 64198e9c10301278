"""What is no HTTP is refused as everything else is: JSON, a code, a request id, and the connection ends."""

from __future__ import annotations

import asyncio

import pytest
from service import Service

from tests.flows.rawclient import parse_head


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"nonsense\r\n\r\n", "no good HTTP"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "no good HTTP"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", "too long"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "no good HTTP"),
    ],
)
async def test_what_is_no_http(service: Service, sent: bytes, told: str) -> None:
    """The error is ours, and the last thing on its connection; the next one is served."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.plane.port)
    writer.write(sent)
    async with asyncio.timeout(20):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    answer = parse_head(head.replace(b"HTTP/1.0", b"HTTP/1.1") + b"\r\n\r\n")
    answer.body = body
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert told in answer.json["error"] and answer.json["suggested_action"]
    assert answer.value("x-request-id") == answer.json["request_id"]
    assert answer.value("Cache-Control") == "no-store"
    assert (await service.raw("GET", "/healthz"))[0].status == 200
