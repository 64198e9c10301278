"""The audit trail: what is told, how often, to whom, and for how long."""

from __future__ import annotations

import pytest

from edge.appliance.audit import MAX_TOLD, AuditFilter, AuditTrail, Deed, Doer
from edge.appliance.grant import AuthMode, Grant
from edge.appliance.store import Store


class Bench:
    """A trail with a clock that the test sets."""

    def __init__(self, store: Store, max_entries: int = 100) -> None:
        self.now = 1_700_000_000.123456
        self.trail = AuditTrail(store, lambda: self.now, max_entries)

    def told(self, *, ascending: bool = True, **wanted: object) -> list[str]:
        """Everything that is wanted, as ``event sandbox code``."""
        entries, _ = self.trail.select(
            AuditFilter(**wanted),  # type: ignore[arg-type]
            offset=0,
            limit=1000,
            ascending=ascending,
        )
        return [f"{entry.deed} {entry.sandbox_id} {entry.code or ''}".rstrip() for entry in entries]


def _grant(number: int = 1) -> Grant:
    return Grant(f"pvg_{number}", f"sb_{number}", 80, 1.0, 2.0, 1.0, AuthMode.PROXY)


def test_a_use_is_told_once_a_minute(store: Store) -> None:
    """Of each grant by itself, and again at once when the clock was set back."""
    bench, first, second = Bench(store), _grant(1), _grant(2)
    for _ in range(3):
        bench.trail.traffic(first)
        bench.trail.traffic(second)
    assert bench.told() == ["used sb_1", "used sb_2"]
    bench.now += 59.9
    bench.trail.traffic(first)
    assert len(bench.told()) == 2
    bench.now += 0.2
    bench.trail.traffic(first)
    bench.now -= 3600
    bench.trail.traffic(first)
    assert bench.told() == ["used sb_1", "used sb_2", "used sb_1", "used sb_1"]


def test_each_kind_of_failure_is_told_once_a_minute(store: Store) -> None:
    """Two that alternate do not flood it, and what is remembered for that is bounded."""
    bench, grant = Bench(store), _grant()
    for _ in range(3):
        for code in ("a", "b"):
            bench.trail.traffic(grant, code)
            bench.now += 1
    assert bench.told() == ["failed sb_1 a", "failed sb_1 b"]
    for number in range(100):
        bench.trail.traffic(grant, f"code-{number}")
    assert len(grant.told) == MAX_TOLD


def test_filters_order_and_pages(store: Store) -> None:
    """By sandbox, grant, event, actor and time, both ends included; newest first unless asked."""
    bench, grant = Bench(store), _grant()
    began = bench.now
    bench.trail.grant(Deed.CREATED, Doer.USER, grant)
    bench.now += 1
    bench.trail.traffic(grant, "code")
    bench.now += 1
    bench.trail.previews(Deed.DISABLED, "sb_2", reason="why")
    everything = ["created sb_1", "failed sb_1 code", "disabled sb_2"]
    assert bench.told() == everything
    assert bench.told(ascending=False) == everything[::-1]
    assert bench.told(sandbox_id="sb_2") == ["disabled sb_2"]
    assert bench.told(grant_id="pvg_1") == everything[:2]
    assert bench.told(deed=Deed.FAILED) == ["failed sb_1 code"]
    assert bench.told(doer=Doer.USER) == ["created sb_1"]
    assert bench.told(since=began + 1) == everything[1:]
    assert bench.told(until=began + 1) == everything[:2]
    page, more = bench.trail.select(AuditFilter(), offset=1, limit=1, ascending=True)
    assert [entry.id for entry in page] == [2] and more
    page, more = bench.trail.select(AuditFilter(), offset=2, limit=1, ascending=True)
    (entry,) = page
    assert (entry.reason, entry.grant_id, entry.port, more) == ("why", None, None, False)


@pytest.mark.parametrize("people", [False, True])
def test_it_is_bounded_and_traffic_pushes_nobody_out(store: Store, people: bool) -> None:
    """The oldest go first, of what people did and of what traffic did each by itself."""
    bench = Bench(store, max_entries=2)
    bench.trail.previews(Deed.DISABLED, "sb_0", reason=None)
    bench.trail.traffic(_grant(0))
    for number in (1, 2, 3):
        if people:
            bench.trail.grant(Deed.CREATED, Doer.USER, _grant(number))
        else:
            bench.trail.traffic(_grant(number))
    kept = ["used sb_0", "created sb_2", "created sb_3"] if people else None
    assert bench.told() == (kept or ["disabled sb_0", "used sb_2", "used sb_3"])


def test_it_goes_on_after_a_restart(store: Store) -> None:
    """The same entries, no more than the bound in the file, and ids that grow on."""
    before = Bench(store, max_entries=2)
    for number in range(4):
        before.trail.grant(Deed.CREATED, Doer.USER, _grant(number))
        before.trail.traffic(_grant(number), "code")
    before.trail.previews(Deed.DISABLED, "sb_9", reason="why")
    after = Bench(store, max_entries=2)
    wanted = {"offset": 0, "limit": 99, "ascending": True}
    entries = before.trail.select(AuditFilter(), **wanted)[0]
    assert after.trail.select(AuditFilter(), **wanted)[0] == entries and len(entries) == 4
    assert store.read("SELECT count(*) FROM audit") == [(4,)]
    after.trail.previews(Deed.ENABLED, "sb_9", reason=None)
    assert after.trail.select(AuditFilter(), **wanted)[0][-1].id == entries[-1].id + 1


def test_what_is_taken_back_was_never_told(store: Store) -> None:
    """Of several entries in one transaction, with those they had pushed out."""
    bench = Bench(store, max_entries=2)
    for number in range(2):
        bench.trail.previews(Deed.DISABLED, f"sb_{number}", reason=None)
    told = bench.told()

    def fail() -> None:
        with store.transaction():
            for number in range(3):
                bench.trail.previews(Deed.ENABLED, f"sb_{number}", reason=None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert bench.told() == told == Bench(store, max_entries=2).told()
