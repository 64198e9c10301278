"""Trust: what is served of an entry by the age of the last heartbeat, by doubts, and by how asking went."""

from __future__ import annotations

import pytest
from handclock import Clock
from scriptedport import grant, sandbox

from edge.core.records import GrantRecord, GrantStatus, Missing, SandboxRecord, State
from edge.core.settings import CatalogSettings
from edge.wake.entries import Entry
from edge.wake.trust import Belief, Trust

SETTINGS = CatalogSettings(fresh=1, stale_after=5, stale_limit=60, absent_ttl=1)
ASK = Missing.UNKNOWN


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def belief(clock: Clock) -> Belief:
    """Nothing has been proved yet, and nothing is in doubt."""
    return Belief(SETTINGS, clock)


def read_now(clock: Clock, record: SandboxRecord | None, epoch: int = 0) -> Entry[SandboxRecord]:
    """An entry whose look-up began and ended now."""
    return Entry(record, record.version if record else 0, epoch, clock(), clock())


def granted_now(clock: Clock, record: GrantRecord) -> Entry[GrantRecord]:
    """The same of a grant."""
    return Entry(record, record.version, 0, clock(), clock())


@pytest.mark.parametrize(
    ("age", "trust", "of_sandbox", "of_grant"),
    [
        (0.5, Trust.FRESH, sandbox(), grant()),
        (0.99, Trust.FRESH, sandbox(), grant()),
        (1.01, Trust.SUSPECT, sandbox(), ASK),
        (4.9, Trust.SUSPECT, sandbox(), ASK),
        (5.1, Trust.STALE, sandbox(), grant()),
        (59.9, Trust.STALE, sandbox(), grant()),
        (60.1, Trust.LOST, ASK, ASK),
    ],
)
def test_the_trust_table(
    belief: Belief, clock: Clock, age: float, trust: Trust, of_sandbox: object, of_grant: object
) -> None:
    """What is served by the age of the last heartbeat, for entries that were read long before it."""
    box, link = read_now(clock, sandbox()), granted_now(clock, grant())
    clock.now += 30
    belief.prove()
    clock.now += age
    assert belief.trust() is trust
    assert belief.of_sandbox(box) == of_sandbox
    assert belief.of_grant(link) == of_grant
    assert belief.heartbeat_age() == pytest.approx(age)
    assert (clock() < belief.fresh_until) is (trust is Trust.FRESH)


def test_before_the_first_heartbeat_an_answer_stands_for_a_second(
    belief: Belief, clock: Clock
) -> None:
    """Nothing is trusted that was not proved, but nobody asks in vain."""
    box, link = read_now(clock, sandbox()), granted_now(clock, grant())
    assert belief.trust() is Trust.SUSPECT and belief.heartbeat_age() == float("inf")
    clock.now += 0.9
    assert (belief.of_sandbox(box), belief.of_grant(link)) == (sandbox(), grant())
    clock.now += 0.2
    assert (belief.of_sandbox(box), belief.of_grant(link)) == (ASK, ASK)


def test_a_doubt_makes_unsure_what_was_read_before_it(belief: Belief, clock: Clock) -> None:
    """Whatever the heartbeats say: only what is read in the new epoch is served as it is."""
    before = read_now(clock, sandbox())
    belief.prove()
    assert belief.of_sandbox(before) == sandbox()
    belief.doubt()
    belief.prove()
    assert belief.of_sandbox(before) is ASK
    assert belief.of_sandbox(read_now(clock, sandbox(), belief.epoch)) == sandbox()


def test_where_asking_failed_the_known_is_served_for_a_second(belief: Belief, clock: Clock) -> None:
    """Within the stale limit, and unless a doubt arose after the failure."""
    link = granted_now(clock, grant())
    clock.now += 30
    link.failed, link.asked_at = True, clock()
    clock.now += 0.9
    assert belief.of_grant(link) == grant()
    clock.now += 0.2
    assert belief.of_grant(link) is ASK
    link.asked_at = clock()
    belief.doubt()
    assert belief.of_grant(link) == grant()
    clock.now += 0.1
    belief.doubt()
    assert belief.of_grant(link) is ASK


def test_beyond_the_stale_limit_a_failure_is_the_answer(belief: Belief, clock: Clock) -> None:
    """LOST while asking has just failed; nobody is served what nobody has confirmed for so long."""
    box = read_now(clock, sandbox())
    clock.now += 60
    assert belief.usable(box)
    clock.now += 0.1
    assert not belief.usable(box)
    box.failed, box.asked_at = True, clock()
    assert belief.of_sandbox(box) is Missing.LOST
    clock.now += 1.1
    assert belief.of_sandbox(box) is ASK
    belief.prove()  # nothing was in doubt, so it confirms what was read long ago
    assert belief.usable(box) and belief.of_sandbox(box) == sandbox()


def test_heartbeats_after_a_doubt_confirm_nothing_older(belief: Belief, clock: Clock) -> None:
    """For an unsure entry only its own look-up counts."""
    box = read_now(clock, sandbox())
    belief.doubt()
    clock.now += 60.1
    belief.prove()
    assert not belief.usable(box)


@pytest.mark.parametrize("status", [GrantStatus.REVOKED, GrantStatus.EXPIRED])
def test_what_is_over_needs_no_asking(belief: Belief, clock: Clock, status: GrantStatus) -> None:
    """A grant that ended is served as ended for ever: hammering it costs no call."""
    link, box = granted_now(clock, grant(3, status)), read_now(clock, sandbox(3, State.DESTROYED))
    clock.now += 500
    belief.doubt()
    assert belief.of_grant(link) == grant(3, status) and belief.usable(link)
    assert belief.of_sandbox(box) == sandbox(3, State.DESTROYED)


def test_a_disabled_grant_may_come_back(belief: Belief, clock: Clock) -> None:
    """Disabled is not the end, so it is asked for again."""
    link = granted_now(clock, grant(3, GrantStatus.DISABLED))
    clock.now += 1.1
    assert belief.of_grant(link) is ASK


@pytest.mark.parametrize(("ttl", "remembered"), [(1.0, 1.0), (0.0, 0.1)])
def test_absence_is_remembered_for_a_while(clock: Clock, ttl: float, remembered: float) -> None:
    """Never for so short that those who asked would have to ask again; a failure to ask is no absence."""
    belief = Belief(SETTINGS.model_copy(update={"absent_ttl": ttl}), clock)
    gone = read_now(clock, None)
    clock.now += remembered * 0.9
    assert belief.of_sandbox(gone) is Missing.ABSENT and not belief.usable(gone)
    gone.failed = True
    assert belief.of_sandbox(gone) is ASK
    gone.failed = False
    clock.now += remembered * 0.2
    assert belief.of_sandbox(gone) is ASK
