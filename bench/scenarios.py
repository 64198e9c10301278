"""What is asked of the proxies. Every contender gets the very same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.load import Job
from bench.peers import AIOHTTP, BUNDLE, PAGE
from bench.upstream import CLIENT_FRAME, SERVER_FRAME
from bench.world import FAST, LIVE, RUNNING, World, host_of
from edge.core.records import Transport

CONNECTIONS = 32
USER_AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36"
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of work. ``rounds`` and ``job.seconds`` are those of a full run; ``job.port`` is filled in."""

    name: str
    title: str
    job: Job
    rounds: int
    without: frozenset[str] = frozenset()

    def shorter(self) -> Scenario:
        """The same for ``--quick``."""
        return self.with_length(min(self.rounds, 3), 1.0)

    def with_length(self, rounds: int | None, seconds: float | None) -> Scenario:
        """The same, so many rounds of so many seconds; None = as it is."""
        job = replace(self.job, seconds=seconds or self.job.seconds)
        return replace(self, rounds=rounds or self.rounds, job=job)


def scenarios(world: World) -> list[Scenario]:
    """All of them, the main one first."""
    fast = browser_fields(host_of(RUNNING, FAST), world.cookie(RUNNING, FAST))
    live = browser_fields(host_of(RUNNING, LIVE), world.cookie(RUNNING, LIVE))
    socket_token = world.token(RUNNING, LIVE, Transport.WEBSOCKET)
    page = Job(
        port=0,
        requests=(request("GET", "/page", fast),),
        connections=CONNECTIONS,
        seconds=3.0,
        length=len(PAGE),
        tail=PAGE[-16:],
    )
    mixed = replace(page, requests=tuple(_a_pages_requests(fast)), seconds=2.0)
    bundle = replace(
        page,
        requests=(request("GET", "/bundle.js", fast),),
        seconds=2.0,
        length=len(BUNDLE),
        tail=BUNDLE[-16:].decode(),
    )
    body = "x" * 16384
    post = Job(
        port=0,
        requests=(request("POST", "/live/count", [*live, *body_fields(len(body))]) + body,),
        connections=CONNECTIONS,
        seconds=2.0,
        length=16,
        tail=f"{len(body):016d}",
    )
    tunnel = Job(
        port=0,
        opening=upgrade(f"/live/ws?edge_token={socket_token}", host_of(RUNNING, LIVE)),
        requests=(CLIENT_FRAME.decode("latin-1"),),
        answer=SERVER_FRAME.decode("latin-1"),
        connections=CONNECTIONS,
        seconds=2.0,
    )
    return [
        Scenario("get", f"GET of {len(PAGE)} bytes", page, rounds=9),
        Scenario("paced", "the same, 1000 requests a second", replace(page, rate=1000.0), rounds=5),
        Scenario("mixed", "GET of many kinds, no two answers alike", mixed, rounds=5),
        Scenario("get64k", "GET of 64 KiB", bundle, rounds=5),
        Scenario("post16k", "POST of 16 KiB", post, rounds=5),
        Scenario("tunnel", "WebSocket, round trip of 32 bytes", tunnel, 5, frozenset({AIOHTTP})),
    ]


def browser_fields(host: str, cookie: str) -> list[tuple[str, str]]:
    """The header of a fetch by a desktop browser, with the app's own cookies beside the edge's."""
    return [
        ("Host", host),
        ("Connection", "keep-alive"),
        ("Cache-Control", "max-age=0"),
        ("sec-ch-ua-platform", '"Linux"'),
        ("User-Agent", USER_AGENT),
        ("sec-ch-ua", '"Chromium";v="140", "Not=A?Brand";v="24"'),
        ("sec-ch-ua-mobile", "?0"),
        ("Accept", "*/*"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Mode", "cors"),
        ("Sec-Fetch-Dest", "empty"),
        ("Referer", f"https://{host}/dashboard/settings"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-GB,en;q=0.9,de;q=0.8"),
        ("Cookie", f"session=4f1c9ab2d7e84f0c; theme=dark; {cookie}; csrftoken=Zk3v8QpLw2Rt"),
    ]


_KINDS = (
    ("text/html,application/xhtml+xml,*/*;q=0.8", "navigate", "document"),
    ("text/css,*/*;q=0.1", "no-cors", "style"),
    ("*/*", "no-cors", "script"),
    ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "no-cors", "image"),
    ("application/json", "cors", "empty"),
    ("*/*", "cors", "font"),
)
"""Accept, Sec-Fetch-Mode and Sec-Fetch-Dest of what a browser asks for."""


def _a_pages_requests(fields: list[tuple[str, str]]) -> Iterator[str]:
    """Requests of all kinds, each with a query of its own, from pages that differ."""
    host = dict(fields)["Host"]
    for number in range(97):  # a prime: turns and connections do not fall into step
        accept, mode, destination = _KINDS[number % len(_KINDS)]
        changed = {
            "Accept": accept,
            "Sec-Fetch-Mode": mode,
            "Sec-Fetch-Dest": destination,
            "Referer": f"https://{host}/projects/{number // 10}",
        }
        lines = [(name, changed.get(name, value)) for name, value in fields]
        yield request("GET", f"/mixed?v={number}", lines)


def body_fields(length: int) -> list[tuple[str, str]]:
    """What a request with a body says besides."""
    return [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))]


def request(method: str, target: str, fields: list[tuple[str, str]]) -> str:
    """A request head."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""])


def upgrade(target: str, host: str) -> str:
    """A WebSocket handshake (RFC 6455 section 4.1)."""
    fields = [
        ("Host", host),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Origin", f"https://{host}"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    return request("GET", target, fields)
