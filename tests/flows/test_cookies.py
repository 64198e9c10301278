"""The continuation cookie: given with the first answer, good for what the token was good for, gone with it."""

from __future__ import annotations

import pytest

from edge.core.credentials import Family
from edge.core.records import GrantStatus, State, Transport
from tests.flows.rawclient import Answer
from tests.flows.scriptedapp import AppConnection, fields_of
from tests.flows.stage import MakeStage, Stage
from tests.flows.test_websocket_wakes import shout

NAMES = {"https": "__Host-ns_preview", "http": "ns_preview"}


def given(answer: Answer, scheme: str) -> str:
    """The cookie pair an answer gives, every attribute checked (contract: credentials)."""
    (line,) = answer.values("set-cookie")
    pair, *attributes = line.split("; ")
    name, _, value = pair.partition("=")
    assert name == NAMES[scheme] and value.count(".") == 2
    age = attributes.pop(attributes.index("Path=/") + 1)
    assert age.startswith("Max-Age=") and 0 < int(age.removeprefix("Max-Age=")) <= 900
    secure = ["Secure"] if scheme == "https" else []
    assert sorted(attributes) == sorted(["Path=/", "HttpOnly", "SameSite=Lax", *secure])
    assert answer.value("cache-control") == "private"
    return pair


def line(pair: str, *others: str) -> bytes:
    """A Cookie field."""
    return f"Cookie: {'; '.join([*others, pair])}\r\n".encode()


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_visit_goes_on_without_the_token(make_stage: MakeStage, scheme: str) -> None:
    """The app answers the signed link at once; from then on the cookie does, on every path and method."""
    stage = await make_stage(public_scheme=scheme)
    app = await stage.app()
    box = stage.sandbox(app)
    first = await stage.ask(box.get("/start?a=1"))
    assert (first.status, first.body) == (200, b"GET /start?a=1 HTTP/1.1\n")
    pair = given(first, scheme)
    async with await stage.client() as client:
        cookie = line(pair, "theme=dark")
        for method, path in (("GET", "/"), ("GET", "/deep/er?x=%20"), ("POST", "/form")):
            body = b"a=b" if method == "POST" else None
            answer = await client.ask(box.request(method, path, cookie, body, token=""))
            assert (answer.status, answer.values("set-cookie")) == (200, [])
            assert answer.value("cache-control") is None
    for head in app.requests[1:]:
        assert fields_of(head)[b"cookie"] == b"theme=dark"
        assert NAMES[scheme].encode() not in head


async def test_the_other_schemes_cookie_is_a_cookie_of_the_apps(stage: Stage) -> None:
    """Under https the plain name authorises nothing; beside the right one it is passed on untouched."""
    app = await stage.app()
    box = stage.sandbox(app)
    pair = given(await stage.ask(box.get()), "https")
    plain = pair.replace("__Host-", "", 1)
    answer = await stage.ask(box.get("/", line(plain), token=""))
    assert (answer.status, answer.code) == (401, "edge_token_missing")
    assert (await stage.ask(box.get("/", line(pair, "ns_preview=1"), token=""))).status == 200
    assert fields_of(app.requests[-1])[b"cookie"] == b"ns_preview=1"


@pytest.mark.parametrize("public", ["https", "http"])
@pytest.mark.parametrize("said", ["https", "http", "gopher", "https, http"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_who_says_what_the_scheme_is(
    make_stage: MakeStage, public: str, said: str, trusted: bool
) -> None:
    """A trusted proxy's X-Forwarded-Proto names the scheme, exactly; a stranger's is not even passed on."""
    proxies = ["127.0.0.0/8"] if trusted else ["10.0.0.0/8"]
    stage = await make_stage(public_scheme=public, trusted_proxies=proxies)
    app = await stage.app()
    box = stage.sandbox(app)
    scheme = said if trusted and said in NAMES else public
    fields = f"X-Forwarded-Proto: {said}\r\n".encode()
    pair = given(await stage.ask(box.get("/", fields)), scheme)
    assert fields_of(app.requests[0])[b"x-forwarded-proto"] == scheme.encode()
    assert (await stage.ask(box.get("/", fields + line(pair), token=""))).status == 200


async def test_a_client_that_shows_the_cookie_gets_no_other(stage: Stage) -> None:
    """The same link again, cookie in hand: nothing is set, nothing is made private."""
    box = stage.sandbox(await stage.app())
    token = box.token()
    pair = given(await stage.ask(box.get(token=token)), "https")
    answer = await stage.ask(box.get("/", line(pair), token=token))
    assert (answer.status, answer.values("set-cookie")) == (200, [])
    assert answer.value("cache-control") is None


async def test_the_app_cannot_set_the_edges_cookie(stage: Stage) -> None:
    """Its Set-Cookie of that name is dropped, its others stay as they are, and so does what it says of caching."""

    async def handler(connection: AppConnection) -> None:
        while await connection.read_head():
            await connection.answer(
                b"",
                fields=b"Set-Cookie: a=1\r\nset-cookie: __Host-ns_preview=mine; Path=/\r\n"
                b"Set-Cookie: b=2; Secure\r\nCache-Control: max-age=60\r\n",
            )

    box = stage.sandbox(await stage.app(handler))
    answer = await stage.ask(box.get())
    first, second, own = answer.values("set-cookie")
    assert (first, second) == ("a=1", "b=2; Secure")
    assert answer.values("cache-control") == ["max-age=60", "private"]
    pair = own.split(";")[0]
    answer = await stage.ask(box.get("/", line(pair), token=""))
    assert answer.values("set-cookie") == ["a=1", "b=2; Secure"]
    assert answer.values("cache-control") == ["max-age=60"]


async def test_the_cookie_is_for_one_preview_and_for_http(stage: Stage) -> None:
    """Another sandbox, another port, a WebSocket: refused, before anything is asked or woken."""
    app = await stage.app(shout)
    box, asleep = stage.sandbox(await stage.app()), stage.sandbox(app, State.PAUSED)
    pair = given(await stage.ask(box.get()), "https")
    asked = dict(stage.plane.asked)
    for request, status, code in (
        (asleep.get("/", line(pair), token=""), 403, "edge_token_scope_mismatch"),
        (
            stage.preview(box.id, 3001).get("/", line(pair), token=""),
            403,
            "edge_token_scope_mismatch",
        ),
        (box.upgrade("/", line(pair), token=""), 401, "edge_token_missing"),
        (
            box.upgrade("/", line(pair) + f"Origin: https://{box.host}\r\n".encode(), token=""),
            401,
            "edge_token_missing",
        ),
    ):
        answer = await stage.ask(request)
        assert (answer.status, answer.code) == (status, code)
    assert stage.plane.asked == asked


@pytest.mark.parametrize(
    ("origin", "kinds", "status"),
    [
        ("https://{host}", frozenset(Transport), 101),
        ("http://{host}", frozenset(Transport), 401),
        ("https://other.example", frozenset(Transport), 401),
        ("null", frozenset(Transport), 401),
        ("", frozenset(Transport), 401),
        ("https://{host}", frozenset({Transport.HTTP}), 403),
    ],
)
async def test_same_origin_sockets_when_the_operator_allows_them(
    make_stage: MakeStage, origin: str, kinds: frozenset[Transport], status: int
) -> None:
    """``websocket_continuation = same_origin``: exactly the preview's own origin, within its grant."""
    stage = await make_stage(websocket_continuation="same_origin")
    box = stage.sandbox(await stage.app(shout), State.PAUSED)
    stage.plane.change_grant(box.grant, kinds=kinds)
    fields = f"Origin: {origin.format(host=box.host)}\r\n".encode() if origin else b""
    answer = await stage.ask(box.upgrade("/", box.cookie() + fields, token=""))
    assert answer.status == status
    assert stage.plane.counts["resume"] == (status == 101)


async def test_proxy_mode_sets_no_cookie_and_reads_none(stage: Stage) -> None:
    """A customer's own proxy brings its token every time; a cookie beside the marker does not stand in."""
    box = stage.sandbox(await stage.app())
    answer = await stage.ask(box.get("/", box.proxy(), token=""))
    assert (answer.status, answer.values("set-cookie")) == (200, [])
    marked = box.get("/?__ns_preview_transport=header", box.cookie(), token="")
    answer = await stage.ask(marked)
    assert (answer.status, answer.code) == (401, "preview_proxy_token_missing")


async def test_the_cookie_ends_with_the_token(stage: Stage) -> None:
    """It lives no longer than the edge token did, to the second, and not a second shorter."""
    box = stage.sandbox(await stage.app())
    pair = given(await stage.ask(box.get()), "https")
    stage.plane.change_grant(box.grant, expires_at=2e9 * 2)
    await stage.heard(stage.plane.grants[box.grant])
    stage.ahead = 890
    assert (await stage.ask(box.get("/", line(pair), token=""))).status == 200
    stage.ahead = 900
    answer = await stage.ask(box.get("/", line(pair), token=""))
    assert (answer.status, answer.code) == (401, "edge_token_expired")


async def test_the_cookie_ends_with_its_grant(stage: Stage) -> None:
    """Revoking the link takes the cookies along that came of it."""
    box = stage.sandbox(await stage.app())
    pair = given(await stage.ask(box.get()), "https")
    await stage.heard(stage.plane.change_grant(box.grant, status=GrantStatus.REVOKED))
    answer = await stage.ask(box.get("/", line(pair), token=""))
    assert (answer.status, answer.code) == (401, "preview_grant_revoked")
    assert answer.values("set-cookie") == []


async def test_an_error_sets_no_cookie(stage: Stage) -> None:
    """A good link to a sandbox that cannot be reached gives nothing away."""
    box = stage.sandbox(await stage.app(), State.PAUSED, auto_resume=False)
    answer = await stage.ask(box.get())
    assert (answer.status, answer.values("set-cookie")) == (503, [])


async def test_of_several_cookies_the_good_one_counts(stage: Stage) -> None:
    """A stale cookie of the same name beside the good one does no harm, in whichever order."""
    box = stage.sandbox(await stage.app())
    pair = given(await stage.ask(box.get()), "https")
    old = f"{NAMES['https']}={box.token(Family.CONTINUATION, exp=1.0)}"
    for first, second in ((pair, old), (old, pair)):
        answer = await stage.ask(box.get("/", line(second, first), token=""))
        assert answer.status == 200
