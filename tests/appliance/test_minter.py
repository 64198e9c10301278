"""What a grant's holder is given: tokens the edge believes, in URLs or for a header."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from edge.appliance.grant import AuthMode, Grant
from edge.appliance.keys import SigningKeys
from edge.appliance.minter import Minter
from edge.appliance.problems import ApiError
from edge.core.credentials import Expectation, Family, Keys, keys_from_jwks, peek, verify
from edge.core.records import Transport
from edge.core.target import Site, parse_target

ID = "sb_0123456789abcdef"
NOW = 1_700_000_000.25


@pytest.fixture
def signing(tmp_path: Path) -> SigningKeys:
    """The control plane's."""
    return SigningKeys(tmp_path)


@pytest.fixture
def keys(signing: SigningKeys) -> Keys:
    """What an edge makes of it."""
    return Keys(keys_from_jwks(signing.jwks), {})


@pytest.fixture
def minter(signing: SigningKeys) -> Minter:
    """For previews on edge.test."""
    site = Site("edge.test", "https", 8443)
    return Minter(lambda: signing.key, issuer="test", site=site, reserved=frozenset({3000}))


def _grant(port: int, mode: AuthMode = AuthMode.DIRECT, *kinds: Transport) -> Grant:
    return Grant(
        "pvg_1", ID, port, NOW, NOW + 900, NOW, mode, kinds or (Transport.HTTP, Transport.WEBSOCKET)
    )


def test_urls_carry_tokens_that_the_edge_believes(minter: Minter, keys: Keys) -> None:
    """Each URL names the sandbox's port, and its token verifies for exactly its transport."""
    preview = minter.preview(_grant(8080))
    tokens = set()
    for url, scheme, kind in (
        (preview.url, "https", Transport.HTTP),
        (preview.websocket_url, "wss", Transport.WEBSOCKET),
    ):
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc, parts.path) == (scheme, preview.host, "/")
        target = parse_target(parts.netloc.encode(), "edge.test")
        assert (target.sandbox_id, target.port) == (ID, 8080)  # type: ignore[union-attr]
        token = parse_qs(parts.query)["edge_token"][0].encode()
        peeked = peek(token, Family.EDGE, keys, Expectation("test", "edge.test", 4096))
        assert peeked is not None and verify(token, peeked)
        assert (peeked.claims.kind, peeked.claims.sub, peeked.claims.port) == (kind, ID, 8080)
        assert (peeked.claims.iat, peeked.claims.exp) == (NOW, NOW + 900)
        assert peeked.claims.grant == preview.grant.id
        tokens.add(token)
    assert len(tokens) == 2
    assert "edge_token" not in repr(preview)


@pytest.mark.parametrize(
    ("site", "host"),
    [
        (Site("edge.test", "https", 0), "80-sb-0123456789abcdef.edge.test"),
        (Site("edge.test", "https", 443), "80-sb-0123456789abcdef.edge.test"),
        (Site("edge.test", "http", 80), "80-sb-0123456789abcdef.edge.test"),
        (Site("edge.test", "http", 443), "80-sb-0123456789abcdef.edge.test:443"),
        (Site("localhost", "http", 3001), "80-sb-0123456789abcdef.localhost:3001"),
    ],
)
def test_the_public_port_is_named_where_it_has_to_be(minter: Minter, site: Site, host: str) -> None:
    """The scheme's own port is left out."""
    minter.site = site
    preview = minter.preview(_grant(80))
    assert preview.host == host
    assert preview.url.startswith(f"{site.scheme}://{host}/?edge_token=")
    assert minter.place(preview.grant) == f"{site.scheme}://{host}/"


@pytest.mark.parametrize("kinds", [(), (Transport.HTTP,), (Transport.WEBSOCKET,)])
def test_a_proxy_gets_tokens_apart_from_its_urls(
    minter: Minter, keys: Keys, kinds: tuple[Transport, ...]
) -> None:
    """Each transport asked for has a URL with the marker alone, and a token of the proxy's family."""
    target = minter.proxy_target(_grant(8080, AuthMode.PROXY, *kinds))
    ways = {Transport.HTTP: target.http, Transport.WEBSOCKET: target.websocket}
    assert {kind for kind, way in ways.items() if way} == set(kinds or Transport)
    expect = Expectation("test", "edge.test", 4096)
    tokens = set()
    for kind, way in ways.items():
        if way is None:
            continue
        scheme = "https" if kind is Transport.HTTP else "wss"
        host = "8080-sb-0123456789abcdef.edge.test:8443"
        assert way.url == f"{scheme}://{host}/?__ns_preview_transport=header"
        token = way.token.encode()
        assert peek(token, Family.EDGE, keys, expect) is None
        peeked = peek(token, Family.PROXY, keys, expect)
        assert peeked is not None and verify(token, peeked)
        claims = peeked.claims
        assert (claims.kind, claims.sub, claims.port, claims.grant) == (kind, ID, 8080, "pvg_1")
        assert (claims.iat, claims.exp) == (NOW, NOW + 900)
        assert way.token not in repr(target)
        tokens.add(token)
    assert len(tokens) == len(kinds or Transport)


def test_ports_of_our_own_are_none(minter: Minter) -> None:
    """Ours and the reserved ones are refused, others come back."""
    assert minter.port(8080) == 8080
    for port in (3000, 22, "80"):
        with pytest.raises(ApiError, match="unsupported_preview_port"):
            minter.port(port)
