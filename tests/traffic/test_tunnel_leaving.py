"""Tunnels of an edge that goes away: a close frame where there is place for one, and then the end."""

from __future__ import annotations

import pytest

from edge.core.reports import End
from tests.traffic.test_tunnel import Stage, stage, until

__all__ = ["stage"]

PING = b"\x89\x00"
MASKED_PING = b"\x89\x80abcd"
GOODBYE = b"\x88\x02\x03\xe9"


def _unmasked(frame: bytes) -> bytes:
    """The payload of a short masked close frame."""
    assert frame[:2] == b"\x88\x82"
    return bytes(byte ^ key for byte, key in zip(frame[6:], frame[2:6], strict=False))


async def test_both_peers_are_told_and_may_answer(stage: Stage) -> None:
    """Status 1001 to both (RFC 6455 section 7.4.1); the tunnel is over when one has answered and left."""
    stage.open(from_client=MASKED_PING, from_upstream=PING)
    assert await stage.upstream.read(6) == MASKED_PING
    stage.tunnel.leave()
    stage.tunnel.leave()  # the drain asks again and again
    assert await stage.client.read(6) == PING + GOODBYE
    assert _unmasked(await stage.upstream.read(8)) == b"\x03\xe9"
    await stage.upstream.send(PING)
    await stage.client.send(b"\x88\x82abcdbc")
    stage.client.finish()
    await stage.over.wait()
    assert stage.ends == [End.DRAINED]
    assert await stage.client.rest() == b""  # nothing follows a close frame


@pytest.mark.parametrize(
    ("from_client", "from_upstream", "to_client", "to_upstream"),
    [
        (MASKED_PING, b"\x82\x05he", b"\x82\x05he", MASKED_PING + b"\x88\x82"),
        (b"\x82\x85ab", PING, PING + GOODBYE, b"\x82\x85ab"),
        (b"\x88\x80abcd", PING, PING + GOODBYE, b"\x88\x80abcd"),
    ],
)
async def test_a_frame_is_never_broken_up(
    stage: Stage, from_client: bytes, from_upstream: bytes, to_client: bytes, to_upstream: bytes
) -> None:
    """In the middle of a frame, or after a close frame, that peer is told nothing."""
    stage.open(from_client=from_client, from_upstream=from_upstream)
    await until(lambda: stage.carried("upstream") == len(from_upstream))
    stage.tunnel.leave()
    stage.client.finish()
    await stage.over.wait()
    assert await stage.client.rest() == to_client
    assert (await stage.upstream.rest()).startswith(to_upstream)


async def test_without_any_place_it_just_ends(stage: Stage) -> None:
    """Both streams stand in the middle of a frame."""
    stage.open(from_client=b"\x82\x85ab", from_upstream=b"\x82\x05he")
    stage.tunnel.leave()
    await stage.over.wait()
    assert await stage.client.rest() == b"\x82\x05he"
    assert stage.ends == [End.DRAINED]


async def test_a_peer_that_does_not_answer_is_left(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment later the tunnel ends by itself."""
    monkeypatch.setattr("edge.traffic.tunnel.GOODBYE", 0.01)
    stage.open()
    stage.tunnel.leave()
    await stage.over.wait()
    assert await stage.client.rest() == GOODBYE
    assert stage.ends == [End.DRAINED]
