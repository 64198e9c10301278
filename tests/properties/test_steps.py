"""The real edge between generated clients and apps: request N is answered by answer N, or not at all."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.errors import PROBLEMS
from tests.core.wires import HOST, examples
from tests.properties.exchanges import (
    RECORDED_ANSWERS,
    RECORDED_REQUESTS,
    TOKEN_HERE,
    Answered,
    Asked,
    answered,
    conversations,
    mutated,
    places,
)
from tests.properties.live import (
    MARK_HERE,
    PATIENCE,
    Live,
    Plan,
    Seen,
    answers_in,
    mark_of,
    marks_in,
)
from tests.properties.readers import Got

pytestmark = [
    pytest.mark.may_block("Hypothesis makes its examples between two turns of the loop"),
    pytest.mark.timeout(900),
]

HONEST = b"GET /honest?edge_token=@T HTTP/1.1\r\nHost: " + HOST + b"\r\nConnection: close\r\n\r\n"
_PAGE_CODE = re.compile(rb"<dt>Code</dt><dd>([a-z_]+)</dd>")
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


def refusal(got: Got) -> str:
    """The code, if the edge itself answered; else nothing."""
    if got.values(b"x-content-type-options") != [b"nosniff"]:
        return ""
    page = _PAGE_CODE.search(got.payload)
    if page is not None:
        return page[1].decode()
    if got.payload:  # HEAD has none
        return str(json.loads(got.payload)["code"])
    return "?"


async def honest(live: Live) -> None:
    """A client that does nothing wrong gets its own answer, whatever others do."""
    (got,) = answers_in(await live.talk(live.spelled(HONEST)), [b"GET"])
    (seen,) = [seen for seen in live.seen if seen.target == b"/honest"]
    assert (got.status, got.payload, got.complete) == (200, seen.mark, True)
    live.seen.remove(seen)


def asked_by(live: Live, one: Asked) -> list[Seen]:
    """What the app saw of that request: once, or twice if the edge sent it again."""
    return [
        seen
        for seen in live.seen
        if seen.target.startswith(b"/n/") and seen.target.partition(b"?")[0] == one.path
    ]


@st.composite
def good_plans(draw: st.DrawFn, asked: list[Asked]) -> list[tuple[Plan, Answered]]:
    """For every request an answer by the book, in any spelling and any pieces."""
    plans = []
    for one in asked:
        answer = draw(answered(MARK_HERE, head=one.method == b"HEAD"))
        end = "keep" if answer.keeps else "close"
        plans.append((Plan(answer.wire, end=end, places=draw(places(3))), answer))
    return plans


def until_the_end(asked: list[Asked], got: list[Got]) -> list[Asked]:
    """The requests up to the one whose answer ends the connection: one without a length, to HTTP/1.0."""
    for index, (one, came) in enumerate(zip(asked, got, strict=False)):
        if one.minor == 0 and came.values(b"connection") == [b"close"]:
            return asked[: index + 1]
    return asked


@given(st.data(), conversations(), places())
@examples(100)
async def test_every_request_gets_its_own_answer(
    live: Live, data: st.DataObject, asked: list[Asked], where: list[int]
) -> None:
    """Good clients and good apps: bodies up, answers down, all of it exactly, in order."""
    plans = data.draw(good_plans(asked))
    live.begin({one.path: plan for one, (plan, _) in zip(asked, plans, strict=True)})
    wire = live.spelled(b"".join(one.wire for one in asked))
    received = await live.talk(wire, where)
    got = answers_in(received, [one.method for one in asked])
    asked = until_the_end(asked, got)
    assert len(got) == len(live.seen) == len(asked)
    for one, seen, (_, answer), came in zip(asked, live.seen, plans, got, strict=False):
        assert (seen.method, seen.payload, seen.complete) == (one.method, one.payload, True)
        assert asked_by(live, one) == [seen]
        assert came.complete and refusal(came) == ""
        assert (came.status, came.values(b"x-mark")) == (answer.status, [seen.mark])
        assert came.payload == answer.payload.replace(MARK_HERE, seen.mark)
        assert came.interims == (answer.interims if one.minor else ())
    await live.settle()


@st.composite
def bad_plan(draw: st.DrawFn, one: Asked) -> Plan:
    """An app that answers early, twice, by half, with rubbish, or not at all.

    What may be taken for a second answer goes out in one write: said later, on a connection that is
    in use again, it *is* the next answer, and no proxy can know better.
    """
    answer = draw(answered(MARK_HERE, head=one.method == b"HEAD"))
    end = draw(st.sampled_from(["close", "close", "reset"]))
    early = draw(st.booleans())
    match draw(
        st.sampled_from(["good", "good", "early", "half", "twice", "spoilt", "rubbish", "none"])
    ):
        case "good":
            return Plan(
                answer.wire, end="keep" if answer.keeps else "close", places=draw(places(2))
            )
        case "early":
            return Plan(answer.wire, early=True, end="keep" if answer.keeps else "close")
        case "half":
            at = draw(st.integers(0, len(answer.wire)))
            return Plan(answer.wire[:at], early=early, end=end, places=draw(places(2)))
        case "twice":
            return Plan(
                answer.wire + EVIL,
                early=early,
                end=draw(st.sampled_from(["keep", end])) if answer.keeps else end,
            )
        case "spoilt":
            return Plan(draw(mutated(answer.wire, RECORDED_ANSWERS)), early=early, end=end)
        case "rubbish":
            return Plan(draw(st.binary(max_size=100)), early=early, end=end)
    return Plan(b"", early=early, end=end)


@given(st.data(), conversations(), places())
@examples(200)
async def test_bad_apps_never_put_answers_out_of_step(
    live: Live, data: st.DataObject, asked: list[Asked], where: list[int]
) -> None:
    """Whatever an app sends, the client gets answers to what it asked, in order, and no surplus."""
    live.begin({one.path: data.draw(bad_plan(one)) for one in asked})
    wire = live.spelled(b"".join(one.wire for one in asked))
    got = answers_in(await live.talk(wire, where), [one.method for one in asked])
    for one, came in zip(asked, got, strict=False):
        own = {seen.mark for seen in asked_by(live, one)}
        # A spoilt answer may have a mark that is nobody's.
        marks = set(marks_in(repr(came).encode())) & {seen.mark for seen in live.seen}
        assert marks <= own, f"an answer to {one.path!r} with the mark of another"
        if refusal(came):
            assert came.complete and refusal(came) in {*PROBLEMS, "?"}
    for one, after in itertools.pairwise(got):
        assert one.complete, f"{after} came after an answer that has no end"
    for seen in live.seen:
        (one,) = [one for one in asked if seen in asked_by(live, one)]
        assert seen.method == one.method
        assert (
            seen.payload == one.payload if seen.complete else one.payload.startswith(seen.payload)
        )
    await honest(live)
    await live.settle()


@given(st.data(), conversations(3), places(), st.sampled_from(["fin", "fin", "reset"]))
@examples(200)
async def test_bad_clients_hurt_nobody_else(
    live: Live, data: st.DataObject, asked: list[Asked], where: list[int], end: str
) -> None:
    """Bytes flipped, lost, doubled: the app reads whole requests, answers stay in step, others go on."""
    recorded = data.draw(st.lists(st.sampled_from(RECORDED_REQUESTS), max_size=2))
    asked = [one for one in asked if one.method != b"HEAD"]  # whose answers only the edge can read
    good = b"".join([*recorded, *(one.wire for one in asked)])
    wire = data.draw(mutated(good, RECORDED_REQUESTS))
    live.begin({one.path: data.draw(bad_plan(one)) for one in asked if data.draw(st.booleans())})
    received = await live.talk(live.spelled(wire), where, end=end)
    got = answers_in(received, [b"GET"] * (len(wire) // 16 + 1))
    marks = [marks_in(repr(came).encode()) for came in got]
    assert all(len(own) <= 1 for own in marks), "one answer with two marks"
    known = [seen.mark for seen in live.seen]
    order = [known.index(mark) for own in marks for mark in own if mark in known]
    assert order == sorted(set(order)), "answers changed places"
    await honest(live)
    await live.settle()


@given(st.data(), conversations(3), places(), st.integers(0, 3000))
@examples(80)
async def test_clients_that_leave_leave_nothing_behind(
    live: Live, data: st.DataObject, asked: list[Asked], where: list[int], at: int
) -> None:
    """A reset after any byte, while any app answers: every place is given back, nobody notices."""
    live.begin({one.path: data.draw(bad_plan(one)) for one in asked})
    wire = live.spelled(b"".join(one.wire for one in asked))
    await live.talk(wire[: at % (len(wire) + 1)], where, end="reset")
    await honest(live)
    await live.settle()


def test_marks_are_unlike_each_other() -> None:
    """No bit that flips turns one mark into another."""
    marks = [int(mark_of(serial)[2:-1], 16) for serial in range(1, 2000)]
    assert len(set(marks)) == len(marks)
    assert not any(
        mark ^ (1 << bit) in set(marks[:200]) for mark in marks[:200] for bit in range(32)
    )
    assert PATIENCE > 1 and TOKEN_HERE in HONEST
