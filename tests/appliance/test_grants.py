"""All grants: ports, lifetimes, revocation, an operator's switch, counters, bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.appliance import grants as module
from edge.appliance.audit import AuditFilter, AuditTrail
from edge.appliance.feed import Feed
from edge.appliance.grant import AuthMode
from edge.appliance.grants import Grants
from edge.appliance.keys import SigningKeys
from edge.appliance.minter import Minter
from edge.appliance.problems import ApiError
from edge.appliance.store import Store, StoreError
from edge.core.records import GrantRecord, GrantStatus, Transport
from edge.core.target import Site
from edge.state.port import Usage

ID = "sb_0123456789abcdef"


class Bench:
    """Grants with a clock that the test sets."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.now = 1_700_000_000.25
        self.feed = Feed(0)
        minter = Minter(
            lambda: SigningKeys(folder).key,
            issuer="test",
            site=Site("edge.test", "https", 8443),
            reserved=frozenset({3000}),
        )
        self.audit = AuditTrail(store, lambda: self.now)
        self.grants = Grants(minter, self.feed, self.audit, store, lambda: self.now)

    def records(self) -> list[GrantRecord]:
        """What edges were told."""
        return [change.record for change in self.feed.since(0) or []]  # type: ignore[misc]

    def told(self) -> list[str]:
        """The audit trail as ``who did [why]``, oldest first."""
        entries, _ = self.audit.select(AuditFilter(), offset=0, limit=99, ascending=True)
        return [
            f"{entry.doer} {entry.deed} {entry.code or entry.reason or ''}".rstrip()
            for entry in entries
        ]


@pytest.fixture
def bench(tmp_path: Path, store: Store) -> Bench:
    """A fresh one."""
    return Bench(tmp_path, store)


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
    assert bench.told() == ["user created", "user revoked"]
    for sandbox, name in (("sb_other", grant.id), (ID, "pvg_unknown")):
        with pytest.raises(ApiError, match="preview_grant_not_found"):
            bench.grants.revoke(sandbox, name)


def test_a_proxy_grant_is_for_the_transports_asked_for(bench: Bench) -> None:
    """Its record reaches no further; one revocation ends both tokens."""
    both = bench.grants.issue_proxy(ID, 80, 60)
    one = bench.grants.issue_proxy(ID, 80, kinds=[Transport.WEBSOCKET, Transport.WEBSOCKET])
    assert (both.grant.mode, both.grant.expires_at) == (AuthMode.PROXY, bench.now + 60)
    assert [record.kinds for record in bench.records()] == [
        frozenset(Transport),
        frozenset({Transport.WEBSOCKET}),
    ]
    assert one.grant.kinds == (Transport.WEBSOCKET,)
    assert bench.grants.of(ID) == [both.grant, one.grant]
    bench.grants.revoke(ID, both.grant.id)
    assert bench.records()[-1].status is GrantStatus.REVOKED
    with pytest.raises(ApiError, match="unsupported_preview_port"):
        bench.grants.issue_proxy(ID, 22)


def test_an_operator_disables_and_enables(bench: Bench) -> None:
    """Each change is one new version and one line of the trail; repeating it is nothing new."""
    grant = bench.grants.issue(ID, 80).grant
    bench.now += 1
    for _ in range(2):
        assert bench.grants.disable(grant.id, "phishing") is grant
    assert (grant.disabled_at, grant.updated_at) == (bench.now, bench.now)
    bench.now += 1
    for _ in range(2):
        bench.grants.enable(grant.id)
    assert grant.disabled_at is None and grant.updated_at == bench.now
    assert [(record.version, record.status.value) for record in bench.records()] == [
        (1, "active"), (2, "disabled"), (3, "active"),
    ]  # fmt: skip
    assert bench.told() == ["user created", "operator disabled phishing", "operator enabled"]
    for act in (bench.grants.disable, bench.grants.enable):
        with pytest.raises(ApiError, match="preview_grant_not_found"):
            act("pvg_unknown")


def test_what_has_ended_cannot_be_switched(bench: Bench) -> None:
    """Revoked and expired are for good, whether the grant was disabled before or not."""
    revoked, expired, shut = (bench.grants.issue(ID, 80, 60).grant for _ in range(3))
    bench.grants.disable(revoked.id)
    bench.grants.revoke(ID, revoked.id)
    bench.grants.disable(shut.id)
    bench.now += 60
    before = len(bench.records())
    for grant in (revoked, expired, shut):
        bench.grants.enable(grant.id)
        bench.grants.disable(grant.id)
    assert len(bench.records()) == before
    assert [grant.status(bench.now).value for grant in (revoked, expired, shut)] == [
        "revoked", "expired", "expired",
    ]  # fmt: skip


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
    bench.grants.count([Usage(ID, grant.id, requests=2, bytes_in=3, bytes_out=4)])
    first = bench.now
    bench.now += 1
    bench.grants.count([Usage(ID, grant.id, websockets=1, bytes_in=1, last_error_code="x" * 500)])
    assert (grant.requests, grant.websockets, grant.bytes_in, grant.bytes_out) == (2, 1, 4, 4)
    assert (grant.first_used_at, grant.last_used_at) == (first, bench.now)
    assert grant.last_error_code == "x" * 100 and grant.last_error_at == bench.now
    for told in (float("nan"), float("inf"), -1.0, 1e300):
        bench.grants.count([Usage(ID, grant.id, last_error_code="y", last_error_at=told)])
        assert grant.last_error_at == bench.now
    bench.grants.count([Usage("sb_other", grant.id, requests=9)])
    bench.grants.count([Usage(ID, "pvg_unknown", requests=9)])
    assert grant.requests == 2
    assert bench.told() == [
        "user created", "visitor used", f"visitor failed {'x' * 100}", "visitor failed y",
    ]  # fmt: skip


def test_counters_end_where_the_store_does(bench: Bench) -> None:
    """A sum that could not be written would be delivered for ever, and hold up all usage behind it."""
    grant = bench.grants.issue(ID, 80).grant
    most = (1 << 63) - 1
    for _ in range(2):
        bench.grants.count([Usage(ID, grant.id, most, most, most, most)])
    assert {grant.requests, grant.websockets, grant.bytes_in, grant.bytes_out} == {most}


def test_bytes_of_a_long_exchange_are_use(bench: Bench) -> None:
    """A WebSocket that was counted long ago keeps its grant's last use up to date; errors do not."""
    grant = bench.grants.issue(ID, 80).grant
    bench.grants.count([Usage(ID, grant.id, websockets=1)])
    bench.now += 100
    bench.grants.count([Usage(ID, grant.id, bytes_out=1)])
    assert grant.last_used_at == bench.now
    bench.now += 1
    bench.grants.count([Usage(ID, grant.id, active=False, last_error_code="e")])
    assert (grant.last_used_at, grant.last_error_at) == (bench.now - 1, bench.now)


def test_grants_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended grants make room oldest first; active and disabled ones stay, and their number has an end."""
    monkeypatch.setattr(module, "ENDED_LIMIT", 2)
    monkeypatch.setattr(module, "STANDING_LIMIT", 3)
    old = [bench.grants.issue(ID, 80, 60).grant for _ in range(3)]
    bench.grants.disable(old[0].id)
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


# --- After a restart ---------------------------------------------------------------------------------


def _again(bench: Bench, folder: Path, store: Store) -> Bench:
    """The same after a restart; the clock goes on."""
    after = Bench(folder, store)
    after.now = bench.now
    return after


def test_grants_are_what_they_were(bench: Bench, tmp_path: Path, store: Store) -> None:
    """Revoked stays revoked, disabled disabled, counters count on, and the trail tells of all of it."""
    revoked, disabled, used = (bench.grants.issue(ID, 80).grant for _ in range(3))
    bench.grants.revoke(ID, revoked.id)
    bench.grants.disable(disabled.id, "why")
    bench.grants.count([Usage(ID, used.id, requests=2, bytes_in=3, last_error_code="code")])
    told = bench.told()
    after = _again(bench, tmp_path, store)
    assert [grant.status(after.now).value for grant in after.grants.of(ID)] == [
        "revoked", "disabled", "active",
    ]  # fmt: skip
    assert after.told() == told
    after.grants.count([Usage(ID, used.id, requests=1, bytes_out=4)])
    (again,) = [grant for grant in after.grants.of(ID) if grant.id == used.id]
    assert (again.requests, again.bytes_in, again.bytes_out) == (3, 3, 4)
    assert (again.first_used_at, again.last_error_code) == (bench.now, "code")


def test_versions_begin_above_the_floor(bench: Bench, tmp_path: Path, store: Store) -> None:
    """Of all that may still change: an edge believes a revocation whatever it saw before a power cut."""
    active, revoked = (bench.grants.issue(ID, 80).grant for _ in range(2))
    bench.grants.revoke(ID, revoked.id)
    after = _again(bench, tmp_path, store)
    after.grants.reconcile(1000, lambda _: True)
    assert [grant.version for grant in after.grants.of(ID)] == [1001, 2]
    after.grants.revoke(ID, active.id)
    assert after.records()[-1].version == 1002
    assert [grant.version for grant in _again(after, tmp_path, store).grants.of(ID)] == [1002, 2]


def test_grants_of_a_sandbox_that_never_was_are_dropped(
    bench: Bench, tmp_path: Path, store: Store
) -> None:
    """It was listed while it was made, and the control plane was killed before it was."""
    kept = bench.grants.issue(ID, 80).grant
    bench.grants.issue("sb_unborn", 80)
    _again(bench, tmp_path, store).grants.reconcile(1000, lambda name: name == ID)
    after = _again(bench, tmp_path, store).grants
    assert after.of("sb_unborn") == []
    assert [grant.id for grant in after.of(ID)] == [kept.id]


def test_what_was_dropped_stays_dropped(
    bench: Bench, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a sandbox that was forgotten, and ended ones that made room."""
    monkeypatch.setattr(module, "ENDED_LIMIT", 1)
    first, second = (bench.grants.issue(ID, 80).grant for _ in range(2))
    for grant in (first, second):
        bench.grants.revoke(ID, grant.id)
    bench.grants.issue(ID, 81)
    bench.grants.issue("sb_other", 80)
    bench.grants.forget("sb_other")
    after = _again(bench, tmp_path, store).grants
    assert after.of("sb_other") == []
    assert [grant.id for grant in after.of(ID)] == [grant.id for grant in bench.grants.of(ID)]
    assert first.id not in [grant.id for grant in after.of(ID)]


def test_what_cannot_be_written_has_not_happened(bench: Bench, store: Store) -> None:
    """No grant, no revocation, no count, no line of the trail, and no word to an edge; later it works."""
    grant = bench.grants.issue(ID, 80).grant
    usage = Usage(ID, grant.id, requests=1)
    told, records = bench.told(), bench.records()
    acts = [
        lambda: bench.grants.issue(ID, 80),
        lambda: bench.grants.revoke(ID, grant.id),
        lambda: bench.grants.disable(grant.id),
        lambda: bench.grants.count([usage, usage]),
    ]
    store.write("PRAGMA query_only = ON")
    for act in acts:
        with pytest.raises(StoreError):
            act()
    assert bench.grants.of(ID) == [grant]
    assert (grant.status(bench.now), grant.version, grant.requests) == (GrantStatus.ACTIVE, 1, 0)
    assert (bench.told(), bench.records()) == (told, records)
    store.write("PRAGMA query_only = OFF")
    bench.grants.count([usage, usage])
    assert bench.grants.revoke(ID, grant.id).requests == 2
