"""Heads: cut off at their ends however the bytes come, refused as early as can be, each byte looked at once."""

from __future__ import annotations

import pytest

from edge.core.errors import EdgeError
from edge.core.settings import LimitSettings
from edge.traffic.heads import HeadBuffer
from tests.core.wires import HOST, pieces, scanner

HEAD = b"GET /a HTTP/1.1\r\nHost: " + HOST + b"\r\nAccept: */*\r\n\r\n"
LIMITS = LimitSettings(header_bytes=2048)


def buffer() -> HeadBuffer:
    """An empty one with small limits."""
    return HeadBuffer(scanner(), LIMITS)


def feed(parts: list[bytes]) -> tuple[list[bytes], HeadBuffer]:
    """The targets of all heads that come out, and the buffer with what is left."""
    one, targets = buffer(), []
    for part in parts:
        one.add(part)
        while one.data and (head := one.head()) is not None:
            targets.append(head.target)
    return targets, one


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n\r\n"])
def test_heads_end_where_they_end(before: bytes) -> None:
    """Two in a row with empty lines before them, in any pieces; the rest stays."""
    for parts in pieces(before + HEAD + HEAD.replace(b"/a", b"/b") + b"GET /c"):
        targets, one = feed(parts)
        assert targets == [b"/a", b"/b"]
        assert one.take() == b"GET /c" and not one


@pytest.mark.parametrize(
    "bad",
    [
        b"GET / HTTP/1.1\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n",
        b"GET / HTTP/1.1\r\nA: b\rc",
        b"GET / HTTP/1.1\r\n\n",
        b"\n",
    ],
)
def test_a_line_end_cut_in_half_is_refused_at_once(bad: bytes) -> None:
    """However it comes, and without waiting for an end that may never come."""
    for parts in pieces(bad):
        with pytest.raises(EdgeError):
            feed(parts)


def test_a_cr_at_the_end_of_a_read_is_no_lone_one() -> None:
    """Its LF may come with the next."""
    one = buffer()
    for at in range(1, len(HEAD)):
        one.add(HEAD[:at])
        assert one.head() is None
        one.add(HEAD[at:])
        assert one.head() is not None


@pytest.mark.parametrize("ended", [b"", b"\r\n\r\n"])
def test_a_head_beyond_the_limit_is_refused(ended: bytes) -> None:
    """As soon as it is, with the setting's name; exactly at the limit it passes."""
    start = b"GET / HTTP/1.1\r\nHost: " + HOST + b"\r\nX: "
    fits = start + b"x" * (2048 - len(start))
    assert feed([fits + b"\r\n\r\n"])[0] == [b"/"]
    with pytest.raises(EdgeError) as refused:
        feed([fits + b"x" + ended])
    assert refused.value.details == {"limit": "limits.header_bytes"}


@pytest.mark.parametrize(
    "bad",
    [
        HEAD.replace(b"Accept", b"Bad name"),
        HEAD.replace(b"\r\nAccept", b"\nAccept"),
        HEAD.replace(b"*/*", b"x" * 4096),
        HEAD.removesuffix(b"\r\n"),
    ],
    ids=["malformed", "a bare LF", "too large", "not complete"],
)
def test_what_can_be_told_of_a_head_that_is_none(bad: bytes) -> None:
    """Also of one that has been cut off its buffer already, and of none but the latest."""
    for parts in pieces(bad):
        one = buffer()
        one.add(HEAD.replace(b"GET", b"PUT"))
        assert one.head() is not None and one.glimpse() is None
        try:
            for part in parts:
                one.add(part)
                one.head()
        except EdgeError:
            pass
        seen = one.glimpse()
        assert seen is not None and seen.method == b"GET"


def test_bytes_taken_and_given_back_are_looked_at_again() -> None:
    """What followed a body begins the next head."""
    one = buffer()
    one.add(HEAD[:30])
    assert one.head() is None
    one.give_back(one.take())
    one.add(HEAD[30:])
    head = one.head()
    assert head is not None and head.target == b"/a"


def test_a_drip_costs_what_it_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 kB, byte by byte: none is looked at more than twice, and what is there is not copied for one more."""
    looked = copied = 0

    def counted(data: bytes, searched: int) -> bool:
        nonlocal looked
        looked += len(data) - searched
        return False

    monkeypatch.setattr("edge.traffic.heads.has_half_end", counted)
    one = HeadBuffer(scanner(), LimitSettings())
    drip = b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000
    for at in range(len(drip)):
        before = one.data
        one.add(drip[at : at + 1])
        assert one.head() is None
        copied += 1 if one.data is before else len(one.data)
    assert one.take() == drip
    assert looked < 2 * len(drip) and copied < 2 * len(drip)


def test_many_heads_in_one_read_cost_what_they_bring() -> None:
    """A thousand: what lies behind a head is not copied for each that is cut off before it."""
    one, copied = buffer(), 0
    one.add(HEAD * 1000)
    for _ in range(1000):
        before = one.data
        head = one.head()
        assert head is not None and head.target == b"/a"
        copied += 0 if one.data is before else len(one.data)
    assert not one and copied < 2 * len(HEAD * 1000)


def test_sections_are_remembered_until_they_are_forgotten() -> None:
    """The same fields are the same section; afterwards they are scanned anew."""
    one = buffer()
    sections = []
    for _ in range(2):
        one.add(HEAD)
        head = one.head()
        assert head is not None
        sections.append(head.section)
    assert sections[0] is sections[1]
    one.forget_sections()
    one.add(HEAD)
    head = one.head()
    assert head is not None and head.section is not sections[0]
