"""Admission: every limit holds, every count comes back to nothing, every table is bounded."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from edge.core.settings import AdmissionSettings, WakeSettings
from edge.wake.admission import Admission, network
from tests.wake.handclock import Clock


def admit(**limits: int) -> Admission:
    """An admission without limits but those given."""
    free = dict.fromkeys(AdmissionSettings.model_fields, 0)
    return Admission(AdmissionSettings(**free | limits), WakeSettings(), clock=Clock())


def enter_as_tunnel(room: Admission) -> bool:
    """An exchange enters and gets its 101 at once."""
    if not room.enter("sb"):
        return False
    room.become_tunnel("sb")
    return True


NOTHING = {"connections": 0, "exchanges": 0, "tunnels": 0, "waiting": 0}


@pytest.mark.parametrize(
    ("limit", "take", "give"),
    [
        ("connections", lambda a, i: a.connect(f"10.0.0.{i}"), lambda a, i: a.disconnect(f"10.0.0.{i}")),
        ("connections_per_address", lambda a, _: a.connect("10.0.0.1"), lambda a, _: a.disconnect("10.0.0.1")),
        ("in_flight_per_sandbox", lambda a, _: a.enter("sb"), lambda a, _: a.leave("sb")),
        ("in_flight_per_sandbox", lambda a, _: enter_as_tunnel(a), lambda a, _: a.leave("sb", tunnel=True)),
        ("in_flight_per_sandbox", lambda a, i: a.park("sb", f"g{i}"), lambda a, i: a.unpark("sb", f"g{i}")),
        ("in_flight_per_grant", lambda a, i: a.enter(f"sb{i}", "g"), lambda a, i: a.leave(f"sb{i}", "g")),
        ("waiting", lambda a, i: a.park(f"sb{i}", f"g{i}"), lambda a, i: a.unpark(f"sb{i}", f"g{i}")),
        ("waiting_per_sandbox", lambda a, i: a.park("sb", f"g{i}"), lambda a, i: a.unpark("sb", f"g{i}")),
        ("waiting_per_grant", lambda a, i: a.park(f"sb{i}", "g"), lambda a, i: a.unpark(f"sb{i}", "g")),
    ],
)  # fmt: skip
def test_a_limit_holds(
    limit: str, take: Callable[[Admission, int], bool], give: Callable[[Admission, int], None]
) -> None:
    """Exactly the limit is admitted, a refusal takes nothing, and what is given back is room again."""
    room = admit(**{limit: 3})
    assert [take(room, i) for i in range(5)] == [True, True, True, False, False]
    assert room.full == f"admission.{limit}"
    give(room, 0)
    assert [take(room, i) for i in (0, 3)] == [True, False]
    for i in range(3):
        give(room, i)
    assert room.counts() == NOTHING
    with pytest.raises(RuntimeError):
        give(room, 0)
    assert room.counts() == NOTHING
    assert not (room._rooms or room._addresses)
    assert not (room._waiting_by_grant or room._running_by_grant)
    free = admit()
    assert all(take(free, i) for i in range(50))


def test_a_full_sandbox_charges_no_grant() -> None:
    """A refusal by the second of two limits gives back what the first had counted."""
    room = admit(in_flight_per_sandbox=1, in_flight_per_grant=2)
    assert room.enter("sb", "g") and not room.enter("sb", "g")
    assert room.enter("other", "g") and not room.enter("third", "g")
    assert room.full == "admission.in_flight_per_grant"


def test_short_memory_lets_nothing_new_in() -> None:
    """Whatever was let in goes on and can be given back; relieved, all is as before."""
    room = admit()
    assert room.connect("::1") and room.enter("sb") and room.park("sb", "g")
    room.pressed = True
    assert not (room.connect("::2") or room.enter("sb") or room.park("sb", "g"))
    assert room.full == "admission.memory_bytes"
    assert room.enter("woken", waited=True), "it was let in when it began to wait"
    room.become_tunnel("sb")
    room.leave("sb", tunnel=True)
    room.unpark("sb", "g")
    room.pressed = False
    assert room.connect("::2") and room.enter("sb") and room.park("sb", "g")


def test_waiting_and_running_share_a_sandbox() -> None:
    """The limit per sandbox is on exchanges, tunnels and waiting ones together; others are not touched."""
    room = admit(in_flight_per_sandbox=3)
    assert room.enter("sb") and enter_as_tunnel(room) and room.park("sb", "g")
    assert not room.has_room("sb") and not room.enter("sb") and not room.park("sb", "g")
    assert room.has_room("other") and room.enter("other")


def test_only_exchanges_are_in_flight() -> None:
    """What a pause barrier is told: neither tunnels nor waiting ones, and never the others' sandboxes."""
    room = admit()
    assert room.in_flight("sb") == 0
    room.enter("sb")
    room.enter("sb")
    room.enter("other")
    room.park("sb", "g")
    assert room.in_flight("sb") == 2
    room.become_tunnel("sb")
    assert room.in_flight("sb") == 1
    assert room.counts() == {"connections": 0, "exchanges": 2, "tunnels": 1, "waiting": 1}
    room.leave("sb", tunnel=True)
    room.leave("sb")
    with pytest.raises(RuntimeError):
        room.become_tunnel("sb")


@pytest.mark.parametrize("seed", range(5))
def test_counts_never_go_below_zero(seed: int) -> None:
    """Giving back at random what was and what was not taken never makes a count negative."""
    rng = random.Random(seed)
    room = admit(in_flight_per_sandbox=4, waiting=5)
    moves: list[Callable[[], object]] = [
        lambda: room.enter("sb"),
        lambda: room.leave("sb"),
        lambda: room.leave("sb", tunnel=True),
        lambda: room.become_tunnel("sb"),
        lambda: room.park("sb", "g"),
        lambda: room.unpark("sb", "g"),
        lambda: room.connect("::1"),
        lambda: room.disconnect("::1"),
    ]
    for _ in range(2000):
        try:
            rng.choice(moves)()
        except RuntimeError:
            pass
        assert min(room.counts().values()) >= 0 and room.in_flight("sb") >= 0


def test_wakes_and_signatures_have_their_own_budgets() -> None:
    """Wakes are counted per grant and hour, failed signatures per address and minute."""
    clock = Clock()
    room = Admission(
        AdmissionSettings(), WakeSettings(budget_per_hour=2), clock=clock, failures_per_minute=3
    )
    assert [room.spend_wake("g") for _ in range(3)] == [True, True, False]
    assert room.spend_wake("other")
    for _ in range(3):
        assert room.signature_allowed("10.0.0.1")
        room.signature_failed("10.0.0.1")
    assert not room.signature_allowed("10.0.0.1")
    room.signature_failed("10.0.0.1")
    assert room.signature_allowed("10.0.0.2")
    clock.now += 21
    assert room.signature_allowed("10.0.0.1")


@pytest.mark.parametrize(
    ("address", "charged"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not:an:address", "not:an:address"),
        ("", ""),
    ],
)
def test_whom_an_address_is_charged_to(address: str, charged: str) -> None:
    """One IPv6 client owns a whole /64, so that is what is counted; nothing makes it raise."""
    assert network(address) == charged
