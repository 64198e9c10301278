"""The comparison: peers are started, asked, and their outcomes told in the table's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.peers import envoy_binary
from bench.processes import BenchError
from tests.conformance import peers
from tests.conformance.cases import load
from tests.conformance.compare import column
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
