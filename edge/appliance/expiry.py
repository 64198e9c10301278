"""What happens when time is up: ``timeout_ms`` is an order, ``inactivity_timeout_ms`` a question.

A pause for inactivity must not cut a request in flight. So the sandbox goes to ``pausing`` first, the
edges hold new requests and say how many are in flight, and only silence from all of them lets it pause.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.appliance.barrier import Edges
from edge.appliance.events import Operation, Status
from edge.appliance.lifecycle import Event
from edge.appliance.registry import Registry
from edge.appliance.sandbox import TIMEOUT, Sandbox
from edge.appliance.store import StoreError
from edge.appliance.tasks import Scope
from edge.appliance.timers import Timers
from edge.appliance.transitions import Transitions
from edge.core.records import State


class Expiry:
    """One timer per running sandbox; follows every change of state. ``clock`` is the loop's."""

    def __init__(
        self,
        registry: Registry,
        transitions: Transitions,
        *,
        edges: Edges,
        scope: Scope,
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._transitions = transitions
        self._edges = edges
        self._scope = scope
        self._clock = clock
        self._timers = Timers(self._due)
        transitions.listen(self.arm)

    def arm(self, sandbox: Sandbox) -> None:
        """Set the timer for the next thing that may be due; `_due` looks again when it rings.

        Activity alone sets no timer: one that rings too early is set again, which costs less.
        """
        # During a call nothing is due for inactivity; its end comes here again.
        idle_at = None if sandbox.calls else self._idle_at(sandbox)
        times = [time for time in (sandbox.deadline, idle_at) if time is not None]
        if sandbox.state is State.RUNNING and times:
            self._timers.arm(sandbox.id, min(times))
        else:
            self._timers.disarm(sandbox.id)

    def close(self) -> None:
        """Nothing is due any more."""
        self._timers.close()

    def _due(self, sandbox_id: str) -> None:
        sandbox = self._registry.find(sandbox_id)
        if sandbox is None or sandbox.state is not State.RUNNING:
            return
        if self._late(sandbox):
            self._scope.spawn(self._expire(sandbox), name=f"timeout {sandbox_id}")
        elif self._idle(sandbox):
            self._scope.spawn(self._expire_idle(sandbox), name=f"inactivity {sandbox_id}")
        else:
            self.arm(sandbox)

    async def _expire(self, sandbox: Sandbox) -> None:
        async with sandbox.lock:
            # The lock may have been held by whoever set the timeout anew.
            if sandbox.state is not State.RUNNING or not self._late(sandbox):
                self.arm(sandbox)
                return
            self._transitions.move(sandbox, Event.PAUSE)
            await self._act(sandbox, "timeout_ms")

    async def _expire_idle(self, sandbox: Sandbox) -> None:
        async with sandbox.lock:
            if sandbox.state is not State.RUNNING or not self._idle(sandbox):
                self.arm(sandbox)
                return
            seen = sandbox.last_activity
            self._transitions.move(sandbox, Event.PAUSE)
            quiet = await self._edges.quiet(sandbox.id, sandbox.version)
            # Calls and reports of usage may have come in while the edges were asked.
            if not quiet or sandbox.calls or sandbox.last_activity != seen:
                self._transitions.stay(sandbox)
                return
            await self._act(sandbox, "inactivity_timeout_ms")

    async def _act(self, sandbox: Sandbox, which: str) -> None:
        """What the timeout does to a sandbox that is pausing."""
        told: dict[str, object] = {"timeout": which, "timeout_action": sandbox.timeout_action}
        self._transitions.emit(
            sandbox, Operation.TIMEOUT_EXPIRED, Status.SUCCEEDED, TIMEOUT, metadata=told
        )
        if sandbox.timeout_action == "hibernate":
            await self._transitions.freeze(sandbox, TIMEOUT)
            return
        try:
            await self._transitions.destroy(sandbox, TIMEOUT)
        except StoreError:
            self._transitions.postpone(sandbox)
            raise

    def _late(self, sandbox: Sandbox) -> bool:
        return sandbox.deadline is not None and self._clock() >= sandbox.deadline

    def _idle(self, sandbox: Sandbox) -> bool:
        idle_at = self._idle_at(sandbox)
        return idle_at is not None and not sandbox.calls and self._clock() >= idle_at

    def _idle_at(self, sandbox: Sandbox) -> float | None:
        """When it will have been inactive for too long, as far as all edges can tell."""
        idle_at = sandbox.idle_at
        return None if idle_at is None else max(idle_at, self._edges.complete_at)
