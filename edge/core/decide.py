"""The decision: what happens to a request, read from top to bottom.

`decide` looks at a `Head` and at what the edge knows (`View`) and says forward, refuse, or what must
be found out first. It only reads, awaits nothing, and can be asked again after every need was
settled: the order of the checks stands once, here. The order is a security property: **a stranger
costs a few comparisons, never a look-up, a control-plane call or a wake.**
"""

from __future__ import annotations

import hashlib
import hmac

from edge.core import errors
from edge.core.credentials import (
    DIRECT,
    PROXY,
    Claims,
    Family,
    FamilyProblems,
    UnknownKey,
    peek,
    scope_problem,
)
from edge.core.decision import (
    Access,
    Asked,
    Decision,
    Forward,
    Learn,
    LookUp,
    Refuse,
    Verify,
    View,
    Wake,
)
from edge.core.errors import EdgeError, Problem
from edge.core.head import Head
from edge.core.records import GrantRecord, GrantStatus, Missing, SandboxRecord, State, Transport
from edge.core.target import Target

_ASLEEP = frozenset({State.PAUSED, State.PAUSING})
"""States that a request would have to wake a sandbox from."""
MAX_VIA = 5
"""A request that passed through edges this often is a loop (contract: what is forwarded)."""
MAX_COOKIES = 4
"""Continuation cookies of one request that are tried; a browser sends one."""


def decide(head: Head, asked: Asked, view: View, now: float) -> Decision:
    """What happens to this request. ``now`` is Unix time in seconds.

    Forward is no promise of room: who forwards has to take it (``Admission.enter``).
    """
    passage = head.section.passage
    if passage is not None and passage.holds(head, view, now):
        return passage.way

    target = view.target(head.host)
    if isinstance(target, EdgeError):
        return Refuse(target)
    if head.section.via >= MAX_VIA:
        return Refuse(EdgeError(errors.PREVIEW_LOOP))

    access = _authorise(head, asked, view, target, now)
    if not isinstance(access, Access):
        if isinstance(access, Refuse) and view.passes_bare(head):
            return _anonymous(head, view, target, access.error) or access
        return access

    record = view.sandbox(target.sandbox_id)
    if not isinstance(record, SandboxRecord):
        need = LookUp(access, sandbox_id=target.sandbox_id)
        return _without(record, access, need, errors.SANDBOX_NOT_FOUND)
    if record.state is State.DESTROYED:
        return Refuse(EdgeError(errors.SANDBOX_NOT_FOUND), access)

    grant = view.grant(access.claims.grant)
    if not isinstance(grant, GrantRecord):
        need = LookUp(access, grant_id=access.claims.grant)
        return _without(grant, access, need, _names(access).grant_invalid)
    problem = _policy_problem(head, access, record, grant, now)
    if problem is not None:
        return Refuse(EdgeError(problem), access)

    problem = _state_problem(record)
    if problem is not None:
        return Refuse(EdgeError(problem), access)
    if not asked.admitted and not view.has_room(record.id):
        return Refuse(errors.overloaded("admission.in_flight_per_sandbox"), access)
    if record.state is State.RUNNING:
        return Forward(access, record, grant)
    if record.state in _ASLEEP and (kind := view.sleeps_through(head)) is not None:
        return Refuse(EdgeError(errors.WAKE_SUPPRESSED_BY_POLICY, {"kind": kind}), access)
    return Wake(access, record)


# --- 2. credential ------------------------------------------------------------------------------------


def _authorise(
    head: Head, asked: Asked, view: View, target: Target, now: float
) -> Access | Refuse | Verify | Learn:
    """Which credential speaks for the request: proxy header, query token or cookie, in that order."""
    kind = Transport.WEBSOCKET if head.websocket else Transport.HTTP
    if head.proxy_mode:
        tokens, family, names = head.section.proxy_tokens, Family.PROXY, PROXY
    elif head.edge_tokens:
        # A query token decides alone: falling back to the cookie would hide that a link is dead.
        tokens, family, names = head.edge_tokens, Family.EDGE, DIRECT
    else:
        return _by_cookie(head, asked, view, target, now)
    if not tokens:
        return Refuse(EdgeError(names.missing))
    if len(tokens) > 1:
        return Refuse(EdgeError(names.invalid))
    outcome = _by_token(tokens[0], family, names, view, target, kind, now)
    if isinstance(outcome, Problem):
        return Refuse(EdgeError(outcome))
    if isinstance(outcome, Verify | Learn):
        return outcome
    continues = family is Family.EDGE and kind is Transport.HTTP
    return Access(target, outcome, family, kind, continues)


def _by_cookie(
    head: Head, asked: Asked, view: View, target: Target, now: float
) -> Access | Refuse | Verify | Learn:
    tokens = cookie_values(head, asked.cookie_name)
    kind = Transport.HTTP
    if head.websocket and not (
        view.websocket_cookie and tokens and head.values(b"origin") == [asked.origin]
    ):
        return Refuse(EdgeError(errors.EDGE_TOKEN_MISSING))
    problem = errors.EDGE_TOKEN_MISSING
    for token in tokens[:MAX_COOKIES]:
        outcome = _by_token(token, Family.CONTINUATION, DIRECT, view, target, kind, now)
        if isinstance(outcome, Claims):
            used = Transport.WEBSOCKET if head.websocket else Transport.HTTP
            return Access(target, outcome, Family.CONTINUATION, used, continues=False)
        if isinstance(outcome, Verify | Learn):
            return outcome
        problem = outcome
    return Refuse(EdgeError(problem))


def _by_token(
    token: bytes,
    family: Family,
    names: FamilyProblems,
    view: View,
    target: Target,
    kind: Transport,
    now: float,
) -> Claims | Problem | Verify | Learn:
    """The claims of a genuine token that fits here; or what is wrong with it; or that it must be verified.

    Everything that can be compared is compared before the signature is checked.
    """
    claims = view.tokens.claims(family, token)
    peeked = None
    if claims is None:
        if view.tokens.refuted(family, token):
            return names.invalid
        peeked = peek(token, family, view.keys, view.expect)
        if peeked is None:
            return names.invalid
        claims = peeked.claims
    problem = scope_problem(claims, names, target.sandbox_id, target.port, kind, now)
    if isinstance(peeked, UnknownKey):
        return names.invalid if problem is not None else Learn(names)
    if problem is not None:
        return problem
    return claims if peeked is None else Verify(token, family, peeked)


def _anonymous(head: Head, view: View, target: Target, refusal: EdgeError) -> Forward | None:
    """Let a request without a credential through to a sandbox that is known to run, or None.

    Opt-in, and for CORS preflights only, which browsers send without one (contract: credentials). Nothing is
    looked up or woken for it, and whatever goes wrong later is told as ``refusal``, too: so there is no
    telling from the edge's own answers whether a sandbox exists. Private traffic stays private.
    """
    record = view.sandbox(target.sandbox_id)
    if (
        not isinstance(record, SandboxRecord)
        or record.state is not State.RUNNING
        or record.upstream is None
        or record.previews_disabled
        or record.traffic_token_sha256 is not None
    ):
        return None
    kind, never = Transport.HTTP, float("inf")
    claims = Claims("", "", target.sandbox_id, target.port, kind, "", "", 0.0, never, "")
    family = Family.PROXY if head.proxy_mode else Family.EDGE
    access = Access(target, claims, family, kind, continues=False, anonymous=True)
    grant = GrantRecord("", record.id, target.port, frozenset({kind}), GrantStatus.ACTIVE, never, 0)
    return Forward(access, record, grant, refusal)


def cookie_values(head: Head, name: bytes) -> list[bytes]:
    """The values of every cookie of that name, in order (RFC 6265 section 5.4 allows several)."""
    values = []
    for _, header in head.section.cookies:
        if name in header:
            for pair in header.split(b";"):
                key, _, value = pair.strip(b" \t").partition(b"=")
                if key == name:
                    values.append(value)
    return values


# --- 3. record, 4. policy, 5. state -------------------------------------------------------------------


def _without(missing: Missing, access: Access, need: LookUp, absent: Problem) -> Refuse | LookUp:
    """What becomes of a request whose record is not there to decide on."""
    if missing is Missing.UNKNOWN:
        return need
    problem = absent if missing is Missing.ABSENT else errors.CONTROL_PLANE_UNAVAILABLE
    return Refuse(EdgeError(problem), access)


def _names(access: Access) -> FamilyProblems:
    return PROXY if access.family is Family.PROXY else DIRECT


def _policy_problem(
    head: Head, access: Access, record: SandboxRecord, grant: GrantRecord, now: float
) -> Problem | None:
    """The grant must stand, reach this far, and private traffic needs its second key."""
    problem = grant_problem(access, grant, now)
    if problem is not None:
        return problem
    if record.previews_disabled:
        return errors.PREVIEW_SANDBOX_DISABLED
    if record.traffic_token_sha256 is not None:
        return _traffic_problem(head.section.traffic_tokens, record.traffic_token_sha256)
    return None


def grant_problem(access: Access, grant: GrantRecord, now: float) -> Problem | None:
    """Why a grant no longer carries this access, else None. Also asked about open tunnels."""
    names = _names(access)
    if grant.status is GrantStatus.REVOKED:
        return names.grant_revoked
    if grant.status is GrantStatus.EXPIRED or grant.expires_at <= now:
        return names.expired
    if grant.status is GrantStatus.DISABLED:
        return names.grant_disabled
    if (
        grant.sandbox_id != access.target.sandbox_id
        or grant.port != access.target.port
        or access.kind not in grant.kinds
    ):
        return names.scope
    return None


def _traffic_problem(tokens: tuple[bytes, ...], expected_sha256: str) -> Problem | None:
    if not tokens:
        return errors.TRAFFIC_ACCESS_TOKEN_MISSING
    digest = hashlib.sha256(tokens[0]).hexdigest().encode()
    # As bytes, because compare_digest raises for text that is not ASCII, and the record is not ours.
    expected = expected_sha256.encode("utf-8", "replace")
    if len(tokens) > 1 or not hmac.compare_digest(digest, expected):
        return errors.TRAFFIC_ACCESS_TOKEN_INVALID
    return None


def _state_problem(record: SandboxRecord) -> Problem | None:
    """What each state means for a request; None = it runs, or can be waited for."""
    match record.state:
        case State.PAUSED | State.PAUSING if not record.auto_resume:
            # A sandbox being paused for inactivity may go on running; one without auto-resume that
            # is already paused will not.
            return (
                errors.SANDBOX_PAUSED_AUTO_RESUME_DISABLED if record.state is State.PAUSED else None
            )
        case State.ERROR:
            return errors.SANDBOX_ERROR
        case State.RUNNING if record.upstream is None:
            return errors.EDGE_RUNTIME_HOST_UNREACHABLE
    return None
