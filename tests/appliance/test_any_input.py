"""Requests that Hypothesis makes of the description: bodies, queries and paths that nobody would think of.

What may come of them is what ``judge.py`` says. ``make fuzz`` tries new ones.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

import pytest
from good import GOOD, World
from hypothesis import given
from hypothesis import strategies as st
from judge import Judge
from service import Service
from test_bad_input import ENDS, JSON_CALLS, places, put, spoilable

from edge.appliance.description.calls import CALLS
from tests.core.wires import examples

KEPT = [call for call in GOOD if call not in ENDS]
BODIES = [call for call in JSON_CALLS if call not in ENDS and not call.endswith("/readiness")]
"""Not the call that may take as long as it is told to, or half a minute where it is told nothing."""

any_text = st.text(st.characters(categories=["L", "N", "P", "Cc", "Cs", "Zs", "So"]), max_size=30)
any_number = (
    st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
)
words = st.sampled_from(
    "http websocket tcp file utf8 base64 exec destroy hibernate pause prefer require 644 /workspace . .. old.txt /".split()
)
values = st.recursive(
    st.none() | st.booleans() | any_number | any_text | words,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(any_text | words, inner, max_size=5)
    ),
    max_leaves=12,
)


@pytest.fixture
async def judge(service: Service) -> Judge:
    """One world for all examples."""
    return Judge(await World(service).set_up())


@given(st.data())
@examples(300)
async def test_any_body(judge: Judge, data: st.DataObject) -> None:
    """Some keys of a good body with values of any kind, in a text that is perhaps damaged."""
    call = data.draw(st.sampled_from(BODIES))
    request = spoilable(judge.world.request(call))
    body: Any = request.body
    for place in data.draw(
        st.lists(st.sampled_from(places(judge.world.service, call)), max_size=3)
    ):
        body = put(body, place, data.draw(values))
    text = json.dumps(body).encode()
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text)))
        text = (
            text[:at] + data.draw(st.binary(max_size=4)) + text[at + data.draw(st.integers(0, 4)) :]
        )
    spoiled = request.but(body=text)
    await judge.asked(f"{text!r}", spoiled, spoiled.wire())
    judge.verdict()


@given(st.data())
@examples(200)
async def test_any_query(judge: Judge, data: st.DataObject) -> None:
    """Names that are known and names that are not, any number of times, with anything."""
    call = data.draw(st.sampled_from(KEPT))
    names = st.sampled_from([*CALLS[call].query, "x"]) | any_text
    given_value = any_text | words | st.integers().map(str) | st.datetimes().map(str)
    pairs = data.draw(st.lists(st.tuples(names, given_value), max_size=4))
    query = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs).encode()
    request = judge.world.request(call)
    await judge.asked(f"{query!r}", request, request.wire(query=query))
    judge.verdict()


@given(st.data())
@examples(200)
async def test_any_path(judge: Judge, data: st.DataObject) -> None:
    """Ids of any bytes, percent-encoded or not, and paths of any parts."""
    call = data.draw(st.sampled_from([call for call in GOOD if "{" in call]))
    request = judge.world.request(call)
    parts = request.path.encode().split(b"/")
    where = data.draw(
        st.sampled_from([at for at, part in enumerate(call.split("/")) if "{" in part])
    )
    spoiled = data.draw(
        st.binary(max_size=12).map(lambda raw: quote_from_bytes(raw, safe="").encode())
        | any_text.map(lambda text: _quoted(text).encode())
        | st.binary(min_size=1, max_size=8).filter(
            lambda raw: not set(raw) & set(b" \t\r\n\v\f?#/")
        )
    )
    parts[where - call.split(" ")[0].count("/")] = spoiled
    path = b"/".join(parts)
    # Any number may be a port, or a part of an upload.
    number = unquote_to_bytes(spoiled).isdigit() and call.split("/")[where] in ("{port}", "{part}")
    judged = judge.asked if number else judge.refused
    await judged(f"{path!r}", request, request.wire(path=path))
    judge.verdict()


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")
