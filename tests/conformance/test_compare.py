"""The comparison: peers are started, asked, and their outcomes told in the table's words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.peers import envoy_binary
from bench.processes import BenchError
from tests.conformance import peers
from tests.conformance.answered import words
from tests.conformance.cases import load
from tests.conformance.compare import column
from tests.conformance.observed import next_request
from tests.conformance.observed import words as requests_in_words
from tests.conformance.table import kind

ASKED = {
    ("requests_lengths", "a body of known length"): "→ 5 by length",
    ("requests_lengths", "a negative length"): "400",
    ("requests_lengths", "two lengths that differ"): "400",
    ("answers_bodiless", "204"): "passes",
    ("answers_heads", "a blank before the colon"): "502",
}
"""Cases on which every proxy worth the name agrees."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nginx", marks=pytest.mark.needs_tool("nginx")),
        pytest.param("haproxy", marks=pytest.mark.needs_tool("haproxy")),
        "envoy",
    ],
)
async def test_peer_is_asked(name: str, tmp_path: Path) -> None:
    """A peer starts with its configuration, and what it does with a few plain cases is seen as it is."""
    if name == "envoy":
        try:
            envoy_binary()
        except BenchError as e:
            if os.environ.get("CI_REQUIRE_ALL") == "1":
                pytest.fail(f"{e}, and CI_REQUIRE_ALL=1 forbids to skip", pytrace=False)
            pytest.skip(str(e))
    (peer,) = (one for one in peers.PEERS if one.name == name)
    cases = [case for case in load() if (case.theme, case.name) in ASKED]
    assert len(cases) == len(ASKED)
    found = await column(peer, tmp_path, cases)
    assert not found.missing
    for key, outcome in ASKED.items():
        assert kind(outcome, found.outcomes[key]) == "same", (key, found.outcomes[key])


async def test_missing_peer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is not installed is a column with the reason, not a failure."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = await column(peers.PEERS[1], tmp_path, [])
    assert "haproxy is not installed" in found.missing


@pytest.mark.parametrize(
    ("edge", "peer", "how"),
    [
        ("400", "505", "same"),
        ("→ 5 chunked", "→ 5 by length", "same"),
        ("→ 5 chunked", "→ 6 chunked", "differently"),
        ("→ no body", "400", "stricter"),
        ("400", "→ no body", "laxer"),
        ("→ no body 400", "→ no body → no body", "laxer"),
        ("502", "passes, next answer wrong", "laxer"),
        ("502 or cut", "cut", "same"),
        ("502", "waits", "other"),
    ],
)
def test_kinds_of_difference(edge: str, peer: str, how: str) -> None:
    """The table's counts follow from its cells."""
    assert kind(edge, peer) == how


@pytest.mark.parametrize(
    ("received", "answer", "ended", "told"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 OK\r\n\r\nok", False, "passes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", b"HTTP/1.1 200 OK\r\n\r\nok", True, "cut"),
        (b"HTTP/1.1 200 OK\r\n\r\no", b"HTTP/1.1 200 OK\r\n\r\nok", False, "waits"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n", b"\x15\x03\x03", False, "502"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n", b"HTTP/2 200 OK\r\n\r\n", False, "502"),
        (b"HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 099 OK\r\n\r\n", False, "passes as 99"),
        (b"HTTP/1.1 103 A\r\n\r\nHTTP/1.1 204 B\r\n\r\n", b"HTTP/1.1 204 B\r\n\r\n", False, "passes"),
        (b"", b"HTTP/1.1 204 B\r\n\r\n", True, "closed"),
    ],
)  # fmt: skip
def test_words_for_answers(received: bytes, answer: bytes, ended: bool, told: str) -> None:
    """What a client got is told as it is: a proxy's own error never passes for the app's answer."""
    assert words(received, answer, ended=ended, to_head=False) == told


def test_words_for_requests() -> None:
    """Requests at the app are told with what differs from what the edge would have passed."""
    chunked = b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    model = next_request(b"POST /a HTTP/1.1\r\nX-A: b\r\nContent-Length: 1\r\n\r\nx")
    other = next_request(b"POST /b HTTP/1.1\r\nX-B: b\r\n" + chunked)
    assert model is not None and other is not None
    asked = b"POST /a HTTP/1.1\r\nX-A: b\r\nX-B: b\r\n\r\n"
    assert requests_in_words([model[0]], [], [model[0]], asked) == "→ 1 by length"
    assert (
        requests_in_words([other[0]], [400], [model[0]], asked)
        == "→ 1 chunked, target /b, keeps x-b, drops x-a 400"
    )
