"""Apps' answers, good and spoilt: reads decide nothing, and a client never sees another end than the edge."""

from __future__ import annotations

from typing import NamedTuple

import h11
from hypothesis import given
from hypothesis import strategies as st

from edge.core.answer import Answer, AnswerScanner, InvalidAnswer
from edge.core.framing import FramingError
from edge.traffic.relay import AnswerRelay
from tests.core.wires import UPGRADE, cut, examples, request, scan
from tests.properties.exchanges import RECORDED_ANSWERS, Answered, answered, mutated, places
from tests.properties.readers import LIMIT, Got, Unjudged, answer_by_h11

LINES = (b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"HEAD / HTTP/1.1", b"POST / HTTP/1.1")
SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
COOKIE = b"Set-Cookie: ns_preview=x; HttpOnly"


class Outcome(NamedTuple):
    """What an answer came to, whatever the reads: what the client saw, and what the edge thinks."""

    got: Got | None
    done: bool
    close: bool
    surplus: bytes
    refused: bool


def relayed(
    line: bytes,
    parts: list[bytes],
    *,
    eof: bool,
    cookie: bytes | None = None,
    before: list[Answer] | None = None,
) -> Outcome:
    """An answer through the edge, read by h11 as its client. Raises for what h11 does not understand."""
    upgrade = UPGRADE if line.startswith(b"GET") and line.endswith(b"1.1") else ()
    relay = AnswerRelay(
        scan(request(*upgrade, line=line)),
        AnswerScanner(max_fields=128),
        own_cookie=b"ns_preview",
        max_head_bytes=LIMIT,
        closing=lambda: False,
        cookie=cookie,
        before=before[-1] if before else None,
    )
    out, refused = b"", False
    try:
        for part in parts:
            out += relay.feed(part)
        if eof and not relay.done:
            out += relay.finish() or b""
    except (InvalidAnswer, FramingError):
        refused = True
    if before is not None and relay.final is not None:
        before.append(relay.final)
    if relay.final is not None and relay.final.status == 101:
        return Outcome(None, relay.done, relay.close, relay.surplus, refused)
    # The edge ends the client's connection after an answer that says so, or that was cut short.
    closed = relay.close and relay.done
    got, after = answer_by_h11(out, line.split()[0], eof=closed)
    assert after == b"", "the client sees more than one answer"
    assert got is None or relay.final is not None
    if got is not None and relay.final is not None:
        assert got.status == relay.final.status
    if not refused:  # else what the last read gave is lost, perhaps the head as well
        assert (got is None) is (relay.final is None)
    if not refused and got is not None and relay.final is not None:
        assert got.complete is relay.done
        assert len(got.payload) == relay.payload
    return Outcome(got, relay.done, relay.close, relay.surplus, refused)


def same_however_it_comes(
    line: bytes, wire: bytes, where: list[int], *, eof: bool, cookie: bytes | None = None
) -> Outcome:
    """Whole, in pieces and byte by byte: the same for the client, but for how far a refused one got."""
    before: list[Answer] = []
    whole = relayed(line, [wire], eof=eof, cookie=cookie, before=before)
    # The same answer again on the same connection is known by its bytes, and means the same.
    assert relayed(line, [wire], eof=eof, cookie=cookie, before=before) == whole
    for parts in (cut(wire, where), [wire[i : i + 1] for i in range(len(wire))]):
        other = relayed(line, parts, eof=eof, cookie=cookie)
        assert (other.done, other.refused) == (whole.done, whole.refused)
        if not whole.refused:
            assert other == whole
        elif other.got is not None:
            assert not other.got.complete
    return whole


def judge(line: bytes, wire: bytes, outcome: Outcome, *, eof: bool) -> None:
    """h11 reads the same answer from the app's own bytes, with the same end."""
    got = outcome.got
    if not outcome.done or got is None:
        return
    try:
        direct, after = answer_by_h11(wire, line.split()[0], eof=eof)
    except Unjudged:
        return
    assert direct is not None
    assert (direct.status, direct.payload, direct.complete) == (got.status, got.payload, True)
    assert after == outcome.surplus


@given(st.sampled_from(LINES), st.data(), places(), st.sampled_from([None, COOKIE]))
@examples(120)
def test_good_answers_reach_the_client_as_they_were_meant(
    line: bytes, data: st.DataObject, where: list[int], cookie: bytes | None
) -> None:
    """Every spelling the RFC allows: status, payload, interim answers; the cookie where it belongs."""
    answer: Answered = data.draw(answered(b"<m>", head=line.startswith(b"HEAD")))
    outcome = same_however_it_comes(line, answer.wire, where, eof=not answer.keeps, cookie=cookie)
    got = outcome.got
    assert got is not None and outcome.done and outcome.surplus == b""
    assert (got.status, got.payload) == (answer.status, answer.payload)
    assert got.interims == (answer.interims if line.endswith(b"1.1") else ())
    assert got.values(b"x-mark") == [b"<m>"]
    cookies = [value for value in got.values(b"set-cookie") if value.startswith(b"ns_preview")]
    assert cookies == [cookie.partition(b": ")[2]] * (cookie is not None) if cookie else not cookies
    judge(line, answer.wire, outcome, eof=not answer.keeps)


@given(st.lists(st.sampled_from(LINES), min_size=2, max_size=4), st.data())
@examples(100)
def test_an_answer_means_the_same_after_others(lines: list[bytes], data: st.DataObject) -> None:
    """What is remembered of a connection's earlier answers changes nothing for the client of the next one."""
    kinds = data.draw(st.lists(answered(b"<m>"), min_size=1, max_size=2))
    before: list[Answer] = []
    for number, line in enumerate(lines):
        wire = data.draw(st.sampled_from(kinds)).wire.replace(b"<m>", b"<%d>" % number)
        alone = relayed(line, [wire], eof=True)
        assert relayed(line, [wire], eof=True, before=before) == alone


@given(st.sampled_from(LINES), st.data(), places())
@examples(150)
def test_what_follows_an_answer_stays_here(
    line: bytes, data: st.DataObject, where: list[int]
) -> None:
    """A second answer nobody asked for is surplus to the last byte, unless the first has no other end."""
    answer: Answered = data.draw(answered(b"<m>", head=line.startswith(b"HEAD")))
    alone = same_however_it_comes(line, answer.wire, where, eof=not answer.keeps)
    outcome = same_however_it_comes(line, answer.wire + SECOND, where, eof=True)
    assert outcome.got is not None and alone.got is not None and outcome.done
    if outcome.surplus:
        assert outcome.surplus == SECOND
        assert outcome.got == alone.got
    else:
        assert outcome.got.payload == alone.got.payload + SECOND


@given(st.sampled_from(LINES), st.data(), places(), st.booleans())
@examples(150)
def test_spoilt_answers_reach_the_client_as_they_were_understood(
    line: bytes, data: st.DataObject, where: list[int], eof: bool
) -> None:
    """Bytes flipped, lost, added, doubled: refused, or the client agrees with the edge about the end."""
    good: Answered = data.draw(answered(head=line.startswith(b"HEAD")))
    wire = data.draw(
        mutated(good.wire + data.draw(st.sampled_from([b"", SECOND])), RECORDED_ANSWERS)
    )
    judge(line, wire, same_however_it_comes(line, wire, where, eof=eof), eof=eof)


@given(st.sampled_from(LINES), st.data(), places(), st.booleans())
@examples(150)
def test_spoilt_recordings_reach_the_client_as_they_were_understood(
    line: bytes, data: st.DataObject, where: list[int], eof: bool
) -> None:
    """The same for what real apps send."""
    good = data.draw(st.sampled_from(RECORDED_ANSWERS))
    wire = data.draw(mutated(good, RECORDED_ANSWERS))
    judge(line, wire, same_however_it_comes(line, wire, where, eof=eof), eof=eof)


@given(st.sampled_from(LINES), st.data(), st.integers(0, 2000))
@examples(150)
def test_no_cut_makes_an_answer_look_complete(line: bytes, data: st.DataObject, at: int) -> None:
    """Whatever is missing at the end, the client can see that it is."""
    answer: Answered = data.draw(answered(b"<m>", head=line.startswith(b"HEAD")))
    if not answer.keeps or line.endswith(b"1.0"):
        return  # the end of the connection is its end, or the client's: nobody can tell
    outcome = relayed(line, [answer.wire[: at % len(answer.wire)]], eof=True)
    assert not outcome.done
    assert outcome.got is None or not outcome.got.complete


def test_h11_is_a_judge_that_can_say_no() -> None:
    """The oracle refuses, counts and notices cuts."""
    assert answer_by_h11(SECOND + SECOND, b"GET", eof=True)[1] == SECOND
    cut_short, _ = answer_by_h11(SECOND[:-1], b"GET", eof=True)
    assert cut_short is not None and not cut_short.complete
    try:
        answer_by_h11(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", b"GET", eof=True)
    except h11.RemoteProtocolError:
        return
    raise AssertionError("h11 accepts two lengths")
