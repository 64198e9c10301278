"""Grants: tokens the edge believes, ports, lifetimes, revocation, counters, bounds."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from edge.appliance import grants as module
from edge.appliance.feed import Feed
from edge.appliance.grants import Grants, Minter
from edge.appliance.keys import SigningKeys
from edge.appliance.problems import ApiError
from edge.core.credentials import Expectation, Family, Keys, keys_from_jwks, peek, verify
from edge.core.records import GrantRecord, GrantStatus, Transport
from edge.core.target import Site, parse_target
from edge.state.port import Usage

ID = "sb_0123456789abcdef"


class Bench:
    """Grants with a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_700_000_000.25
        self.key = SigningKeys(folder)
        self.feed = Feed(0)
        self.minter = Minter(
            lambda: self.key.key,
            issuer="test",
            site=Site("edge.test", "https", 8443),
            reserved=frozenset({3000}),
        )
        self.grants = Grants(self.minter, self.feed, lambda: self.now)

    def records(self) -> list[GrantRecord]:
        """What edges were told."""
        return [change.record for change in self.feed.since(0) or []]  # type: ignore[misc]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A fresh one."""
    return Bench(tmp_path)


def test_urls_carry_tokens_that_the_edge_believes(bench: Bench) -> None:
    """Each URL names the sandbox's port, and its token verifies for exactly its transport."""
    preview = bench.grants.issue(ID, 8080)
    keys = Keys(keys_from_jwks(bench.key.jwks), {})
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
        assert (peeked.claims.iat, peeked.claims.exp) == (bench.now, bench.now + 900)
        assert peeked.claims.grant == preview.grant.id
        tokens.add(token)
    assert len(tokens) == 2
    assert bench.records() == [preview.grant.record(bench.now)]
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
def test_the_public_port_is_named_where_it_has_to_be(bench: Bench, site: Site, host: str) -> None:
    """The scheme's own port is left out."""
    bench.minter.site = site
    preview = bench.grants.issue(ID, 80)
    assert preview.host == host
    assert preview.url.startswith(f"{site.scheme}://{host}/?edge_token=")


@pytest.mark.parametrize(
    "port", [22, 5900, 5999, 0, 65536, -1, 3000, "80", "x" * 99, None, True, 80.0, [80], 10**400]
)
def test_ports_that_cannot_be_previewed(bench: Bench, port: object) -> None:
    """Reserved, impossible and foreign values are one error, which shows what was asked."""
    with pytest.raises(ApiError) as refused:
        bench.grants.issue(ID, port)
    assert refused.value.problem.code == "unsupported_preview_port"
    shown = refused.value.details["port"]
    if type(port) is int and port < 2**53:
        assert shown == port
    else:
        assert isinstance(shown, str) and len(shown) <= 32
    assert bench.grants.of(ID) == []


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(None, 900), (59, 60), (-5, 60), (61, 61), (86_401, 86_400), (10**30, 86_400)],
)
def test_lifetimes_are_moved_into_range(bench: Bench, asked: int | None, seconds: int) -> None:
    """Whatever is asked for, tokens live from a minute to a day."""
    assert bench.grants.issue(ID, 80, asked).grant.expires_at == bench.now + seconds


def test_revoking_is_final_and_told(bench: Bench) -> None:
    """Edges get a new version at once; a second time changes nothing."""
    grant = bench.grants.issue(ID, 80).grant
    bench.now += 1
    assert bench.grants.revoke(ID, grant.id) is grant
    bench.now += 1000
    bench.grants.revoke(ID, grant.id)
    assert [r.status for r in bench.records()] == [GrantStatus.ACTIVE, GrantStatus.REVOKED]
    assert grant.status(bench.now) is GrantStatus.REVOKED
    for sandbox, name in (("sb_other", grant.id), (ID, "pvg_unknown")):
        with pytest.raises(ApiError, match="preview_grant_not_found"):
            bench.grants.revoke(sandbox, name)


def test_expiry_is_by_the_clock(bench: Bench) -> None:
    """Active until the very moment, expired from it on."""
    grant = bench.grants.issue(ID, 80, 60).grant
    assert grant.status(grant.expires_at - 0.001) is GrantStatus.ACTIVE
    bench.now = grant.expires_at
    record = bench.grants.record(grant.id)
    assert record is not None and record.status is GrantStatus.EXPIRED


def test_usage_is_added_up(bench: Bench) -> None:
    """Counters add, the first use stays, what cannot be is corrected, foreign usage is passed over."""
    grant = bench.grants.issue(ID, 80).grant
    bench.now += 1
    bench.grants.count(Usage(ID, grant.id, requests=2, bytes_in=3, bytes_out=4))
    first = bench.now
    bench.now += 1
    bench.grants.count(Usage(ID, grant.id, websockets=1, bytes_in=1, last_error_code="x" * 500))
    assert (grant.requests, grant.websockets, grant.bytes_in, grant.bytes_out) == (2, 1, 4, 4)
    assert (grant.first_used_at, grant.last_used_at) == (first, bench.now)
    assert grant.last_error_code == "x" * 100 and grant.last_error_at == bench.now
    for told in (float("nan"), float("inf"), -1.0, 1e300):
        bench.grants.count(Usage(ID, grant.id, last_error_code="y", last_error_at=told))
        assert grant.last_error_at == bench.now
    bench.grants.count(Usage("sb_other", grant.id, requests=9))
    bench.grants.count(Usage(ID, "pvg_unknown", requests=9))
    assert grant.requests == 2


def test_grants_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended grants make room oldest first, active ones are never dropped, and their number has an end."""
    monkeypatch.setattr(module, "ENDED_LIMIT", 2)
    monkeypatch.setattr(module, "ACTIVE_LIMIT", 3)
    old = [bench.grants.issue(ID, 80, 60).grant for _ in range(3)]
    with pytest.raises(ApiError, match="quota_exceeded"):
        bench.grants.issue(ID, 80)
    bench.now += 60
    bench.grants.issue(ID, 81)
    assert bench.grants.record(old[0].id) is None
    assert bench.grants.record(old[1].id) is None
    assert bench.grants.record(old[2].id) is not None
    assert [grant.port for grant in bench.grants.of(ID)] == [80, 81]
    assert [grant.port for grant in bench.grants.of(ID, 81)] == [81]
    bench.grants.forget(ID)
    assert bench.grants.of(ID) == [] and bench.grants.record(old[2].id) is None
