"""What dev prints: the banner, and one readable line a wake."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge.commands.screen import Addresses, banner, base_url, event_line, without_secrets

ADDRESSES = Addresses(
    "http://127.0.0.1:1", [("http://127.0.0.1:2", "http://127.0.0.1:3")], "nsk_k", "d"
)
SECOND = ("http://127.0.0.1:4", "http://127.0.0.1:5")
DEMO: dict[str, object] = {
    "event": "demo",
    "sandbox_id": "sb_12345678",
    "url": "http://8000-sb-12345678.localhost:2/?edge_token=a&b",
    "websocket_url": "ws://x",
    "link": "http://8000-sb-12345678.localhost:2/?edge_token=a#ws=b",
}


def commands(text: str) -> list[str]:
    """The indented commands of a banner."""
    after = text.partition("Three commands")[2].partition("\n\n")[2]
    return [line.strip() for line in after.partition("\n\n")[0].splitlines()]


@pytest.mark.parametrize("demo", [DEMO, None])
def test_the_banner_has_key_addresses_and_three_commands(demo: dict[str, object] | None) -> None:
    """With and without a demo sandbox."""
    text = banner(ADDRESSES, demo)
    assert len(commands(text)) == 3
    parts = "nsk_k http://127.0.0.1:1 http://127.0.0.1:1/console http://127.0.0.1:2 http://127.0.0.1:3/metrics"
    assert all(part in text for part in parts.split())
    assert ("preview" in text) is (demo is not None)


@pytest.mark.parametrize(
    ("number", "words"), [(1, "A sandbox of|kill it."), (12, "12 sandboxes of|kill them.")]
)
def test_the_banner_says_what_an_earlier_run_left(number: int, words: str) -> None:
    """How many, that their files wait, and how to list them; without any not a word."""
    text = banner(ADDRESSES, DEMO, in_error=number)
    assert all(part in text for part in words.split("|"))
    assert "files are kept until you kill" in text
    assert "'http://127.0.0.1:1/v1/sandboxes?state=error'" in text
    assert len(commands(text)) == 3
    assert "earlier run" not in banner(ADDRESSES, DEMO)


def test_the_banner_says_when_sandboxes_have_no_way_out() -> None:
    """With networks of their own, and only then."""
    assert "no way out" in banner(ADDRESSES, DEMO, isolated=True)
    assert "no way out" not in banner(ADDRESSES, DEMO)


def test_the_preview_link_stands_first_and_is_quoted_in_commands() -> None:
    """An ampersand in a URL must not send curl to the background."""
    text = banner(ADDRESSES, DEMO)
    assert text.splitlines()[1].split() == ["preview", DEMO["link"]]
    assert commands(text)[1] == f"curl -s '{DEMO['url']}'"


def test_a_fleet_has_a_row_for_each_edge_and_one_for_redis() -> None:
    """Its user and password stay out; a fleet without Redis is told what it does instead."""
    fleet = replace(ADDRESSES, edges=[*ADDRESSES.edges, SECOND])
    rows = banner(fleet, None).splitlines()
    assert "  edge-1   http://127.0.0.1:2  (admin http://127.0.0.1:3)" in rows
    assert "  edge-2   http://127.0.0.1:4  (admin http://127.0.0.1:5)" in rows
    assert any(row.startswith("  redis    none: each edge follows") for row in rows)
    text = banner(replace(fleet, redis="redis://me:hush@127.0.0.1:6379/2?password=hush"), None)
    assert "  redis    redis://127.0.0.1:6379/2" in text.splitlines() and "hush" not in text
    assert "redis" not in banner(ADDRESSES, None)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h"),
        ("rediss://u:p@[::1]:1/0", "rediss://[::1]:1/0"),
        ("redis://u:p@ss@h:1", "redis://h:1"),
    ],
)
def test_urls_without_what_is_secret(url: str, shown: str) -> None:
    """Whatever stands before the last at sign."""
    assert without_secrets(url) == shown


def event(**fields: object) -> str:
    """A line of the edge's event log."""
    return json.dumps({"time": "2026-01-02T12:34:56.789Z", "level": "info", **fields})


def test_a_wake_is_one_line_for_people() -> None:
    """Who woke it, who waited, and the three phases."""
    line = event_line(
        event(
            event="wake", sandbox="sb_1", outcome="ok", woken_by="GET /", waiters=3,
            resume_ms=7.14, listen_ms=0.5, dispatch_ms=0.4, first_byte_ms=1234.0,
        )
    )  # fmt: skip
    assert line == (
        "12:34:56  woke sb_1 for GET / (3 waiting): resume 7.1 ms, listen 0.5 ms, first byte 1.23 s"
    )


def test_a_wake_that_failed_says_why() -> None:
    """Its line has the code that those who waited got."""
    line = event_line(
        event(
            event="wake",
            sandbox="sb_1",
            outcome="sandbox_resume_failed",
            woken_by="GET /",
            waiters=1,
        )
    )
    assert line == (
        "12:34:56  could not wake sb_1 for GET /: sandbox_resume_failed (resume not reached)"
    )


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (event(event="started", port=1), None),
        ("", None),
        ("Traceback (most recent call last):", "edge: Traceback (most recent call last):"),
        ("[1]", "edge: [1]"),
        ('{"level":"warning","event":"watch_lost","reason":"r"}', "edge: watch lost: reason r"),
        ("\x1b]0;title\x07", "edge: ?]0;title?"),
    ],
)
def test_other_lines(line: str, shown: str | None) -> None:
    """Troubles are shown, routine is not."""
    assert event_line(line) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            {"event": "state_not_written", "sandbox": "sb_1", "error": "disk full"},
            "state not written: sandbox sb_1, error disk full",
        ),
        ({"event": "redis_back"}, "redis back"),
    ],
)
def test_lines_of_the_control_plane(line: dict[str, object], shown: str) -> None:
    """They have no level, and are all for people; never as JSON."""
    text = json.dumps({"time": "2026-01-02T12:34:56.789+00:00", **line})
    assert event_line(text, "control plane") == f"control plane: {shown}"


def test_lines_of_a_fleet_say_whose_they_are() -> None:
    """Wakes that went well, wakes that did not, and the rest."""
    woke = {"event": "wake", "sandbox": "s", "woken_by": "GET /"}
    assert "  edge-2 woke s for" in str(event_line(event(**woke, outcome="ok"), "edge-2"))
    assert "  edge-2 could not wake s" in str(event_line(event(**woke, outcome="no"), "edge-2"))
    assert event_line("Traceback", "edge-2") == "edge-2: Traceback"


def test_a_path_cannot_command_the_terminal() -> None:
    """Control characters of a request's path are not obeyed."""
    line = event_line(
        event(event="wake", sandbox="s", outcome="ok", woken_by="GET /\x9b2J\x1b[2J", waiters=1)
    )
    assert line is not None
    assert line.isprintable()


@pytest.mark.parametrize(
    ("host", "url"), [("::1", "http://[::1]:7"), ("127.0.0.1", "http://127.0.0.1:7")]
)
def test_base_urls(host: str, url: str) -> None:
    """IPv6 addresses need brackets."""
    assert base_url(host, 7) == url
