"""The access log: every field, and no credential in any encoding."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from edge.core.credentials import Claims, Family, Key, sign
from edge.core.errors import SANDBOX_RESUME_TIMEOUT
from edge.core.records import Transport
from edge.core.reports import Role
from edge.ops.access_log import access_line, clean, timestamp
from tests.ops.samples import exchange

CLAIMS = Claims("i", "a", "sb_1", 80, Transport.HTTP, "g", "p", 1.0, 2.0, "j")
TOKEN = sign(CLAIMS, Family.EDGE, Key("k", "HS256", "s" * 32))


def record(**changes: Any) -> dict[str, Any]:
    """The line of an exchange, read back."""
    line = access_line(exchange(**changes))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_every_field() -> None:
    """One line has what happened, to whom, and how long it took."""
    assert record(role=Role.LEADER, problem=SANDBOX_RESUME_TIMEOUT, status=503, waited=0.0015) == {
        "time": "2023-11-14T22:13:20.250Z",
        "request_id": "r-1",
        "peer": "127.0.0.1",
        "method": "GET",
        "host": "8000-sb-1a2b3c4d.localhost:3001",
        "path": "/a",
        "status": 503,
        "code": "sandbox_resume_timeout",
        "end": "complete",
        "wake": "leader",
        "tunnel": False,
        "sandbox": "sb_1a2b3c4d",
        "port": 8000,
        "grant": "pvg_1",
        "bytes_in": 0,
        "bytes_out": 2,
        "duration_ms": 2.0,
        "waited_ms": 1.5,
    }


def percent(text: str) -> str:
    """Every byte percent-encoded."""
    return "".join(f"%{byte:02x}" for byte in text.encode())


@pytest.mark.parametrize(
    "path",
    [
        f"/{TOKEN}",
        f"/a/{TOKEN}/b",
        f"/a;edge_token={TOKEN}",
        f"/a&edge_token={TOKEN}#x",
        f"/edge_token%3D{TOKEN}",
        f"/{percent(TOKEN)}",
        f"/{percent(percent(TOKEN))}",
        f"/{TOKEN.replace('.', '%2E')}",
        f"/{TOKEN.replace('e', '%65')}",
        f"/{percent('edge_token=')}{TOKEN}",
        f"/?edge_token={TOKEN}",
        f"/{b64encode(TOKEN.encode()).decode()}/x",
        f"/{'x' * 2040}{TOKEN}",
    ],
)
@pytest.mark.parametrize("field", ["path", "host"])
def test_no_token_in_any_encoding(field: str, path: str) -> None:
    """Neither the token nor a long enough piece of it, wherever a client puts it."""
    line = access_line(exchange(**{field: path})).decode()
    for part in TOKEN.split("."):
        assert part[:12] not in line
        assert percent(part)[:36] not in line
    assert b64encode(TOKEN.encode()).decode()[:24] not in line


@pytest.mark.parametrize("encode", [str, percent, lambda token: b64encode(token.encode()).decode()])
@pytest.mark.parametrize("path", ["/{}", "/a/{}/b.js", "/x{}", "/nst_/{}?{}"])
def test_no_traffic_token_in_any_encoding(path: str, encode: Callable[[str], str]) -> None:
    """Not in a path either that has nothing else to hide, and is short."""
    token = "nst_" + "Qm9-0f1e2d3cKb5a6978_796a5b4c3d2"
    line = access_line(exchange(path=path.replace("{}", encode(token)))).decode()
    assert encode(token)[-20:] not in line and token[-20:] not in line
    assert "<redacted>" in line


@pytest.mark.parametrize("encode", [str, percent, lambda token: b64encode(token.encode()).decode()])
def test_no_signature_wherever_a_long_text_is_cut(encode: Callable[[str], str]) -> None:
    """Only so much of a text is looked at: of a token that reaches beyond, what makes it one is gone."""
    signature = TOKEN.rpartition(".")[2]
    # Where the signature would begin, were it encoded alone: what is visible of it must not be long.
    marks = {signature[:12], percent(signature)[:36], *windows(encode(TOKEN), 200)}
    for before in range(0, 4200, 7):
        cleaned = clean("/" + "x" * before + encode(TOKEN) + "/more" * 500)
        assert not any(mark in cleaned for mark in marks), before


def windows(text: str, length: int) -> set[str]:
    """The pieces of the text's second half."""
    return {text[at : at + length] for at in range(len(text) // 2, len(text) - length)}


@pytest.mark.parametrize("text", ["%25" * 21_000, "%65yJ." * 10_000, "eyJ" * 21_000])
def test_hostile_hosts_cost_no_time(text: str) -> None:
    """A stranger's Host is logged: 64 kB of percent signs once took ten milliseconds, for nothing."""
    began = time.thread_time()
    for _ in range(100):
        clean(text)
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/jquery.min.js",
        "/a%20b",
        "/%",
        "/%zz",
        "/a.b.c/v1.2.3",
        quote("/ü/é"),
        "/eyJ",
        "/aZXlKb",
    ],
)
def test_ordinary_paths_stay_as_they_were_sent(path: str) -> None:
    """Redaction must not spoil the log it protects."""
    assert clean(path) == path


def test_bytes_that_are_no_text() -> None:
    """Lone surrogates and control characters still make one valid line."""
    assert record(path="/\udcff\x00\r\n")["path"] == "/?\x00\r\n"


def test_long_paths_are_cut() -> None:
    """A line is for people and tools, not an archive."""
    assert len(record(path="/" + "x" * 50_000)["path"]) < 3000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.9999, "2023-11-14T22:13:20.999Z"),
        (1_700_000_001.0, "2023-11-14T22:13:21.000Z"),
    ],
)
def test_timestamps(seconds: float, text: str) -> None:
    """RFC 3339 in UTC, cut to milliseconds."""
    assert timestamp(seconds) == text
