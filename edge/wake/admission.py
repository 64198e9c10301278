"""Room to run or to wait, and budgets per grant and per address. All of it synchronous counting.

Every table is bounded: counters exist only while something is counted, and budgets (`edge.wake.budget`)
bound themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address

from edge.core.settings import AdmissionSettings, WakeSettings
from edge.wake.budget import Budget

HOUR = 3600.0
MINUTE = 60.0
MAX_ANONYMOUS = 16
"""Requests without a credential under way at once in one sandbox (CORS preflights, where they are let through)."""


@dataclass(slots=True)
class _Room:
    """What one sandbox has at the moment."""

    exchanges: int = 0
    tunnels: int = 0
    waiting: int = 0

    @property
    def total(self) -> int:
        return self.exchanges + self.tunnels + self.waiting


class Admission:
    """Counts and limits. A limit of 0 is none.

    Methods that take room answer False, and take nothing, when there is none; each True obliges the
    caller to give the room back exactly once. Giving back what was not taken raises RuntimeError.
    ``failures_per_minute`` is the setting of that name in ``tokens``.

    ``full`` names the limit that the latest False is due to. While ``pressed`` (memory is short) nothing
    new is let in, and whatever was let in goes on.
    """

    full = ""
    pressed = False

    def __init__(
        self,
        settings: AdmissionSettings,
        wake: WakeSettings,
        *,
        clock: Callable[[], float],
        failures_per_minute: int = 60,
    ) -> None:
        self._settings = settings
        self._wakes = Budget(wake.budget_per_hour, HOUR, clock)
        self._signatures = Budget(failures_per_minute, MINUTE, clock)
        self._addresses: dict[str, int] = {}
        self._rooms: dict[str, _Room] = {}
        self._waiting_by_grant: dict[str, int] = {}
        self._running_by_grant: dict[str, int] = {}
        self._anonymous: dict[str, int] = {}
        self._connections = 0
        self._waiting = 0
        self._exchanges = 0
        self._tunnels = 0

    # --- Connections ------------------------------------------------------------------------------

    def connect(self, address: str) -> bool:
        """Room for one more client connection from ``address``."""
        settings = self._settings
        key = network(address)
        held = self._addresses.get(key, 0)
        if self.pressed:
            return self._refuse("admission.memory_bytes")
        if settings.connections and self._connections >= settings.connections:
            return self._refuse("admission.connections")
        if settings.connections_per_address and held >= settings.connections_per_address:
            return self._refuse("admission.connections_per_address")
        self._connections += 1
        self._addresses[key] = held + 1
        return True

    def disconnect(self, address: str) -> None:
        """A connection that `connect` admitted is gone."""
        _give_back(self._addresses, network(address))
        self._connections -= 1

    # --- Exchanges and tunnels --------------------------------------------------------------------

    def enter(self, sandbox_id: str, grant_id: str = "", *, waited: bool = False) -> bool:
        """Room for one more exchange in the sandbox. Call it in one go with the decision.

        One that has ``waited`` for a wake was let in when it began to.
        """
        room = self._rooms.get(sandbox_id)
        limit = self._settings.in_flight_per_sandbox
        if self.pressed and not waited:
            return self._refuse("admission.memory_bytes")
        if self._settings.in_flight_per_grant and not self._enter_grant(grant_id):
            return False
        if room is None:
            room = self._rooms[sandbox_id] = _Room()
        elif limit and room.total >= limit:
            if self._settings.in_flight_per_grant:
                _give_back(self._running_by_grant, grant_id)
            return self._refuse("admission.in_flight_per_sandbox")
        room.exchanges += 1
        self._exchanges += 1
        return True

    def _enter_grant(self, grant_id: str) -> bool:
        held = self._running_by_grant.get(grant_id, 0)
        if held >= self._settings.in_flight_per_grant:
            return self._refuse("admission.in_flight_per_grant")
        self._running_by_grant[grant_id] = held + 1
        return True

    def has_room(self, sandbox_id: str) -> bool:
        """Whether the sandbox has room for one more."""
        limit = self._settings.in_flight_per_sandbox
        room = self._rooms.get(sandbox_id)
        return room is None or not limit or room.total < limit

    def leave(self, sandbox_id: str, grant_id: str = "", *, tunnel: bool = False) -> None:
        """An exchange that `enter` admitted is over; ``tunnel``: it had become one."""
        room = self._rooms.get(sandbox_id)
        if room is None or not (room.tunnels if tunnel else room.exchanges):
            raise RuntimeError(f"leave without enter: {sandbox_id}")
        if self._settings.in_flight_per_grant:
            _give_back(self._running_by_grant, grant_id)
        if tunnel:
            room.tunnels -= 1
            self._tunnels -= 1
        else:
            room.exchanges -= 1
            self._exchanges -= 1
        self._tidy(sandbox_id, room)

    def enter_anonymous(self, sandbox_id: str) -> bool:
        """Room for a request without a credential: little, apart from the others', and no obstacle to a pause."""
        held = self._anonymous.get(sandbox_id, 0)
        if self.pressed or held >= MAX_ANONYMOUS:
            return False
        self._anonymous[sandbox_id] = held + 1
        return True

    def leave_anonymous(self, sandbox_id: str) -> None:
        """One that `enter_anonymous` admitted is over."""
        _give_back(self._anonymous, sandbox_id)

    def become_tunnel(self, sandbox_id: str) -> None:
        """An exchange that entered got its 101: an open but silent tunnel does not hold up a pause."""
        room = self._rooms.get(sandbox_id)
        if room is None or not room.exchanges:
            raise RuntimeError(f"tunnel without exchange: {sandbox_id}")
        room.exchanges -= 1
        room.tunnels += 1
        self._exchanges -= 1
        self._tunnels += 1

    def in_flight(self, sandbox_id: str) -> int:
        """Exchanges under way in the sandbox; neither tunnels nor waiting ones."""
        room = self._rooms.get(sandbox_id)
        return room.exchanges if room else 0

    # --- Waiting ----------------------------------------------------------------------------------

    def park(self, sandbox_id: str, grant_id: str) -> bool:
        """Room for one more exchange that waits for a wake."""
        settings = self._settings
        room = self._rooms.get(sandbox_id) or _Room()
        by_grant = self._waiting_by_grant.get(grant_id, 0)
        if self.pressed:
            return self._refuse("admission.memory_bytes")
        for limit, held, name in (
            (settings.waiting, self._waiting, "admission.waiting"),
            (settings.waiting_per_sandbox, room.waiting, "admission.waiting_per_sandbox"),
            (settings.in_flight_per_sandbox, room.total, "admission.in_flight_per_sandbox"),
            (settings.waiting_per_grant, by_grant, "admission.waiting_per_grant"),
        ):
            if limit and held >= limit:
                return self._refuse(name)
        room.waiting += 1
        self._rooms[sandbox_id] = room
        self._waiting_by_grant[grant_id] = by_grant + 1
        self._waiting += 1
        return True

    def unpark(self, sandbox_id: str, grant_id: str) -> None:
        """An exchange that `park` admitted waits no more."""
        room = self._rooms.get(sandbox_id)
        if room is None or not room.waiting:
            raise RuntimeError(f"unpark without park: {sandbox_id}")
        _give_back(self._waiting_by_grant, grant_id)
        room.waiting -= 1
        self._waiting -= 1
        self._tidy(sandbox_id, room)

    def _refuse(self, limit: str) -> bool:
        self.full = limit
        return False

    def _tidy(self, sandbox_id: str, room: _Room) -> None:
        if not room.total:
            del self._rooms[sandbox_id]

    # --- Budgets ----------------------------------------------------------------------------------

    def spend_wake(self, grant_id: str) -> bool:
        """Spend one of the grant's wakes (``wake.budget_per_hour``, refilled evenly)."""
        return self._wakes.spend(grant_id)

    def signature_allowed(self, address: str) -> bool:
        """Whether a signature sent from this address is still worth the work of checking it."""
        return self._signatures.allowed(network(address))

    def signature_failed(self, address: str) -> None:
        """Charge the address with one failed check."""
        self._signatures.spend(network(address))

    # --- For metrics ------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """What is taken at the moment, in all."""
        return {
            "connections": self._connections,
            "exchanges": self._exchanges,
            "tunnels": self._tunnels,
            "waiting": self._waiting,
        }


def network(address: str) -> str:
    """Whom to charge for an address: IPv4 as it is, IPv6 by its /64, which is what one client owns."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address)
    except AddressValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


def _give_back(counts: dict[str, int], key: str) -> None:
    left = counts.get(key, 0) - 1
    if left < 0:
        raise RuntimeError(f"given back and never taken: {key}")
    if left:
        counts[key] = left
    else:
        del counts[key]
