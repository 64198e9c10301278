"""What exchanges are given for their way: what the app gets to see, and what comes with its answer."""

from __future__ import annotations

import re

import pytest

from tests.flows.stage import MakeStage, Stage
from tests.traffic.dialogue import canary, first, say


def lines(head: bytes) -> list[bytes]:
    """The lines of a head."""
    return head.removesuffix(b"\r\n\r\n").split(b"\r\n")


async def test_what_the_app_gets_to_see(stage: Stage) -> None:
    """Byte for byte what the client sent, without what was the edge's, and with what the edge knows."""
    app = await stage.app()
    box = stage.sandbox(app)
    cookie = box.cookie().strip().removeprefix(b"Cookie: ")
    fields = (
        b"x-oDD-CaSe:  two  blanks \r\n"
        b"Cookie: a=b; " + cookie + b"; c = d\r\n"
        b"Referer: https://x.example/p?a=1&edge_token=secret&b=2\r\n"
        b"X-Nullspace-Anything: x\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n"
        b"X-Request-Id: my-id.1\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
        b"Connection: keep-alive, X-Hop, Upgrade\r\nX-Hop: gone\r\nx-hop: gone too\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authorization: x\r\ntraceparent: 00-a-b-01\r\n"
    )
    async with await stage.client() as client:
        answer = await client.ask(box.get("/a%20b//c?x=%2F&y&&z=1", fields))
        assert answer.body == b"GET /a%20b//c?x=%2F&y&&z=1 HTTP/1.1\n"
        assert b"secret" not in app.requests[0]
        await canary(client, box, app)
    assert lines(app.requests[0]) == [
        b"GET /a%20b//c?x=%2F&y&&z=1 HTTP/1.1",
        b"Host: " + box.host.encode(),
        b"x-oDD-CaSe:  two  blanks ",
        b"Cookie: a=b; c = d",
        b"Referer: https://x.example/p?a=1&b=2",
        b"traceparent: 00-a-b-01",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: " + box.host.encode(),
        b"X-Request-Id: my-id.1",
        b"Via: 1.1 preview-edge",
    ]


@pytest.mark.parametrize("marked", [False, True])
async def test_what_a_customers_proxy_says_is_passed_on(stage: Stage, marked: bool) -> None:
    """Proxy mode: its forwarding fields exactly as sent, none added, and no cookie comes back."""
    app = await stage.app()
    box = stage.sandbox(app)
    fields = box.proxy() + b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\n"
    path = "/p?__ns_preview_transport=header&a=1" if marked else "/p?a=1"
    async with await stage.client() as client:
        for _ in range(3):  # the second and third may be made of what the first left
            answer = await client.ask(box.get(path, fields, token=""))
            assert answer.body == b"GET /p?a=1 HTTP/1.1\n" and not answer.values("set-cookie")
        await canary(client, box, app)
    for head in app.requests[:3]:
        said = [line for line in lines(head) if line.lower().startswith(b"x-forwarded")]
        assert said == [b"X-Forwarded-For: 203.0.113.9", b"X-Forwarded-Proto: http"]
        assert b"x-nullspace" not in head.lower() and b"__ns_preview" not in head


async def test_requests_that_differ_in_one_line_stay_apart(stage: Stage) -> None:
    """What is remembered of one request of a connection is not told of the next, nor of another's."""
    app = await stage.app()
    one, two = stage.sandbox(app), stage.sandbox(app)
    async with await stage.client() as client:
        for i in range(12):
            box, fields = (one, two)[i % 2], b"X-N: %d\r\nX-Request-Id: id-%d\r\n" % (i % 3, i)
            credential = box.cookie() if i % 4 < 2 else box.proxy()
            assert (await client.ask(box.get(f"/{i}", credential + fields, token=""))).status == 200
            head = app.requests[-1]
            assert lines(head)[0] == b"GET /%d HTTP/1.1" % i
            assert b"\r\nHost: " + box.host.encode() + b"\r\n" in head
            assert b"\r\nX-N: %d\r\n" % (i % 3) in head and head.count(b"X-N:") == 1
            assert b"\r\nX-Request-Id: id-%d\r\n" % i in head
            assert (b"X-Forwarded-Host: " in head) == (i % 4 < 2)
            assert b"ns_preview" not in head


async def test_an_absolute_target(stage: Stage) -> None:
    """Its authority has to be the Host's; the app gets a path."""
    app = await stage.app()
    box = stage.sandbox(app)
    absolute = b"GET https://" + box.host.upper().encode() + b"/abs?a=1"
    async with await stage.client() as client:
        answer = await client.ask(box.get("/abs?a=1").replace(b"GET /abs?a=1", absolute, 1))
        assert answer.body == b"GET /abs?a=1 HTTP/1.1\n"
        await canary(client, box, app)
        wrong = box.get("/").replace(b"GET /", b"GET http://elsewhere.example/", 1)
        answer = await client.ask(wrong)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert await client.at_end()
    assert len(app.requests) == 2


async def test_options_of_the_whole_server(stage: Stage) -> None:
    """``*`` has no query: the credential comes as a cookie, and the target arrives as it is."""
    app = await stage.app()
    box = stage.sandbox(app)
    request = box.request("OPTIONS", "/", box.cookie(), token="").replace(
        b"OPTIONS /", b"OPTIONS *"
    )
    async with await stage.client() as client:
        assert (await client.ask(request)).body == b"OPTIONS * HTTP/1.1\n"
        await canary(client, box, app)


@pytest.mark.parametrize(("mask", "host"), [("localhost:${PORT}", b"localhost:3000"), ("a b", b"")])
async def test_a_masked_host(stage: Stage, mask: str, host: bytes) -> None:
    """Only Host changes, and only to what can be one."""
    app = await stage.app()
    box = stage.sandbox(app, mask_request_host=mask)
    async with await stage.client() as client:
        await canary(client, box)
        await canary(client, box, app)
    for head in app.requests:
        assert lines(head)[1] == b"Host: " + (host or box.host.encode())
        assert b"X-Forwarded-Host: " + box.host.encode() in head


@pytest.mark.parametrize("sent", [b"bad id!", b"x" * 129, b"", b"a\r\nX-Request-Id: b"])
async def test_request_ids_of_our_own(stage: Stage, sent: bytes) -> None:
    """What is no good id, or two of them, is replaced by one that nobody else has."""
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        for _ in range(2):
            assert (await client.ask(box.get("/", b"X-Request-Id: %b\r\n" % sent))).status == 200
    ids = [re.findall(rb"\r\nX-Request-Id: ([^\r]*)\r\n", head) for head in app.requests]
    assert all(
        len(found) == 1 and re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]+", found[0]) for found in ids
    )
    assert ids[0] != ids[1]


async def test_the_cookie_comes_with_the_first_answer(stage: Stage) -> None:
    """A request by edge token is continued by cookie; one by cookie gets no other."""
    box = stage.sandbox(await stage.app())
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        (cookie,) = answer.values("set-cookie")
        assert cookie.startswith("__Host-ns_preview=") and answer.values("cache-control") == [
            "private"
        ]
        field = f"Cookie: {cookie.split(';')[0]}\r\n".encode()
        answer = await client.ask(box.get("/by-cookie", field, token=""))
        assert answer.body == b"GET /by-cookie HTTP/1.1\n" and not answer.values("set-cookie")


async def test_the_cookie_of_the_scheme_a_trusted_proxy_names(make_stage: MakeStage) -> None:
    """Behind a proxy of ours the client's own scheme decides which cookie is the edge's."""
    stage = await make_stage(trusted_proxies=["127.0.0.1/32"])
    foreign = b"HTTP/1.1 200 OK\r\nSet-Cookie: ns_preview=stolen\r\nContent-Length: 0\r\n\r\n"
    app = await stage.app(first(say(foreign), say(foreign)))
    box = stage.sandbox(app)
    proto = b"X-Forwarded-Proto: http\r\n"
    async with await stage.client() as client:
        (cookie,) = (await client.ask(box.get("/", proto))).values("set-cookie")
        assert cookie.startswith("ns_preview=ey") and "Secure" not in cookie
        field = f"Cookie: {cookie.split(';')[0]}\r\n".encode()
        answer = await client.ask(box.get("/", field + proto, token=""))
        assert answer.status == 200 and not answer.values("set-cookie")
        await canary(client, box, app)
    assert (
        b"\r\nX-Forwarded-Proto: http\r\n" in app.requests[1] and b"Cookie" not in app.requests[1]
    )
