"""Header sections: shared exactly as long as what means something to the edge repeats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.errors import EdgeError
from edge.core.head import Head, RequestScanner
from edge.core.outbound import Peer, outward, request_head
from edge.core.section import Section, SectionScanner, values
from tests.core.previews import way
from tests.core.wires import HOST, UPGRADE, blocks, calm, kept, request, scanner

COOKIE = b"Cookie: a=1; ns_preview=t; b=2"
PEER = Peer(b"203.0.113.9", False, b"https")


def test_repeated_bytes_are_the_same_section() -> None:
    """Whatever the request line says."""
    one = scanner()
    first = one.scan(request(COOKIE))
    second = one.scan(request(COOKIE, line=b"POST /other?x HTTP/1.1"), (first.section,))
    assert second.section is first.section and second.lines is first.lines
    assert (second.method, second.target) == (b"POST", b"/other?x")


@pytest.mark.parametrize(
    "changed",
    [
        (COOKIE, b"Accept: */*"),
        (b"Accept: */*", COOKIE),
        (b"If-None-Match: W/1", COOKIE, b"Referer: https://a/b"),
        (COOKIE, b"Referer: https://a/b?tab=1"),
        (COOKIE, b"X-Long: " + b"x" * 5000),
        (COOKIE, b"Authorization: Bearer secret"),
    ],
)
def test_lines_without_a_meaning_may_change(changed: tuple[bytes, ...]) -> None:
    """The section stays, the lines are the new ones, in their order; the old head keeps its own."""
    one = scanner()
    first = one.scan(request(COOKIE))
    second = one.scan(request(*changed), (first.section,))
    assert second.section is first.section
    assert kept(second) == [b"Host: " + HOST, *changed]
    assert kept(first) == [b"Host: " + HOST, COOKIE]


@pytest.mark.parametrize(
    "changed",
    [
        (b"Cookie: a=1; ns_preview=T; b=2",),
        (COOKIE, COOKIE),
        (),
        (COOKIE, b"Connection: close"),
        (COOKIE, b"Content-Length: 3"),
        (COOKIE, b"Via: 1.1 preview-edge"),
        (COOKIE, b"X-Forwarded-For: 10.0.0.1"),
        (COOKIE, b"X-Request-Id: 1"),
        (COOKIE, b"Referer: https://a/?edge_token=t"),
        (COOKIE, b"x-nullspace-traffic-access-token: t"),
        (COOKIE, b"Expect: 100-continue"),
        (COOKIE, b"Connection: cookie"),
        (COOKIE, *UPGRADE),
    ],
)
def test_lines_with_a_meaning_may_not(changed: tuple[bytes, ...]) -> None:
    """A section that means something else is another one."""
    one = scanner()
    first = one.scan(request(COOKIE))
    second = one.scan(request(*changed), (first.section,))
    assert second.section is not first.section
    assert second.section.passage is None


def test_the_version_is_part_of_the_meaning() -> None:
    """HTTP/1.0 does not keep connections alive by itself."""
    one = scanner()
    first = one.scan(request(COOKIE))
    second = one.scan(request(COOKIE, line=b"GET / HTTP/1.0"), (first.section,))
    assert (first.section.keep_alive, second.section.keep_alive) == (True, False)


@pytest.mark.parametrize("special", [(b"Connection: x-hop", b"X-Hop: 1"), UPGRADE])
def test_what_also_judges_plain_lines_is_never_shared(special: tuple[bytes, ...]) -> None:
    """A field that Connection names, or a handshake, may hide in a line that means nothing alone."""
    one = scanner()
    first = one.scan(request(*special))
    second = one.scan(request(*special, b"Accept: 1"), (first.section,))
    assert second.section is not first.section


def test_a_known_section_hides_no_malformed_line() -> None:
    """Every new line is read, whatever it stands beside."""
    one = scanner()
    first = one.scan(request(COOKIE))
    for bad in (b"X : 1", b" X: 1", b"X\x00: 1", b"X: \x00", b"", b"Content_Length: 1"):
        with pytest.raises(EdgeError):
            one.scan(request(COOKIE, bad), (first.section,))
    with pytest.raises(EdgeError):
        one.scan(request(COOKIE, line=b"GET / HTTP/1.1", host=None), (first.section,))


def test_too_many_lines_are_refused_among_known_ones() -> None:
    """The limit holds for every request."""
    one = scanner(max_fields=3)
    first = one.scan(request(COOKIE))
    with pytest.raises(EdgeError):
        one.scan(request(COOKIE, b"A: 1", b"B: 2"), (first.section,))


def _outcome(block: bytes, one: RequestScanner, recent: tuple[Section, ...]) -> Head | EdgeError:
    try:
        return one.scan(block, recent)
    except EdgeError as error:
        return error


@calm
@given(st.lists(blocks(), min_size=2, max_size=6))
def test_what_is_remembered_changes_nothing(heads: list[bytes]) -> None:
    """A scanner with memory says of every head what a fresh one says, and so does what goes upstream."""
    remembering = scanner()
    recent: tuple[Section, ...] = ()
    for block in [*heads, *heads]:
        tries = ((scanner(), ()), (remembering, recent))
        expected, head = (_outcome(block, one, before) for one, before in tries)
        if isinstance(expected, EdgeError) or isinstance(head, EdgeError):
            assert str(expected) == str(head)
            continue
        recent = (head.section, *recent[:2])
        assert kept(head) == kept(expected)
        sent = [_sent(one) for one in (head, expected)]
        assert sent[0] == sent[1]


def test_values_are_found_in_any_spelling() -> None:
    """All of them, in order, trimmed."""
    assert values([b"A: 1", b"b:2", b"a:\t 3 "], b"a") == [b"1", b"3"]


def test_an_empty_section_is_refused_for_its_missing_host() -> None:
    """A request of HTTP/1.1 without a Host is refused (RFC 9112 section 3.2), also without any line at all."""
    with pytest.raises(EdgeError):
        SectionScanner(max_fields=8).scan(b"", 1)


def _sent(head: Head) -> bytes:
    """What goes upstream for it."""
    return request_head(head, outward(head.section, way(), PEER, b"ns_preview"), b"i")
