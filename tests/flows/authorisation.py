"""Who gets in: the rules as one ordered table, and every cell they are asked about.

The rules are written down from what users are promised, not from the code: nothing here reads the edge's
tables. For a cell the *first* rule that applies says what comes of it. ``docs/authorisation.md`` shows the
same table; the section numbers name its parts: 2 credentials, 4 waking, 5 errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, Flag, auto
from itertools import product

from edge.core.records import Transport

HTTP, WEBSOCKET = Transport.HTTP, Transport.WEBSOCKET


# --- What a request can carry -------------------------------------------------------------------------


class Mode(Enum):
    """Who is told about an error, and in which words."""

    DIRECT = "direct"
    PROXY = "proxy"


class Carried(Enum):
    """What a request amounts to, before anything is known about the token itself."""

    NOTHING = "nothing that counts"
    UNREADABLE = "what cannot be a good token"
    TOKEN = "the token decides"


@dataclass(frozen=True)
class Way:
    """What a request carries and where. The words are tokens (`Token` says what is wrong with them).

    ``query`` words are values of ``edge_token``, but ``marker`` is the pair that asks for proxy mode and
    ``another-marker`` the same with another value; ``header`` words are proxy token fields.
    A ``good-`` word is right whatever the cell says, ``-other`` a second one of its kind.
    """

    name: str
    mode: Mode
    carries: Carried
    query: str = ""
    cookies: str = ""
    header: str = ""

    @property
    def by_cookie(self) -> bool:
        """Whether a cookie is all that speaks for it."""
        return self.mode is Mode.DIRECT and bool(self.cookies) and not self.query


DIRECT, PROXY = Mode.DIRECT, Mode.PROXY
NOTHING, UNREADABLE, TOKEN = Carried.NOTHING, Carried.UNREADABLE, Carried.TOKEN

WAYS: dict[str, list[Way]] = {
    "edge token": [
        Way("an edge token in the query", DIRECT, TOKEN, query="edge"),
        Way("the same edge token twice", DIRECT, TOKEN, query="edge edge"),
        Way("an edge token beside a good cookie", DIRECT, TOKEN, query="edge", cookies="good-cookie"),
        Way("an edge token, and a marker that says something else", DIRECT, TOKEN,
            query="edge another-marker"),
        Way("two different edge tokens", DIRECT, UNREADABLE, query="edge good-edge-other"),
        Way("an edge token in the cookie", DIRECT, UNREADABLE, cookies="edge"),
        Way("an edge token in the proxy header", PROXY, UNREADABLE, header="edge"),
        Way("an edge token, and the marker", PROXY, NOTHING, query="edge marker"),
    ],
    "cookie": [
        Way("a cookie", DIRECT, TOKEN, cookies="cookie"),
        Way("a cookie after three that are not valid", DIRECT, TOKEN, cookies="bad bad bad cookie"),
        Way("a cookie after four that are not valid", DIRECT, UNREADABLE,
            cookies="bad bad bad bad cookie"),
        Way("a cookie under the name it has without https", DIRECT, NOTHING, cookies="http:cookie"),
        Way("a cookie in the query", DIRECT, UNREADABLE, query="cookie"),
        Way("a cookie in the proxy header", PROXY, UNREADABLE, header="cookie"),
        Way("a cookie beside an edge token that is not valid", DIRECT, UNREADABLE,
            query="bad", cookies="cookie"),
        Way("a cookie, and the marker", PROXY, NOTHING, query="marker", cookies="cookie"),
    ],
    "proxy token": [
        Way("a proxy token in its header", PROXY, TOKEN, header="proxy"),
        Way("a proxy token and the marker", PROXY, TOKEN, query="marker", header="proxy"),
        Way("a proxy token beside a good edge token", PROXY, TOKEN, query="good-edge", header="proxy"),
        Way("a proxy token beside a good cookie", PROXY, TOKEN, cookies="good-cookie", header="proxy"),
        Way("two proxy tokens", PROXY, UNREADABLE, header="proxy good-proxy-other"),
        Way("a proxy token that is empty, beside a good edge token", PROXY, UNREADABLE,
            query="good-edge", header="empty"),
        Way("a proxy token in the query", DIRECT, UNREADABLE, query="proxy"),
        Way("a proxy token in the cookie", DIRECT, UNREADABLE, cookies="proxy"),
    ],
    "nothing": [
        Way("nothing", DIRECT, NOTHING),
        Way("an edge token that is empty", DIRECT, UNREADABLE, query="empty"),
        Way("the marker alone", PROXY, NOTHING, query="marker"),
        Way("a marker that says something else", DIRECT, NOTHING, query="another-marker"),
    ],
}  # fmt: skip


class Token(Flag):
    """What is wrong with the token that decides."""

    RIGHT = 0
    FORGED = auto()
    OTHER_SITE = auto()
    EXPIRED = auto()
    OTHER_SANDBOX = auto()
    OTHER_PORT = auto()
    OTHER_TRANSPORT = auto()


TOKENS = [
    Token.RIGHT,
    *Token,
    Token.FORGED | Token.EXPIRED,
    Token.FORGED | Token.OTHER_SANDBOX,
    Token.EXPIRED | Token.OTHER_PORT,
    Token.EXPIRED | Token.OTHER_SITE,
    Token.OTHER_SITE | Token.OTHER_SANDBOX,
]
"""Each fault alone, and pairs of them that show which one is told."""


# --- What the control plane knows ---------------------------------------------------------------------


class Sandbox(Enum):
    """The sandbox's record."""

    PAUSED = "paused"
    RUNNING = "running"
    CREATING = "creating"
    PAUSING = "pausing"
    RESUMING = "resuming"
    SLEEPS_ON = "paused, auto_resume off"
    DESTROYED = "destroyed"
    ERROR = "error"
    UNKNOWN = "unknown to the control plane"
    OFF_RUNNING = "running, its previews disabled"
    OFF_PAUSED = "paused, its previews disabled"


class Grant(Enum):
    """The grant's record."""

    ACTIVE = "active"
    REVOKED = "revoked"
    EXPIRED = "expired"
    OUTLIVED = "past its expires_at"
    DISABLED = "disabled"
    NARROWER = "for the other transport alone"
    UNKNOWN = "unknown to the control plane"


class Traffic(Enum):
    """Whether traffic is public, and the traffic access token that came with the request."""

    PUBLIC = "public"
    RIGHT = "private, the right token"
    MISSING = "private, no token"
    WRONG = "private, a wrong token"
    TWO = "private, the right token and another"
    NEEDLESS = "public, a token all the same"


class Kind(Enum):
    """The kind of request, as far as waking asks."""

    PLAIN = "plain"
    PREFETCH = "a prefetch"
    SPENT = "its grant has used up its wakes"


@dataclass(frozen=True)
class World:
    """What a request meets, should it get that far. The first of each kind is where all else is good."""

    sandbox: Sandbox = Sandbox.PAUSED
    grant: Grant = Grant.ACTIVE
    traffic: Traffic = Traffic.PUBLIC
    kind: Kind = Kind.PLAIN


@dataclass(frozen=True)
class Cell:
    """One request in one world."""

    way: Way
    transport: Transport
    token: Token
    world: World

    def __str__(self) -> str:
        world = self.world
        return (
            f"{self.way.name} ({self.token.name}), {self.transport.value}; sandbox {world.sandbox.value};"
            f" grant {world.grant.value}; traffic {world.traffic.value}; {world.kind.value}"
        )


STAR = [
    World(),
    *(World(sandbox=sandbox) for sandbox in Sandbox if sandbox is not Sandbox.PAUSED),
    *(World(grant=grant) for grant in Grant if grant is not Grant.ACTIVE),
    *(World(traffic=traffic) for traffic in Traffic if traffic is not Traffic.PUBLIC),
    *(World(kind=kind) for kind in Kind if kind is not Kind.PLAIN),
]
"""Worlds with one thing out of order."""
EVERY = [
    World(*parts)
    for parts in product(
        Sandbox, Grant, [t for t in Traffic if t is not Traffic.NEEDLESS], Kind
    )
]  # fmt: skip
"""Worlds with everything out of order that can be."""


def cells(group: str, transport: Transport) -> Iterator[Cell]:
    """Each way with each token in each world of the star; the first way, in order, in every world."""
    for way in WAYS[group]:
        for token in TOKENS if way.carries is TOKEN else [Token.RIGHT]:
            straight = way is WAYS[group][0] and token is Token.RIGHT
            cell = Cell(way, transport, token, World())
            deep = straight and first_rule(cell).asks
            for world in EVERY if deep else STAR:
                yield replace(cell, world=world)


# --- The rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What comes of a cell that no rule above applies to, if this one does.

    ``direct`` and ``proxy`` are the codes in each mode; an empty one: cannot be. ``asks`` are the calls that
    the edge makes to the control plane, at first sight of sandbox and grant. ``held``: nothing is
    answered until the sandbox's record changes to this.
    """

    section: str
    when: str
    applies: Callable[[Cell], bool]
    status: int
    direct: str = ""
    proxy: str = ""
    retryable: bool = False
    asks: tuple[str, ...] = ()
    held: str = ""

    @property
    def row(self) -> str:
        """The rule as a row of the page."""
        code = " / ".join(f"`{code}`" for code in dict.fromkeys((self.direct, self.proxy)) if code)
        said = f"{self.status} {code}" if code else "the app's"
        retry = "yes" if self.retryable else "no" if code else ""
        asked = ", ".join(self.asks) or "nothing"
        return f"| {self.when} | {said} | {retry} | {asked} |"


def _token(faults: Token) -> Callable[[Cell], bool]:
    return lambda cell: bool(cell.token & faults)


def _sandbox(*states: Sandbox) -> Callable[[Cell], bool]:
    return lambda cell: cell.world.sandbox in states


def _grant(*states: Grant) -> Callable[[Cell], bool]:
    return lambda cell: cell.world.grant in states


def _traffic(*states: Traffic) -> Callable[[Cell], bool]:
    return lambda cell: cell.world.traffic in states


def _asleep_and(kind: Kind, *states: Sandbox) -> Callable[[Cell], bool]:
    return lambda cell: cell.world.kind is kind and cell.world.sandbox in states


SANDBOX = ("sandbox",)
BOTH = ("sandbox", "grant")
WAKE = ("sandbox", "grant", "resume")

RULES = [
    # A stranger: nothing is asked, whatever the sandbox is and whether it is.
    Rule("2", "proxy mode (the header is there, or the marker says `header`), and there is no proxy token",
         lambda cell: cell.way.mode is PROXY and cell.way.carries is NOTHING,
         401, "", "preview_proxy_token_missing"),
    Rule("2", "there is neither an edge token in the query nor a cookie",
         lambda cell: cell.way.carries is NOTHING,
         401, "edge_token_missing"),
    Rule("2", "a WebSocket upgrade with a cookie and no edge token: the cookie counts for nothing",
         lambda cell: cell.way.by_cookie and cell.transport is WEBSOCKET,
         401, "edge_token_missing"),
    Rule("2", "the token is malformed, or of another family; or there are two different ones",
         lambda cell: cell.way.carries is UNREADABLE,
         401, "edge_token_invalid", "preview_proxy_token_invalid"),
    Rule("2", "the token is for another site",
         _token(Token.OTHER_SITE),
         401, "edge_token_invalid", "preview_proxy_token_invalid"),
    Rule("2", "the token has expired",
         _token(Token.EXPIRED),
         401, "edge_token_expired", "preview_proxy_token_expired"),
    Rule("2", "the token is for another sandbox, port or transport",
         _token(Token.OTHER_SANDBOX | Token.OTHER_PORT | Token.OTHER_TRANSPORT),
         403, "edge_token_scope_mismatch", "preview_proxy_token_scope_mismatch"),
    # What can be compared is compared first: a signature costs as much as several proxied requests.
    Rule("2", "the token is not signed by a key of the control plane (a cookie: of the edge)",
         _token(Token.FORGED),
         401, "edge_token_invalid", "preview_proxy_token_invalid"),
    # The credential is genuine and meant for this. What does the control plane say?
    Rule("5", "the control plane knows no such sandbox, or it was destroyed",
         _sandbox(Sandbox.UNKNOWN, Sandbox.DESTROYED),
         404, "sandbox_not_found", "sandbox_not_found", asks=SANDBOX),
    Rule("2", "the control plane knows no such grant",
         _grant(Grant.UNKNOWN),
         401, "preview_grant_invalid", "preview_proxy_token_invalid", asks=BOTH),
    Rule("2", "the grant was revoked",
         _grant(Grant.REVOKED),
         401, "preview_grant_revoked", "preview_proxy_token_revoked", asks=BOTH),
    Rule("2", "the grant has expired",
         _grant(Grant.EXPIRED, Grant.OUTLIVED),
         401, "edge_token_expired", "preview_proxy_token_expired", asks=BOTH),
    Rule("2", "an operator disabled the grant",
         _grant(Grant.DISABLED),
         403, "preview_grant_disabled", "preview_proxy_token_disabled", asks=BOTH),
    Rule("2", "the grant does not cover this sandbox, port and transport",
         _grant(Grant.NARROWER),
         403, "edge_token_scope_mismatch", "preview_proxy_token_scope_mismatch", asks=BOTH),
    Rule("5", "an operator disabled the sandbox's previews",
         _sandbox(Sandbox.OFF_RUNNING, Sandbox.OFF_PAUSED),
         403, "preview_sandbox_disabled", "preview_sandbox_disabled", asks=BOTH),
    Rule("2", "traffic is private, and there is no traffic access token",
         _traffic(Traffic.MISSING),
         401, "traffic_access_token_missing", "traffic_access_token_missing", asks=BOTH),
    Rule("2", "traffic is private, and the traffic access token is another's, or one of two",
         _traffic(Traffic.WRONG, Traffic.TWO),
         401, "traffic_access_token_invalid", "traffic_access_token_invalid", asks=BOTH),
    # They may. Does it run, and may they wake it?
    Rule("5", "the sandbox is in state `error`",
         _sandbox(Sandbox.ERROR),
         503, "sandbox_error", "sandbox_error", asks=BOTH),
    Rule("4", "the sandbox is `paused`, and `auto_resume` is off",
         _sandbox(Sandbox.SLEEPS_ON),
         503, "sandbox_paused_auto_resume_disabled", "sandbox_paused_auto_resume_disabled", asks=BOTH),
    Rule("4", "the sandbox is `running`",
         _sandbox(Sandbox.RUNNING),
         200, asks=BOTH),
    Rule("4", "the sandbox is `creating` or `resuming`: the request waits, and goes on when it runs",
         _sandbox(Sandbox.CREATING, Sandbox.RESUMING),
         200, asks=BOTH, held="running"),
    Rule("4", "the sandbox is `paused` or `pausing`, and this is a kind of request that wakes nobody",
         _asleep_and(Kind.PREFETCH, Sandbox.PAUSED, Sandbox.PAUSING),
         503, "wake_suppressed_by_policy", "wake_suppressed_by_policy", retryable=True, asks=BOTH),
    Rule("4", "the sandbox is `paused`, and the grant's wakes of this hour are used up",
         _asleep_and(Kind.SPENT, Sandbox.PAUSED),
         503, "preview_overloaded", "preview_overloaded", retryable=True, asks=BOTH),
    Rule("4", "the sandbox is `pausing`, and those wakes are used up: the request waits until it is `paused`",
         _asleep_and(Kind.SPENT, Sandbox.PAUSING),
         503, "preview_overloaded", "preview_overloaded", retryable=True, asks=BOTH, held="paused"),
    Rule("4", "the sandbox is `pausing`: the request waits until it is `paused`, and wakes it again",
         _sandbox(Sandbox.PAUSING),
         200, asks=WAKE, held="paused"),
    Rule("4", "the sandbox is `paused`",
         _sandbox(Sandbox.PAUSED),
         200, asks=WAKE),
]  # fmt: skip


def first_rule(cell: Cell) -> Rule:
    """The rule that decides."""
    return next(rule for rule in RULES if rule.applies(cell))


OVERDUE = {
    Sandbox.CREATING: "sandbox_not_ready",
    Sandbox.RESUMING: "sandbox_resume_timeout",
    Sandbox.PAUSING: "sandbox_resume_timeout",
}
"""What a request that waits is told when the window is over before anything changes."""


def presented(way: Way) -> str:
    """What a way amounts to, as a row of the page."""
    rules = [first_rule(Cell(way, transport, Token.RIGHT, World())) for transport in Transport]
    http, websocket = (
        TOKEN.value if rule.asks else f"`{rule.proxy if way.mode is PROXY else rule.direct}`"
        for rule in rules
    )
    return f"| {way.name} | {way.mode.value} | {http} | {websocket} |"
