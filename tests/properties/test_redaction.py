"""No credential in any line, answer of the edge's own, or exception text, wherever a client puts it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.answer import InvalidAnswer
from edge.core.credentials import Family
from edge.core.errors import EdgeError
from edge.core.fields import FieldReader
from edge.core.framing import FramingError
from edge.core.records import State
from edge.traffic.pages import render
from edge.traffic.relay import RequestRelay
from tests.core.previews import token as signed
from tests.core.wires import HOST, examples, request, scan, scanner
from tests.flows.rawclient import RawClient
from tests.flows.scriptedapp import echo
from tests.flows.stage import Preview, Stage, until
from tests.properties.readers import LIMIT, answer_by_h11
from tests.traffic.test_relay import relay

pytestmark = [
    pytest.mark.may_block("Hypothesis makes its examples between two turns of the loop"),
    pytest.mark.timeout(900),
]

TRAFFIC = "nst_Qm9-0f1e2d3cKb5a6978_796a5b4c3d2e1f0Zz7_x-8"


def percent(text: str) -> str:
    """Every byte escaped."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


def dots(text: str) -> str:
    """Only what keeps a JWT from being found by its dots."""
    return text.replace(".", "%2e")


def in_base64(text: str) -> str:
    """As somebody writes it who puts an address, or a part of one, into a path."""
    return base64.b64encode(text.encode()).decode()


SPELLINGS = (
    str,
    percent,
    dots,
    quote,
    lambda text: percent(percent(text)),
    lambda text: quote(dots(text)),
    in_base64,
    lambda text: in_base64(text).translate(str.maketrans("+/", "-_")).rstrip("="),
    lambda text: quote(in_base64(f"https://{HOST.decode()}/?edge_token={text}")),
)
"""A credential as it is, or as a client may have written it: escaped, once or twice, or in base64."""
PATHS = (
    "/{}",
    "/a/{}/b.js",
    "/edge_token={}",
    "/p;edge_token={}&x",
    "/p%3Fedge_token%3D{}",
    "/x{}",
    "/.{}.",
)
QUERIES = (
    "?edge_token={}", "?edge_token={}&edge_token={}", "?a=1&&edge_token={}#", "?&edge_token=%20{}",
    "?Edge_Token={}", "?edge_token%3D{}", "?next=%2F%3Fedge_token%3D{}", "?x={}", "?edge_token=x{}",
    "?__ns_preview_transport=header&edge_token={}", "??edge_token={}", "?edge_token=={}",
)  # fmt: skip
FIELDS = (
    "Cookie: __Host-ns_preview={}", "Cookie: a={}; ns_preview={}", "Referer: https://a.example/?edge_token={}",
    "Referer: {}", "X-Nullspace-Preview-Proxy-Token: {}", "X-Nullspace-Preview-Proxy-Token: Bearer {}",
    "X-Nullspace-Traffic-Access-Token: " + TRAFFIC, "Authorization: Bearer {}", "X-Request-Id: {}x!",
    "X_Nullspace_Preview_Proxy_Token: {}", "Connection: {}", "Content-Length: {}", "Transfer-Encoding: {}",
    "Content_Length: {}", "{}: x", "Host: {}", "Upgrade: {}", "bad {}", "Expect: {}", "Via: {}",
    "X-Forwarded-Proto: {}", "Sec-WebSocket-Key: {}",
)  # fmt: skip
Door = tuple[str, tuple[str, ...]]
"""A pair of the query (or none) and lines that let a request in."""
ACCEPTS = ("Accept: text/html", "Sec-Fetch-Mode: navigate", "Accept: */*")


def pieces_of(secret: str) -> set[str]:
    """What must not be found: each part of it that says something, plain, escaped, and in base64."""
    found = set()
    for part in secret.split("."):
        # The first bytes of a header or of claims are the same in every token, and no secret.
        core = part[-24:]
        found.add(core)
        for shift, encode in itertools.product(
            range(3), (base64.b64encode, base64.urlsafe_b64encode)
        ):
            found.add(encode(b"\0" * shift + core.encode())[4:-4].decode())
    return found


def assert_clean(text: str, secrets: list[str]) -> None:
    """None of the secrets is in the text, in no encoding."""
    readings = [text]
    for _ in range(3):
        readings.append(unquote(readings[-1]))
    for secret in secrets:
        for piece in pieces_of(secret):
            for reading in readings:
                assert piece not in reading, f"{piece} in {text[:3000]}"


@st.composite
def tellers(draw: st.DrawFn, token: str, host: str = HOST.decode(), door: Door = ("", ())) -> bytes:
    """A request (or nearly one) to that host that carries this token in two or three wrong or right places.

    ``door`` is what lets it in all the same: a pair of the query, and lines.
    """

    def spelled(template: str) -> str:
        return template.replace("{}", draw(st.sampled_from(SPELLINGS))(token))

    method = draw(st.sampled_from(["GET", "GET", "POST", "HEAD", "TRACE", spelled("{}")[:30]]))
    path = spelled(draw(st.sampled_from(["/", *PATHS])))
    query = spelled(draw(st.sampled_from(["", "", *QUERIES])))
    query = f"{query or '?'}&{door[0]}" if door[0] else query
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=2))
    # As it is in fields: there nobody takes escapes back.
    lines = [field.replace("{}", token) for field in fields] + [draw(st.sampled_from(ACCEPTS))]
    lines += door[1]
    if draw(st.integers(0, 9)):
        lines.append(f"Host: {host}")
    lines.append("Connection: close")
    return "\r\n".join([f"{method} {path}{query} HTTP/1.1", *lines, "", ""]).encode()


TOKENS = [signed(family).decode() for family in Family]


@given(
    st.sampled_from([*TOKENS, TRAFFIC]).flatmap(
        lambda token: st.tuples(st.just(token), tellers(token))
    )
)
@examples(300)
def test_no_refusal_says_what_it_refuses(drawn: tuple[str, bytes]) -> None:
    """Texts and details of every error a head can cause, and the page and the document made of it."""
    token, wire = drawn
    try:
        head = scanner().scan(wire[:-4])
    except EdgeError as error:
        said = [str(error), repr(error), render(error, None, "r-1", close=True).decode()]
        assert_clean("\n".join(said), [token, TRAFFIC])
        return
    assert head.request_id is None or head.request_id.decode() not in token


@given(
    st.sampled_from(TOKENS),
    st.sampled_from(["{}\r\n", "1;{}\r\nx{}", "0\r\n{}: x\r\n\r\n", "0\r\nbad {}\r\n\r\n"]),
)
@examples(40)
def test_no_broken_body_is_quoted(token: str, template: str) -> None:
    """Chunk sizes, extensions and trailers, of a request and of an answer."""
    wire = template.replace("{}", token).encode()
    head = scan(request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1"))
    for feed in (
        RequestRelay(head, FieldReader.for_requests(), max_trailer_bytes=LIMIT).feed,
        lambda data: relay().feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data),
        lambda data: relay().feed(b"HTTP/1.1 200 OK\r\nContent-Length: " + data + b"\r\n\r\n"),
        lambda data: relay().feed(data + b"\r\n\r\n"),
    ):
        try:
            feed(wire)
        except (FramingError, InvalidAnswer) as error:
            assert_clean(f"{error} {error!r} {error.__context__!r}", [token])


@examples(160)
@given(st.data())
async def test_no_line_and_no_answer_of_the_edge_has_a_credential(
    told: Told, data: st.DataObject
) -> None:
    """A real edge, its logs and metrics: good tokens and bad ones, in all places a client can think of."""
    box = data.draw(st.sampled_from(told.boxes))
    await told.lie_down()
    token = data.draw(st.sampled_from([*told.tokens, TRAFFIC, TRAFFIC]))
    door = data.draw(st.sampled_from([("", ()), *told.doors[box.id]]))
    wire = data.draw(tellers(token, box.host, door))
    async with await told.stage.client() as client:
        await client.send(wire)
        answer = await client.rest()
    got, _ = answer_by_h11(answer, wire.split(b" ", 1)[0], eof=True)
    assert got is not None
    told.count += 1
    if got.status == 200:  # the app's echo is the app's, but for the cookie
        told.minted |= set(re.findall(r"__Host-ns_preview=([^;]+);", answer.decode("latin-1")))
    else:
        assert_clean(answer.decode("latin-1"), [*told.tokens, TRAFFIC])


class Told:
    """A stage whose edge writes its logs where they can be read; what opens something there, and what does not.

    Of ``boxes`` one runs, one sleeps, and one sleeps and is private.
    """

    def __init__(self, stage: Stage, boxes: list[Preview]) -> None:
        self.stage = stage
        self.boxes = boxes
        self.tokens = list(TOKENS)
        self.doors = {box.id: self._doors(box) for box in boxes}
        self.minted: set[str] = set()
        self.count = 0

    def _doors(self, box: Preview) -> list[Door]:
        """One by each family of credentials; the traffic token is needless where traffic is public."""
        edge, proxy, cookie = tokens = [box.token(family) for family in Family]
        self.tokens += tokens
        traffic = f"X-Nullspace-Traffic-Access-Token: {TRAFFIC}"
        return [
            (f"edge_token={edge}", (traffic,)),
            ("", (traffic, f"X-Nullspace-Preview-Proxy-Token: {proxy}")),
            ("", (traffic, f"Cookie: __Host-ns_preview={cookie}")),
        ]

    async def lie_down(self) -> None:
        """What was woken sleeps again."""
        plane = self.stage.plane
        for box in self.boxes[1:]:
            if plane.sandboxes[box.id].state is State.RUNNING:
                await self.stage.heard(plane.pause(box.id))

    async def metrics(self) -> str:
        """What a scrape gets."""
        async with await RawClient.open(self.stage.edge.admin_port) as client:
            page = await client.ask(
                b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
            )
        return page.body.decode()


@pytest.fixture
async def told(tmp_path: Path, capfd: pytest.CaptureFixture[str], _watched_loop: None):
    """The stage; what was logged is judged when the examples are over."""
    log = tmp_path / "access.log"
    settings: dict[str, Any] = {"log": {"access": str(log), "level": "debug"}}
    settings |= {"tokens": {"failures_per_minute": 0}, "wake": {"budget_per_hour": 0}}
    private = {"traffic_token_sha256": hashlib.sha256(TRAFFIC.encode()).hexdigest()}
    async with Stage(tmp_path, **settings) as stage:
        app = await stage.app(echo)
        boxes = [stage.sandbox(app), stage.sandbox(app, State.PAUSED)]
        told = Told(stage, [*boxes, stage.sandbox(app, State.PAUSED, **private)])
        yield told
        await until(lambda: not any(stage.edge.admission.counts().values()))
        counted, calls = await told.metrics(), [call.body for call in stage.plane.calls]
    # Everything was tried that could have been told of: cookies, wakes, both of the sleepers.
    assert told.minted and all(stage.plane.incarnations[box.id] for box in told.boxes[1:])
    lines, events = log.read_text(), capfd.readouterr().err
    assert lines.count("\n") >= told.count > 0 and '"event":"wake"' in events
    assert "preview_edge_wakes_total" in counted and any(calls)
    for text in (lines, events, counted, repr(calls)):
        assert_clean(text, [*told.tokens, *told.minted, TRAFFIC])


def test_the_search_finds_what_there_is() -> None:
    """The judge sees a token as it is, escaped, in base64, and a part of one."""
    token = TOKENS[0]
    for text in (
        token,
        percent(token),
        percent(percent(token)),
        base64.b64encode(b"x" + token.encode()).decode(),
        f"x{token[60:]}",
    ):
        with pytest.raises(AssertionError):
            assert_clean(f"GET /{text}/", [token])
    assert_clean("GET /eyJhbGciOiJIUzI1NiIs/", [token])
