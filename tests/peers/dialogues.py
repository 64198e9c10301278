"""The dialogues, as a table: what the client does and what the server does, step by step (see `part`).

They take turns, so that what goes over the wire is the same each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.peers.part import Part, Step

EVERYBODY = frozenset({"websockets", "wsproto", "ws"})
BYE: Step = ["close", 1000, "bye"]


@dataclass(frozen=True)
class Dialogue:
    """``peers`` can play it. ``cut``: a connection is dropped while bytes may be under way to it."""

    name: str
    client: Part
    server: Part
    peers: frozenset[str] = EVERYBODY
    cut: bool = False


def talk(
    name: str, client: list[Step], server: list[Step], *, cut: bool = False, **how: Any
) -> Dialogue:
    """A dialogue in which both parts are asked for the same handshake."""
    peers = how.pop("peers", EVERYBODY)
    return Dialogue(name, Part(client, **how), Part(server, **how), peers, cut)


def both_ways(*messages: Step) -> tuple[list[Step], list[Step]]:
    """The client says it all, then the server says it all, then the client closes."""
    said, heard = list(messages), [["get"] for _ in messages]
    return [*said, *heard, BYE], [*heard, *said, ["wait"]]


def messages() -> list[Dialogue]:
    """Messages of all sizes and shapes."""
    sizes = [0, 1, 125, 126, 65535, 65536]
    parts = ["one", "", "two", "é and ü", "three"]
    pinged = ["one", {"ping": "within"}, "two"]
    return [
        talk("text", *both_ways(["text", "hello"], ["text", "wörld"])),
        talk("empty messages", *both_ways(["text", ""], ["binary", 0], ["text", ""])),
        talk("sizes", *both_ways(*(["binary", size] for size in sizes))),
        talk("fragments", *both_ways(["fragments", parts], ["fragments", ["", ""]])),
        talk("a ping between fragments", *both_ways(["fragments", pinged])),
        talk("a burst", *both_ways(*(["text", f"number {n}"] for n in range(200)))),
        talk(
            "the server speaks first",
            [["get"], ["get"], ["text", "yes"], BYE],
            [["text", "are you"], ["text", "there?"], ["get"], ["wait"]],
        ),
        talk("10 MB", *both_ways(["binary", 10_000_000])),
        talk("10 MB, deflated", *both_ways(["binary", 10_000_000]), deflate={}),
    ]


def control_frames() -> list[Dialogue]:
    """Pings and pongs of both sides."""
    pings: list[Step] = [["ping", "p1"], ["ping", ""], ["ping", "p" * 125], ["text", "done"]]
    return [
        talk("the client pings", [*pings, BYE], [["get"], ["wait"]]),
        talk("the server pings", [["get"], BYE], [*pings, ["wait"]]),
        talk(
            "unsolicited pongs",
            [["pong", "x"], ["pong", ""], ["text", "y"], ["get"], BYE],
            [["get"], ["pong", "z"], ["text", "w"], ["wait"]],
        ),
    ]


def closes() -> list[Dialogue]:
    """Ends of all kinds."""
    codes = [(1000, ""), (1001, "going"), (1011, "trouble"), (3000, "é"), (4999, "r" * 123)]
    table = []
    for code, reason in [*codes, (None, "")]:
        close: Step = ["close", code, reason]
        table += [
            talk(f"the client closes with {code}", [close], [["wait"]]),
            talk(f"the server closes with {code}", [["wait"]], [close]),
        ]
    return [
        *table,
        talk("the client drops", [["text", "x"], ["get"], ["drop"]], [["get"], ["text", "y"], ["wait"]], cut=True),
        talk("the server drops", [["text", "x"], ["wait"]], [["get"], ["drop"]], cut=True),
        talk("the server drops at once", [["wait"]], [["drop"]], cut=True),
        # Opcode 11 is reserved (section 5.2): whoever gets it fails the connection with 1002.
        talk("the client breaks the protocol", [["raw", "8b8000000000"], ["wait"]], [["wait"]], cut=True),
        talk("the server breaks the protocol", [["wait"]], [["raw", "8b00"], ["wait"]], cut=True),
        talk(
            "the client half-closes",
            [["text", "all"], ["end"], ["get"], ["get"], ["eof"]],
            [["get"], ["eof"], ["text", "still"], ["binary", 300_000], ["end"]],
            peers=frozenset({"wsproto"}),
        ),
        talk(
            "the server half-closes",
            [["get"], ["eof"], ["text", "still"], ["binary", 300_000], ["end"]],
            [["text", "all"], ["end"], ["get"], ["get"], ["eof"]],
            peers=frozenset({"wsproto"}),
        ),
    ]  # fmt: skip


def deflates() -> list[Dialogue]:
    """permessage-deflate (RFC 7692) with and without what one message tells the next."""
    again = "the same again and again, the same again and again"
    steps = both_ways(
        ["text", again], ["text", again], ["text", again], ["binary", 70_000], ["text", ""],
        ["fragments", [again, again]],
    )  # fmt: skip
    both = {"server_no_context_takeover": True, "client_no_context_takeover": True}
    ways: dict[str, dict[str, Any]] = {
        "context both ways": {},
        "no context from the server": {"server_no_context_takeover": True},
        "no context from the client": {"client_no_context_takeover": True},
        "no context": both,
        "small windows": {"server_max_window_bits": 10, "client_max_window_bits": 11},
        "small windows, no context": both | {"server_max_window_bits": 9},
    }
    return [
        *(talk(f"deflate, {name}", *steps, deflate=way) for name, way in ways.items()),
        Dialogue("deflate, refused", Part(steps[0], deflate={}), Part(steps[1])),
        Dialogue("deflate, not asked for", Part(steps[0]), Part(steps[1], deflate={})),
    ]


def handshakes() -> list[Dialogue]:
    """What the handshake says beside the upgrade, and refusals."""
    asked = [
        ("Origin", "https://app.example"),
        ("Cookie", 'a=1; b="2"; c'),
        ("Authorization", "Bearer of.the.app"),
        ("X-Odd-CASE", "kept, as  it is"),
        ("User-Agent", "peers/1"),
    ]
    answered = [
        ("Set-Cookie", "s=1; Path=/; HttpOnly"),
        ("Set-Cookie", "t=2"),
        ("X-odd-Case", "kept, too"),
        ("Strict-Transport-Security", "max-age=1"),
    ]
    said, heard = both_ways(["text", "hello"])
    spoken = ["chat.v1", "chat.v2"]
    challenge = [("WWW-Authenticate", 'Basic realm="app"'), ("Set-Cookie", "seen=1")]
    return [
        Dialogue(
            "a subprotocol",
            Part(said, subprotocols=["odd", *spoken]),
            Part(heard, subprotocols=["chat.v2"]),
        ),
        Dialogue("fields and cookies", Part(said, fields=asked), Part(heard, fields=answered)),
        Dialogue("refused, 401", Part([]), Part([], refuse=(401, "who are you?"), fields=challenge)),
        Dialogue("refused, 404", Part([]), Part([], refuse=(404, "no such room\n" * 1000))),
        Dialogue("refused, 503", Part([]), Part([], refuse=(503, "full"), fields=[("Retry-After", "9")])),
    ]  # fmt: skip


DIALOGUES = [*messages(), *control_frames(), *closes(), *deflates(), *handshakes()]
