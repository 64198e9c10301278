"""Our own proxies: which addresses are theirs, and what follows for who asks and who is charged."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from edge.core.head import Head
from edge.core.outbound import Peer
from edge.traffic.proxies import Proxies
from tests.core.wires import HOST, scanner

OURS = (ip_network("10.0.0.0/9"), ip_network("2001:db8::/32"), ip_network("fe80::/10"))


def proxies() -> Proxies:
    """Those of three networks, behind which the edge is reached by https."""
    return Proxies(OURS, b"https")


def asked(*fields: bytes) -> Head:
    """A request with these fields."""
    return scanner().scan(b"\r\n".join([b"GET / HTTP/1.1", b"Host: " + HOST, *fields]))


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("fe80::1%eth0", True),
        ("10.200.0.1", False),
        ("::ffff:11.1.2.3", False),
        ("2001:db9::1", False),
        ("unix", False),
        ("", False),
    ],
)
def test_trust_is_by_network(address: str, trusted: bool) -> None:
    """Mapped and scoped addresses, too; what is no address is nobody's. The same when asked again."""
    ours = proxies()
    assert [ours.trusts(address) for _ in range(2)] == [trusted] * 2
    assert not Proxies((), b"https").trusts(address)


def test_answers_are_remembered_for_few() -> None:
    """Any number of addresses leaves no more than so many behind, and every answer right."""
    ours = proxies()
    for i in range(5000):
        assert ours.trusts(f"10.{i // 256}.{i % 256}.1")
    assert ours.trusts("10.1.2.3") and not ours.trusts("10.200.0.1")
    assert len(ours._known) <= 4096


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("10.1.2.3", Peer(b"10.1.2.3", True, b"http")),
        ("192.0.2.1", Peer(b"192.0.2.1", False, b"https")),
        ("unix", Peer(b"unix", False, b"https")),
    ],
)
def test_the_scheme_is_believed_of_our_own_only(address: str, peer: Peer) -> None:
    """Anybody else gets the scheme by which the edge is reached, whatever it says."""
    assert proxies().peer_of(address, asked(b"X-Forwarded-Proto: http")) == peer


@pytest.mark.parametrize(
    ("address", "fields", "visitor"),
    [
        ("10.1.2.3", (b"X-Forwarded-For: 203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        ("10.1.2.3", (b"X-Forwarded-For: nobody",), "10.1.2.3"),
        ("10.1.2.3", (), "10.1.2.3"),
        ("192.0.2.1", (b"X-Forwarded-For: 203.0.113.9",), "192.0.2.1"),
    ],
)
def test_who_is_charged(address: str, fields: tuple[bytes, ...], visitor: str) -> None:
    """Who came to our own proxy; the peer itself, where it is none of ours or does not say."""
    assert proxies().visitor_of(address, asked(*fields)) == visitor
