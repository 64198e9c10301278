"""All preview grants: who may reach which port of which sandbox, until when, and what it amounted to."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edge.appliance.audit import AuditTrail, Deed, Doer
from edge.appliance.feed import Feed
from edge.appliance.grant import KINDS, AuthMode, Grant, from_document, to_document
from edge.appliance.minter import Minter, Preview, ProxyTarget
from edge.appliance.problems import PREVIEW_GRANT_NOT_FOUND, QUOTA_EXCEEDED, ApiError
from edge.appliance.requests import lifetime
from edge.appliance.rows import Rows
from edge.appliance.store import Store
from edge.core.records import GrantRecord, Transport
from edge.state.port import Usage
from edge.state.wire import MOST

STANDING_LIMIT = 1000
"""Active and disabled grants of one sandbox."""

ENDED_LIMIT = 1000
"""Expired and revoked grants of one sandbox that stay listed; the oldest go first."""


class Grants:
    """All grants, by id and by sandbox. ``wall`` is Unix time in seconds.

    Every change of what a grant allows is a new version of its record, written, and then told to the edges
    and to the audit trail. What is so already is not done again. Raises `StoreError` for what cannot be
    written, and then nothing has changed.
    """

    def __init__(
        self,
        minter: Minter,
        feed: Feed,
        audit: AuditTrail,
        store: Store,
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._rows = Rows(store, "grants", write=to_document, read=from_document)
        self._minter = minter
        self._feed = feed
        self._audit = audit
        self._wall = wall
        self.before_issue: Callable[[str, int], None] = lambda *_: None
        """What has to be done for a port of a sandbox first; raises `ApiError` where it cannot."""
        self._all: dict[str, Grant] = {}
        self._of_sandbox: dict[str, dict[str, Grant]] = {}
        for grant in self._rows.load():
            self._add(grant)

    def reconcile(self, floor: int, known: Callable[[str], bool]) -> None:
        """Once, at the start: let the versions of all that may still change begin above ``floor``.

        Those of sandboxes that are not ``known`` go: a sandbox is listed while it is made, and may have got
        a grant, but was never there.
        """
        now = self._wall()
        with self._store.transaction():
            for sandbox_id in [name for name in self._of_sandbox if not known(name)]:
                self.forget(sandbox_id)
            for grant in self._all.values():
                if not grant.ended(now):
                    grant.version = max(grant.version, floor) + 1
                    self._rows.put(grant)

    # --- Issuing --------------------------------------------------------------------------------------

    def issue(self, sandbox_id: str, port: object, ttl: int | None = None) -> Preview:
        """URLs for visitors; ``ttl`` in seconds is moved into the allowed range.

        Raises `ApiError` (unsupported_preview_port, quota_exceeded).
        """
        return self._minter.preview(self._new(sandbox_id, port, ttl, AuthMode.DIRECT, KINDS))

    def issue_proxy(
        self,
        sandbox_id: str,
        port: object,
        ttl: int | None = None,
        kinds: Sequence[Transport] = KINDS,
    ) -> ProxyTarget:
        """A target for a customer's own proxy, for these transports. As `issue` otherwise."""
        wanted = tuple(kind for kind in KINDS if kind in kinds)
        return self._minter.proxy_target(self._new(sandbox_id, port, ttl, AuthMode.PROXY, wanted))

    def _new(
        self,
        sandbox_id: str,
        port: object,
        ttl: int | None,
        mode: AuthMode,
        kinds: tuple[Transport, ...],
    ) -> Grant:
        number = self._minter.port(port)
        self.before_issue(sandbox_id, number)
        outdated = self._outdated(sandbox_id)
        now = self._wall()
        grant = Grant(
            id=f"pvg_{secrets.token_hex(16)}",
            sandbox_id=sandbox_id,
            port=number,
            issued_at=now,
            expires_at=now + lifetime(ttl),
            updated_at=now,
            mode=mode,
            kinds=kinds,
        )
        with self._store.transaction():
            for old in outdated:
                self._rows.remove(old.id)
            self._rows.put(grant)
            self._audit.grant(Deed.CREATED, Doer.USER, grant)
        for old in outdated:
            del self._all[old.id], self._of_sandbox[sandbox_id][old.id]
        self._add(grant)
        self._feed.publish(grant.record(now))
        return grant

    def _add(self, grant: Grant) -> None:
        self._all[grant.id] = grant
        self._of_sandbox.setdefault(grant.sandbox_id, {})[grant.id] = grant

    # --- Looking --------------------------------------------------------------------------------------

    def of(self, sandbox_id: str, port: int | None = None) -> list[Grant]:
        """The grants of a sandbox (and port), oldest first."""
        grants = self._of_sandbox.get(sandbox_id, {}).values()
        return [grant for grant in grants if port is None or grant.port == port]

    def record(self, grant_id: str) -> GrantRecord | None:
        """What edges see; None for a grant there is not (any more)."""
        grant = self._all.get(grant_id)
        return grant.record(self._wall()) if grant is not None else None

    # --- Changing -------------------------------------------------------------------------------------

    def revoke(self, sandbox_id: str, grant_id: str) -> Grant:
        """End a grant for good, both of its tokens. Raises `ApiError` (preview_grant_not_found)."""
        grant = self._of_sandbox.get(sandbox_id, {}).get(grant_id)
        if grant is None:
            raise ApiError(PREVIEW_GRANT_NOT_FOUND)
        if grant.revoked_at is None:
            with self._changing(grant, Deed.REVOKED, Doer.USER):
                grant.revoked_at = self._wall()
        return grant

    def disable(self, grant_id: str, reason: str | None = None) -> Grant:
        """Shut a grant until it is enabled again; one that has ended stays as it is.

        Raises `ApiError` (preview_grant_not_found).
        """
        grant = self._named(grant_id)
        if grant.disabled_at is None and not grant.ended(self._wall()):
            with self._changing(grant, Deed.DISABLED, Doer.OPERATOR, reason):
                grant.disabled_at = self._wall()
        return grant

    def enable(self, grant_id: str, reason: str | None = None) -> Grant:
        """Open a disabled grant again. Raises `ApiError` (preview_grant_not_found)."""
        grant = self._named(grant_id)
        if grant.disabled_at is not None and not grant.ended(self._wall()):
            with self._changing(grant, Deed.ENABLED, Doer.OPERATOR, reason):
                grant.disabled_at = None
        return grant

    def records(self) -> list[GrantRecord]:
        """All records that edges may ask for."""
        now = self._wall()
        return [grant.record(now) for grant in self._all.values()]

    def count(self, reported: Sequence[Usage]) -> None:
        """Add what an edge reports; a grant that is gone is passed over."""
        counted = [
            (grant, usage)
            for usage in reported
            if (grant := self._all.get(usage.grant_id)) is not None
            and grant.sandbox_id == usage.sandbox_id
        ]
        with self._rows.changing(*{grant.id: grant for grant, _ in counted}.values()):
            for grant, usage in counted:
                self._count(grant, usage)

    def _count(self, grant: Grant, usage: Usage) -> None:
        now = self._wall()
        if usage.requests or usage.websockets or usage.bytes_in or usage.bytes_out:
            grant.first_used_at = grant.first_used_at or now
            grant.last_used_at = now
            self._audit.traffic(grant)
        # What cannot be kept would be delivered again and again, and hold up all that waits behind it.
        grant.requests = min(grant.requests + usage.requests, MOST)
        grant.websockets = min(grant.websockets + usage.websockets, MOST)
        grant.bytes_in = min(grant.bytes_in + usage.bytes_in, MOST)
        grant.bytes_out = min(grant.bytes_out + usage.bytes_out, MOST)
        if usage.last_error_code:
            grant.last_error_code = usage.last_error_code[:100]
            told = usage.last_error_at
            # The edge's clock, unless it says what cannot be.
            grant.last_error_at = told if told is not None and 0 <= told <= now else now
            self._audit.traffic(grant, grant.last_error_code)
        grant.updated_at = now

    def forget(self, sandbox_id: str) -> None:
        """Drop the grants of a sandbox that nobody remembers any more."""
        grants = self._of_sandbox.get(sandbox_id, {})
        with self._store.transaction():
            for grant_id in grants:
                self._rows.remove(grant_id)
        for grant_id in grants:
            del self._all[grant_id]
        self._of_sandbox.pop(sandbox_id, None)

    def _named(self, grant_id: str) -> Grant:
        grant = self._all.get(grant_id)
        if grant is None:
            raise ApiError(PREVIEW_GRANT_NOT_FOUND)
        return grant

    @contextmanager
    def _changing(
        self, grant: Grant, deed: Deed, doer: Doer, reason: str | None = None
    ) -> Iterator[None]:
        with self._rows.changing(grant):
            yield
            grant.updated_at = self._wall()
            grant.version += 1
            self._audit.grant(deed, doer, grant, reason=reason)
        self._feed.publish(grant.record(grant.updated_at))

    def _outdated(self, sandbox_id: str) -> list[Grant]:
        """What has to go for a new one. Raises `ApiError` (quota_exceeded) when nothing may."""
        grants, now = self.of(sandbox_id), self._wall()
        ended = [grant for grant in grants if grant.ended(now)]
        if len(grants) - len(ended) >= STANDING_LIMIT:
            raise ApiError(
                QUOTA_EXCEEDED, f"A sandbox has at most {STANDING_LIMIT} active preview grants."
            )
        return ended[: max(0, len(ended) - ENDED_LIMIT + 1)]
