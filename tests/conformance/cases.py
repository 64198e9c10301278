r"""The cases: how ``*.yaml`` is read. README.md beside this file tells how to write one.

Text in a case is bytes in a readable form. A block (``|``) is a head: its lines get CR LF, and an empty
line follows. Text without a line end is taken as it is. In both, ``\r \n \t \0 \xNN \\`` are bytes
and ``{host}`` and the like are `WORDS`; ``{a*300}`` is that letter as often.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conformance import stage

HERE = Path(__file__).parent

WORDS = {
    "host": stage.HOST,
    "cookie": stage.COOKIE,
    "pass": f"Cookie: {stage.COOKIE}\r\nX-Request-Id: case",
    "ours": f"Host: {stage.HOST}\r\nCookie: {stage.COOKIE}\r\nX-Request-Id: case",
    "edge-token": stage.EDGE_TOKEN,
    "socket-token": stage.SOCKET_TOKEN,
    "proxy-token": stage.PROXY_TOKEN,
    "set-cookie": f"{stage.SET_COOKIE}\r\nCache-Control: private",
    "added": (
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
        f"X-Forwarded-Host: {stage.HOST}\r\nX-Request-Id: case\r\nVia: 1.1 preview-edge"
    ),
    "traced": "X-Request-Id: case\r\nVia: 1.1 preview-edge",
    "handshake": (
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
    ),
}
_DEFAULTS = {
    "request": "GET /case HTTP/1.1\nHost: {host}\n{pass}\n",
    "upstream": "GET /case HTTP/1.1\nHost: {host}\n{added}\n",
    "answer": "HTTP/1.1 200 OK\nContent-Length: 2\n",
    "answer body": "ok",
}
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|[rnt0\\])|\{([A-Za-z0-9-]+)(?:\*([0-9]+))?\}")
_PLAIN = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the dialogue. ``act`` is sends, gets, closes or resets; ``who`` is client or app."""

    who: str
    act: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Case:
    """One case, every default filled in."""

    theme: str
    name: str
    see: str
    side: str
    """Whose bytes are on trial: ``client`` or ``app``."""
    steps: tuple[Step, ...]
    refused: tuple[int, str] | None
    """Status and code that the client gets instead of an answer of the app."""
    broken: bytes | None
    """The head of an answer that the client may see begin, and must see cut. A 502 is as good."""
    closes: frozenset[str]
    """Whose connection the edge ends: client, upstream. ``either``: the client's, if the answer says so."""
    partial: bool
    """The app may have seen a part of the request, if it sees it cut."""
    tunnel: bool
    reused: bool
    """The upstream's connection has served a request before."""
    no_tail: str
    """Why nothing can follow the bytes on trial; empty = something can."""

    @property
    def repeats(self) -> bool:
        """Whether both connections are as before afterwards, so that it can be played again on them."""
        left_alone = self.refused is None and self.broken is None and not self.closes
        return left_alone and not self.tunnel and not self.reused


def as_bytes(text: str) -> bytes:
    """The bytes that text stands for."""
    text = str(text)
    if "\r" in text or ("\n" in text.rstrip("\n") and not text.endswith("\n")):
        raise ValueError(f"bytes are escaped in cases, not in YAML's double quotes: {text!r}")
    if text.endswith("\n"):
        return b"\r\n".join(map(_line, text[:-1].split("\n"))) + b"\r\n\r\n"
    return _line(text)


def _line(text: str) -> bytes:
    out, at = b"", 0
    for match in _ESCAPE.finditer(text):
        out += text[at : match.start()].encode("latin-1")
        out += _unescaped(match[1]) if match[1] else _word(match)
        at = match.end()
    return out + text[at:].encode("latin-1")


def _unescaped(code: str) -> bytes:
    return bytes([int(code[1:], 16)]) if code[0] == "x" else _PLAIN[code]


def _word(match: re.Match[str]) -> bytes:
    if match[3]:
        return match[2].encode() * int(match[3])
    if match[2] not in WORDS:
        raise ValueError(f"unknown word {match[0]}")
    return WORDS[match[2]].encode()


def load() -> list[Case]:
    """Every case of every file, in order. Raises ValueError for what is not a case."""
    found = []
    for path in sorted(HERE.glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text("utf-8"))["cases"]:
            try:
                found.append(_case(path.stem, entry))
            except (KeyError, ValueError, AttributeError) as e:
                raise ValueError(f"{path.name}, {entry.get('name')!r}: {e!r}") from e
    return found


def _case(theme: str, entry: dict[str, Any]) -> Case:
    left = dict(entry)
    refused = _refusal(left.pop("refused", None))
    broken = left.pop("broken", None)
    answered = "answer" in left or any("app sends" in step for step in left.get("steps", ()))
    side = left.pop("side", "app" if answered else "client")
    name, see, closes = str(left.pop("name")), str(left.pop("see")), left.pop("closes", None)
    partial, tunnel = left.pop("partial", False), left.pop("tunnel", False)
    reused, no_tail = left.pop("reused", False), left.pop("no tail", "")
    steps = _steps(left, refused, side, expects_answer=broken is None)
    if closes is None:
        closes = "" if refused is None else "client" if refused[0] < 500 else "upstream"
    return Case(
        theme=theme,
        name=name,
        see=see,
        side=side,
        steps=steps,
        refused=refused,
        broken=None if broken is None else as_bytes(broken),
        closes=frozenset(closes.split()) - {"nothing"},
        partial=partial,
        tunnel=tunnel,
        reused=reused,
        no_tail=no_tail,
    )


def _refusal(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    status, code = text.split()
    return int(status), code


_SUGAR = (
    ("client", "sends", ("request", "body")),
    ("app", "gets", ("upstream", "upstream body")),
    ("app", "sends", ("answer", "answer body")),
    ("client", "gets", ("client", "client body")),
)


def _steps(
    left: dict[str, Any], refused: tuple[int, str] | None, side: str, *, expects_answer: bool
) -> tuple[Step, ...]:
    if "steps" in left:
        steps = [_step(text, value) for one in left.pop("steps") for text, value in one.items()]
    else:
        asked = {"request", "body"} & left.keys()
        given = dict(left) if asked else _DEFAULTS | left
        if not asked:
            given = {k: v for k, v in given.items() if not k.startswith("answer") or k in left}
        if "answer" not in left and refused is None and expects_answer:
            given |= {k: v for k, v in _DEFAULTS.items() if k.startswith("answer")}
            given.setdefault("client", _DEFAULTS["answer"])
            given.setdefault("client body", _DEFAULTS["answer body"])
        steps = [
            Step(who, act, as_bytes(given[key]))
            for who, act, keys in _SUGAR
            for key in keys
            if key in given
        ]
        for _, _, keys in _SUGAR:
            for key in keys:
                left.pop(key, None)
    if left:
        raise ValueError(f"unknown: {', '.join(left)}")
    return tuple(_merged(steps))


def _step(text: str, value: Any) -> Step:
    who, _, act = text.partition(" ")
    if who not in {"client", "app"} or act not in {"", "sends", "gets"}:
        raise ValueError(f"unknown step {text!r}")
    return Step(who, act, as_bytes(value)) if act else Step(who, value)


def _merged(steps: list[Step]) -> list[Step]:
    """Neighbours that go the same way are one write, or one message to expect."""
    out: list[Step] = []
    for step in steps:
        if out and (out[-1].who, out[-1].act) == (step.who, step.act):
            out[-1] = Step(step.who, step.act, out[-1].data + step.data)
        else:
            out.append(step)
    return out
