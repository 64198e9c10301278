"""What is asked of the proxies."""

from __future__ import annotations

from bench.scenarios import scenarios
from bench.world import World
from edge.core.head import RequestScanner


def test_requests_are_ones_the_edge_understands() -> None:
    """Every head is well-formed; the browser's has at least fifteen fields and the edge's cookie."""
    scanner = RequestScanner(max_fields=128, max_line=16384)
    for scenario in scenarios(World(1, 2)):
        job = scenario.job
        block, _, body = (job.opening or job.requests[0]).encode("latin-1").partition(b"\r\n\r\n")
        head = scanner.scan(block)
        assert len(body) == (head.section.length or 0)
        if job.opening:
            assert head.websocket
            assert head.edge_tokens
        else:
            assert block.count(b"\r\n") >= 15
            assert b"__Host-ns_preview=" in head.section.cookies[0][1]


def test_quick_runs_are_short() -> None:
    """At most three rounds of one second; an explicit length wins over both."""
    for scenario in scenarios(World(1, 2)):
        short = scenario.shorter()
        assert (short.rounds, short.job.seconds) == (3, 1.0)
        longer = short.with_length(4, None)
        assert (longer.rounds, longer.job.seconds) == (4, 1.0)
