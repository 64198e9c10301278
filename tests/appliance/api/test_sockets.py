"""Which conversation a socket is for."""

from __future__ import annotations

import json

import pytest
from aiohttp import WSServerHandshakeError
from service import KEY, Service

HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("query", "first", "answer"),
    [
        ("", {"type": "file_watch", "id": "1", "path": "/"}, "file_watch_started"),
        ("?channel=exec", {"type": "exec_start", "id": "1", "command": "true"}, "exec_started"),
    ],
)
async def test_each_channel_has_its_own(
    service: Service, query: str, first: dict[str, str], answer: str
) -> None:
    """Commands in one, directories without any."""
    path = f"/v1/sandboxes/{await service.create()}/ws{query}"
    async with service.session.ws_connect(path, headers=HEADERS) as socket:
        await socket.send_str(json.dumps(first))
        assert json.loads(await socket.receive_str(timeout=20))["type"] == answer


async def test_other_channels_are_not_offered(service: Service) -> None:
    """Whether the sandbox exists or not."""
    for channel in ("pty", "", "EXEC"):
        path = f"/v1/sandboxes/sb_1/ws?channel={channel}"
        with pytest.raises(WSServerHandshakeError) as refused:
            await service.session.ws_connect(path, headers=HEADERS)
        assert refused.value.status == 501
