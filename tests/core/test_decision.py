"""A passage holds for the requests that repeat it, and ends with whatever it rests on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge.core.credentials import Family
from edge.core.decision import Access, Forward, Passage
from edge.core.outbound import Outward
from edge.core.records import Missing, Transport
from tests.core.previews import CLAIMS, GRANT, NOW, SANDBOX, TARGET
from tests.core.test_decide import Sight
from tests.core.wires import request, scan

ACCESS = Access(TARGET, CLAIMS, Family.CONTINUATION, Transport.HTTP, continues=False)
WAY = Forward(ACCESS, SANDBOX, GRANT)


def holds(
    line: bytes = b"GET / HTTP/1.1", now: float = NOW, way: Forward = WAY, **sight: Any
) -> bool:
    """Whether a passage speaks for a request."""
    view = Sight(**sight)
    return Passage(view.tokens.era, way, Outward({}, b"")).holds(
        scan(request(line=line)), view, now
    )


def test_it_speaks_for_the_next_request() -> None:
    """While everything is as it was."""
    assert holds()
    assert holds(b"POST /other?x=1 HTTP/1.1")


@pytest.mark.parametrize(
    "change",
    [
        {"record": replace(SANDBOX)},
        {"record": Missing.UNKNOWN},
        {"its_grant": replace(GRANT)},
        {"its_grant": Missing.LOST},
        {"now": CLAIMS.exp},
        {"line": b"GET /?edge_token=x HTTP/1.1"},
        {"line": b"GET /?__ns_preview_transport=header HTTP/1.1"},
    ],
    # Named by hand: a set within a record prints in another order in each of several processes.
    ids=["record", "no record", "grant", "no grant", "expired", "token", "marker"],
)
def test_it_ends_with_what_it_rests_on(change: dict[str, Any]) -> None:
    """Another record, though equal; an expiry; a credential of the request's own."""
    assert not holds(**change)


def test_it_ends_with_its_grant() -> None:
    """Also before the token's own expiry."""
    grant = replace(GRANT, expires_at=NOW)
    assert not holds(way=Forward(ACCESS, SANDBOX, grant), its_grant=grant)


def test_it_ends_with_the_keys() -> None:
    """Tokens forgotten are tokens to be checked again."""
    view = Sight()
    passage = Passage(view.tokens.era, WAY, Outward({}, b""))
    view.tokens.forget()
    assert not passage.holds(scan(request()), view, NOW)
