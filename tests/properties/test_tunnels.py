"""Tunnels: whatever bytes, in whatever pieces, arrive on the other side as they were sent."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.wires import HOST, UPGRADE, examples
from tests.flows.rawclient import RawClient
from tests.flows.stage import until
from tests.properties.exchanges import RECORDED_ANSWERS, RECORDED_REQUESTS, places
from tests.properties.live import PATIENCE, Live, send_cut

pytestmark = [
    pytest.mark.may_block("Hypothesis makes its examples between two turns of the loop"),
    pytest.mark.timeout(900),
]

HANDSHAKE = b"\r\n".join(
    [b"GET /tunnel?edge_token=@T HTTP/1.1", b"Host: " + HOST, *UPGRADE, b"", b""]
)
BYTES = (
    st.binary(max_size=200)
    | st.sampled_from([*RECORDED_REQUESTS, *RECORDED_ANSWERS])
    | st.binary(min_size=1, max_size=16).map(lambda data: data * 20_000)
)


@given(BYTES, places(), BYTES, places(), st.sampled_from(["early", "late"]))
@examples(60)
async def test_bytes_arrive_as_they_were_sent(
    live: Live, up: bytes, up_at: list[int], down: bytes, down_at: list[int], fin: str
) -> None:
    """Both ways at once, before and after the 101, HTTP among them; and so does the end of each side."""
    live.begin({})
    live.said_by_app, live.heard_by_app = (down, down_at), None
    wire = live.spelled(HANDSHAKE, websocket=True) + up
    async with asyncio.timeout(PATIENCE), await RawClient.open(live.stage.edge.port) as client:
        heard = asyncio.ensure_future(client.rest())
        await send_cut(client, wire, up_at)
        if fin == "late":
            await until(lambda: bool(live.stage.edge.admission.counts()["tunnels"]), PATIENCE)
        client.end()
        head, end, received = (await heard).partition(b"\r\n\r\n")
    await until(lambda: live.heard_by_app is not None, PATIENCE)
    assert head.startswith(b"HTTP/1.1 101 ") and end
    assert received == down
    assert live.heard_by_app == up
    await live.settle()
