"""Why a token is accepted or refused, said for people.

The verdict is the edge's own: the same functions in the same order as in `edge.core.decide`. The rows
explain it. Nothing that could be used again is in them: no token, no signature, no ``jti``; what a
stranger may have written is cut, made printable and searched for tokens first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from edge.commands.question import Question
from edge.commands.screen import printable
from edge.core import errors
from edge.core.credentials import (
    DIRECT,
    IAT_LEEWAY,
    PROXY,
    Claims,
    Expectation,
    Family,
    FamilyProblems,
    Key,
    Keys,
    Peeked,
    claims_from,
    peek,
    scope_problem,
    unsigned,
    verify,
)
from edge.core.errors import EdgeError, Problem
from edge.core.records import Transport
from edge.core.redact import redact_text
from edge.core.target import Target, parse_target

FAMILIES = {
    Family.EDGE: "an edge token: it goes into the query, as edge_token",
    Family.PROXY: "a preview proxy token: it goes into the header x-nullspace-preview-proxy-token",
    Family.CONTINUATION: "a continuation cookie of the edge's own",
}
_LONGEST_SHOWN = 80


class Mark(StrEnum):
    """What a row says about the token."""

    OK = "ok"
    WRONG = "no"
    OPEN = "--"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at."""

    mark: Mark
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """The rows, and the error a request would get; None = it would pass."""

    rows: tuple[Row, ...]
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What the edge goes by: its keys, what every token must say, and two of its settings."""

    keys: Keys
    expect: Expectation
    websocket_cookie: bool


def inspect(asked: Question, beliefs: Beliefs, now: float) -> Inspection:
    """Look at it as the edge would. ``now`` is Unix time in seconds."""
    target = None
    if asked.host is not None:
        found = parse_target(asked.host.encode("utf-8", "replace"), beliefs.expect.audience)
        if isinstance(found, EdgeError):
            unknown = found.problem is errors.PREVIEW_HOST_UNKNOWN
            text = "is no preview host of this edge" if unknown else "names a port without previews"
            return _over("host", text, found.problem)
        target = found
    if asked.marker:
        text = "says that the token comes in a header: give the token itself"
        return _over("url", text, errors.PREVIEW_PROXY_TOKEN_MISSING)
    if not asked.tokens:
        return _over("url", "carries no edge_token", errors.EDGE_TOKEN_MISSING)
    if len(asked.tokens) > 1:
        return _over("url", "carries different edge_tokens", errors.EDGE_TOKEN_INVALID)
    (token,) = asked.tokens
    return _Looked(token, asked, beliefs, target, now).inspection()


def _over(name: str, text: str, problem: Problem) -> Inspection:
    return Inspection((Row(Mark.WRONG, name, text),), problem)


class _Looked:
    """One token, with the rows collected so far."""

    def __init__(
        self, token: bytes, asked: Question, beliefs: Beliefs, target: Target | None, now: float
    ) -> None:
        self._token, self._asked, self._beliefs = token, asked, beliefs
        self._target, self._now = target, now
        self._rows: list[Row] = []
        parts = unsigned(token)
        readable = parts is not None and all(isinstance(part, dict) for part in parts)
        self._header: Mapping[str, Any] = parts[0] if parts is not None and readable else {}
        self._payload: Mapping[str, Any] = parts[1] if parts is not None and readable else {}
        self._readable = readable
        self._family = next((f for f in Family if f.value == self._header.get("typ")), None)
        self._claims = claims_from(self._payload)

    def inspection(self) -> Inspection:
        """The rows in the order in which the edge looks, and its verdict."""
        self._form()
        if self._readable:
            self._kind_of_token()
            self._key()
            self._issuer_and_audience()
            self._times()
            self._scope()
            if self._claims is not None:
                grant = f"{_shown(self._claims.grant)}: the control plane is not asked here"
                self._row(Mark.OPEN, "grant", grant)
        return Inspection(tuple(self._rows), self._verdict())

    def _row(self, mark: Mark | bool, name: str, text: str) -> None:
        if not isinstance(mark, Mark):
            mark = Mark.OK if mark else Mark.WRONG
        self._rows.append(Row(mark, name, text))

    # --- The verdict, as in `edge.core.decide` ---------------------------------------------------------

    def _verdict(self) -> Problem | None:
        names = PROXY if self._family is Family.PROXY and not self._asked.in_url else DIRECT
        family = Family.EDGE if self._asked.in_url else self._family
        if family is None:
            return names.invalid
        websocket = self._asked.kind is Transport.WEBSOCKET
        if family is Family.CONTINUATION and websocket and not self._beliefs.websocket_cookie:
            return errors.EDGE_TOKEN_MISSING
        peeked = peek(self._token, family, self._beliefs.keys, self._beliefs.expect)
        if not isinstance(peeked, Peeked):
            return names.invalid
        problem = self._scope_problem(peeked.claims, names)
        if problem is None and not verify(self._token, peeked):
            problem = names.invalid
        return problem

    def _scope_problem(self, claims: Claims, names: FamilyProblems) -> Problem | None:
        """The edge's comparison; without a host, with what the token itself says."""
        sandbox, port = claims.sub, claims.port
        if self._target is not None:
            sandbox, port = self._target.sandbox_id, self._target.port
        return scope_problem(claims, names, sandbox, port, self._wanted(claims), self._now)

    def _wanted(self, claims: Claims) -> Transport:
        if self._family is Family.CONTINUATION:
            return Transport.HTTP
        return self._asked.kind or claims.kind

    # --- The rows --------------------------------------------------------------------------------------

    def _form(self) -> None:
        size, most = len(self._token), self._beliefs.expect.max_bytes
        if size > most:
            self._row(False, "form", f"{size} bytes, more than tokens.max_bytes ({most})")
        elif not self._readable:
            self._row(
                False, "form", "not a token: no three parts of base64url, two of them JSON objects"
            )
        elif "crit" in self._header:
            self._row(False, "form", "asks for an extension (crit) that the edge does not have")
        else:
            self._row(True, "form", f"{size} bytes")

    def _kind_of_token(self) -> None:
        if self._family is None:
            known = ", ".join(FAMILIES)
            said = f"typ is {_shown(self._header.get('typ'))}, and the edge knows {known}"
            self._row(False, "family", said)
            return
        said = f"{self._family.value}, {FAMILIES[self._family]}"
        websocket = self._asked.kind is Transport.WEBSOCKET
        if self._asked.in_url and self._family is not Family.EDGE:
            self._row(False, "family", f"{said}; never into a URL")
        elif self._family is Family.CONTINUATION and websocket:
            allowed = self._beliefs.websocket_cookie
            more = "from the preview's own origin only" if allowed else "never for a WebSocket"
            self._row(allowed, "family", f"{said}; {more}")
        else:
            self._row(True, "family", said)

    def _key(self) -> None:
        kid, alg = self._header.get("kid"), self._header.get("alg")
        known = self._beliefs.keys.of(self._family) if self._family is not None else {}
        key = known.get(kid) if isinstance(kid, str) else None
        if key is None:
            there = ", ".join(_shown(name) for name in known) or "none"
            self._row(False, "key", f"{_shown(kid)} is unknown; known: {there}")
        else:
            self._row(True, "key", f"{_shown(kid)} is known")
            said = f"{_shown(alg)}; the key is for {key.alg}"
            self._row(alg == key.alg, "algorithm", said)
        self._signature(key)

    def _signature(self, key: Key | None) -> None:
        if key is None or self._claims is None:
            self._row(Mark.OPEN, "signature", "not checked")
            return
        genuine = verify(self._token, Peeked(self._claims, key))
        self._row(genuine, "signature", "genuine" if genuine else "not made by this key")

    def _issuer_and_audience(self) -> None:
        expect = self._beliefs.expect
        for name, claim, wanted in (
            ("issuer", "iss", expect.issuer),
            ("audience", "aud", expect.audience),
        ):
            value = self._payload.get(claim)
            fits = value == wanted
            more = "" if fits else f"; expected {wanted}"
            self._row(fits, name, f"{_shown(value)}{more}")
        if self._claims is None:
            missing = [f.name for f in fields(Claims) if f.name not in self._payload]
            why = f"missing: {', '.join(missing)}" if missing else "one is empty or of a wrong type"
            self._row(False, "claims", why)

    def _times(self) -> None:
        claims, now = self._claims, self._now
        if claims is None:
            return
        future = claims.iat > now + IAT_LEEWAY
        self._row(not future, "issued", _moment(claims.iat, now))
        self._row(claims.exp > now, "expires", _moment(claims.exp, now))

    def _scope(self) -> None:
        claims = self._claims
        if claims is None:
            return
        said = f"{claims.kind.value} of port {claims.port} of {_shown(claims.sub)}"
        wanted = self._wanted(claims)
        target = self._target
        if target is None:
            fits = claims.kind is wanted
            mark = (Mark.OPEN if self._asked.kind is None else Mark.OK) if fits else Mark.WRONG
            text = (
                f"{said}; no host to compare with" if fits else f"{said}; asked for {wanted.value}"
            )
            self._row(mark, "scope", text)
            return
        fits = (claims.sub, claims.port, claims.kind) == (target.sandbox_id, target.port, wanted)
        asked = f"{wanted.value} of port {target.port} of {target.sandbox_id}"
        self._row(fits, "scope", said if fits else f"{said}; asked for {asked}")


def _shown(value: object) -> str:
    """A value out of a token, fit for a terminal."""
    text = printable(redact_text(value if isinstance(value, str) else repr(value)))
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def _moment(at: float, now: float) -> str:
    """``2026-03-01 12:00:00 UTC, 14 min ago``."""
    away = abs(at - now)
    steps = ((172_800, 86_400, "days"), (7200, 3600, "h"), (120, 60, "min"))
    size, unit = next(((size, unit) for least, size, unit in steps if away >= least), (1, "s"))
    when = f"in {away / size:.0f} {unit}" if at > now else f"{away / size:.0f} {unit} ago"
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC, {when}"
    except (ValueError, OverflowError, OSError):
        return when
