"""Decisions, and what they are made from: the types that `edge.core.decide` and the flow share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge.core.credentials import (
    Claims,
    Expectation,
    Family,
    FamilyProblems,
    Keys,
    Peeked,
)
from edge.core.errors import EdgeError
from edge.core.head import Head
from edge.core.records import GrantRecord, Missing, SandboxRecord, Transport
from edge.core.target import Target
from edge.core.token_cache import TokenCache

if TYPE_CHECKING:
    from edge.core.outbound import Outward


class View(Protocol):
    """What the edge knows at this moment. All of it is cheap to read."""

    tokens: TokenCache
    expect: Expectation
    websocket_cookie: bool

    @property
    def keys(self) -> Keys:
        """The keys believed at this moment."""

    def target(self, host: bytes) -> Target | EdgeError:
        """What a Host value asks for."""

    def sandbox(self, sandbox_id: str) -> SandboxRecord | Missing:
        """The record of a sandbox."""

    def grant(self, grant_id: str) -> GrantRecord | Missing:
        """The record of a grant."""

    def has_room(self, sandbox_id: str) -> bool:
        """Whether one more exchange may run or wait there."""

    def sleeps_through(self, head: Head) -> str | None:
        """The kind of this request, if it is one that does not wake."""

    def passes_bare(self, head: Head) -> bool:
        """Whether this request may reach a running sandbox without a credential."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The circumstances of a request that are not in its head.

    ``cookie_name`` is the continuation cookie's name under the scheme the client sees, ``origin``
    the preview's own origin (``https://host``). ``admitted``: it holds a place already.
    """

    cookie_name: bytes
    origin: bytes
    admitted: bool = False


@dataclass(frozen=True, slots=True)
class Verify:
    """Need: check the signature of a token that looks right."""

    token: bytes
    family: Family
    peeked: Peeked


@dataclass(frozen=True, slots=True)
class Learn:
    """Need: newer keys. The token names one that is unknown, and would fit here otherwise."""

    names: FamilyProblems


@dataclass(frozen=True, slots=True)
class LookUp:
    """Need: ask the control plane about a sandbox or a grant."""

    access: Access
    sandbox_id: str = ""
    grant_id: str = ""


@dataclass(frozen=True, slots=True)
class Wake:
    """Need: the sandbox is not running, and may be brought to run."""

    access: Access
    record: SandboxRecord


Need = Verify | Learn | LookUp | Wake


@dataclass(frozen=True, slots=True)
class Access:
    """What a request may reach, and by which claims. ``continues``: give it the cookie.

    ``anonymous``: nobody vouches for it (see `_anonymous`), and the claims are empty ones.
    """

    target: Target
    claims: Claims
    family: Family
    kind: Transport
    continues: bool
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Forward:
    """Send it to this incarnation. ``refusal`` is what every failure is told as, if it is set."""

    access: Access
    record: SandboxRecord
    grant: GrantRecord
    refusal: EdgeError | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer it with this error. ``access`` is set when the request was authorised all the same."""

    error: EdgeError
    access: Access | None = None


Decision = Forward | Refuse | Need


@dataclass(slots=True)
class Passage:
    """That a request was let through, kept with its header section for the requests that repeat it.

    The same bytes name the same target and carry the same credential, whose signature was checked in
    token ``era``; the same records say the same about it. So only what can have changed is looked at
    again. ``outward`` is what ``outbound.py`` made of the section for ``way``.
    """

    era: int
    way: Forward
    outward: Outward

    def holds(self, head: Head, view: View, now: float) -> bool:
        """Whether it speaks for this request, too. A query with credentials of its own decides anew."""
        way = self.way
        claims = way.access.claims
        return (
            self.era == view.tokens.era
            and claims.exp > now
            and way.grant.expires_at > now
            and view.sandbox(claims.sub) is way.record
            and view.grant(claims.grant) is way.grant
            and not head.edge_tokens
            and not head.proxy_marker
        )
