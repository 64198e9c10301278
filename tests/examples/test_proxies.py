"""Each example as a customer runs it: their host in front, the edge in proxy mode, a real sandbox behind."""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

import httpx
import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from edge.appliance.keys import SigningKeys
from tests.examples.conftest import Start
from tests.examples.proxies import CUSTOMER, PATIENCE, Proxy
from tests.examples.sandboxed import PART
from tests.examples.world import Sandbox, World
from tests.ops.programs import eventually

PROXY_TOKEN = "x-nullspace-preview-proxy-token"
TRAFFIC_TOKEN = "x-nullspace-traffic-access-token"
BIG = 512
"""Parts of 64 KiB: what is held in no buffer on the way."""


@pytest.fixture
def visitor(proxy: Proxy) -> Iterator[httpx.Client]:
    """Somebody with connections of their own."""
    with proxy.visitor() as client:
        yield client


def reached(answer: httpx.Response) -> dict[str, Any]:
    """What the app says has reached it."""
    said: dict[str, Any] = answer.json()
    assert "target" in said, said
    return said


def values(said: dict[str, Any], name: str) -> list[str]:
    """The values of a field that reached the app."""
    return [value for key, value in said["fields"] if key == name]


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error of the edge, which is JSON."""
    assert answer.headers["content-type"] == "application/json", answer.text
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    return answer.status_code, answer.json()["code"]


def refused_socket(proxy: Proxy, **options: Any) -> tuple[int, str]:
    """Status and code of the error that an upgrade gets."""
    with pytest.raises(InvalidStatus) as refused, proxy.socket(**options):
        pass
    response = refused.value.response
    assert response.headers["content-type"] == "application/json"
    return response.status_code, json.loads(response.body)["code"]


@contextmanager
def chat(proxy: Proxy, target: str = "/socket", **options: Any) -> Iterator[ClientConnection]:
    """An open WebSocket whose first message was read."""
    with proxy.socket(target, **options) as opened:
        opened.recv()
        yield opened


# --- HTTP -------------------------------------------------------------------------------------------


def test_requests_and_answers_pass_as_they_are(visitor: httpx.Client) -> None:
    """Method, path and query byte for byte, body, status, repeated fields; no cookie but the app's."""
    target = b"/a%2Fb/%7e;x//y?a=%41&&b=+%20|&edge=1"
    for method, body in itertools.product(["GET", "POST", "PUT", "PATCH", "DELETE"], ["", "b\0dy"]):
        answer = visitor.request(
            method, "/", content=body, params=None, extensions={"target": target}
        )
        said = reached(answer)
        assert (said["method"], said["target"], said["body"]) == (method, target.decode(), body)
        assert answer.headers.get_list("set-cookie") == ["one=1", "two=2; Path=/"]
    assert reached(visitor.request("OPTIONS", "/"))["method"] == "OPTIONS"
    assert [visitor.get(f"/?status={n}").status_code for n in (201, 404, 503)] == [201, 404, 503]
    head = visitor.head("/")
    assert int(head.headers["content-length"]) > 0 and head.content == b""
    assert [visitor.get(f"/empty/{n}").status_code for n in (204, 304)] == [204, 304]
    assert reached(visitor.get("/"))["method"] == "GET", "an answer without a body left something"


def test_the_app_hears_who_asked_from_the_proxy_alone(proxy: Proxy, visitor: httpx.Client) -> None:
    """X-Forwarded-* once each, as the customer's proxy writes them, whatever the visitor claims."""
    lies = {
        "X-Forwarded-Host": "evil.test",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-For": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
    }
    with proxy.socket(additional_headers=lies) as opened:
        for said in (reached(visitor.get("/", headers=lies)), json.loads(opened.recv())):
            assert values(said, "x-forwarded-host") == [f"{CUSTOMER}:{proxy.port}"]
            assert values(said, "x-forwarded-proto") == ["http"]
            assert values(said, "x-forwarded-for") == ["127.0.0.1"]
            assert values(said, "forwarded") == []
            assert len(values(said, "host")) == 1 and "preview.test" in values(said, "host")[0]


def test_a_visitors_own_credentials_do_nothing(proxy: Proxy, visitor: httpx.Client) -> None:
    """Spoofed fields of the edge's family reach neither the edge nor the app; other cookies do."""
    spoofed = [(PROXY_TOKEN, "a.b.c"), (TRAFFIC_TOKEN, "d"), ("x-nullspace-other", "e")]
    request = [*spoofed, ("Cookie", "session=1"), ("Authorization", "Bearer own")]
    with proxy.socket(additional_headers=request) as opened:
        for said in (reached(visitor.get("/", headers=request)), json.loads(opened.recv())):
            assert not [name for name, _ in said["fields"] if name.startswith("x-nullspace-")]
            assert values(said, "cookie") == ["session=1"]
            assert values(said, "authorization") == ["Bearer own"]
    said = reached(visitor.get("/x?a=1&edge_token=a.b.c&__ns_preview_transport=query&b=2"))
    assert said["target"] == "/x?a=1&b=2"


@pytest.mark.parametrize("field", [b"", b"Host: [\r\n"])
def test_a_visitor_without_a_proper_host(proxy: Proxy, field: bytes) -> None:
    """HTTP/1.0 may lack Host, and anybody may send nonsense there: passed on or refused, but no failure."""
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n" + field + b"\r\n")
        answer = b""
        while part := plain.recv(65536):
            answer += part
    assert answer[9:12] < b"500", answer


def test_events_come_one_by_one(visitor: httpx.Client) -> None:
    """Each event is seen before the app makes the next one, which it does when the visitor says so."""
    with visitor.stream("GET", "/events") as stream:
        lines = (line for line in stream.iter_lines() if line)
        assert stream.headers["content-type"] == "text/event-stream"
        assert next(lines) == "data: 0"
        for number in (1, 2):
            assert visitor.post("/cue?of=/events").status_code == 200
            assert next(lines) == f"data: {number}"
        assert list(lines) == []


def test_uploads_are_passed_on_while_they_come(visitor: httpx.Client) -> None:
    """Of known and of unknown length: the app has the first part before the second is sent."""

    def parts() -> Iterator[bytes]:
        yield PART
        assert visitor.get(f"/arrived?bytes={len(PART)}").status_code == 200
        for _ in range(BIG - 1):
            yield PART

    digest = hashlib.sha256(PART * BIG).hexdigest()
    for length in ({"Content-Length": str(len(PART) * BIG)}, {}):
        said = visitor.post("/upload", content=parts(), headers=length).json()
        assert said == {"size": len(PART) * BIG, "digest": digest}


def test_an_upload_that_breaks_off_ends_for_the_app_too(
    proxy: Proxy, visitor: httpx.Client
) -> None:
    """The app does not wait for the rest of what a visitor who has left began to send."""

    def parts() -> Iterator[bytes]:
        yield PART
        visitor.get(f"/arrived?bytes={len(PART)}").raise_for_status()
        raise EOFError

    with proxy.visitor() as leaving, pytest.raises(EOFError):
        leaving.post("/upload", content=parts())
    assert visitor.get("/upload-ended").status_code == 200


def test_big_downloads_are_whole(visitor: httpx.Client) -> None:
    """32 MiB of unknown length."""
    digest = hashlib.sha256()
    with visitor.stream("GET", f"/download?parts={BIG}") as stream:
        for part in stream.iter_raw():
            digest.update(part)
    assert digest.digest() == hashlib.sha256(PART * BIG).digest()


def test_a_visitor_who_does_not_read_makes_the_app_wait(visitor: httpx.Client) -> None:
    """What nobody reads is held nowhere but in sockets' buffers: the app cannot get rid of 256 MiB."""

    def written() -> int:
        return int(visitor.get("/written").json())

    with visitor.stream("GET", f"/download?parts={8 * BIG}") as stream:
        next(stream.iter_raw())
        before, now = -1, written()
        while (
            now > before
        ):  # a machine that is slower than that makes the test prove less, not fail
            time.sleep(0.3)
            before, now = now, written()
    assert len(PART) <= now < 2 * BIG * len(PART)


def test_a_visitor_who_has_left_ends_the_stream(
    proxy: Proxy, visitor: httpx.Client, world: World
) -> None:
    """The proxy hangs up on the edge, which notices when it has something to say."""
    path = f"/events/left-{proxy.port}"
    with visitor.stream("GET", f"{path}?count=1000000") as stream:
        assert next(stream.iter_lines()) == "data: 0"

    def ended() -> bool:
        visitor.post(f"/cue?of={path}")
        return f'"path":"{path}"' in world.access_log()  # an exchange has its line when it is over

    assert eventually(ended)


# --- WebSocket --------------------------------------------------------------------------------------


def test_websockets_echo(proxy: Proxy) -> None:
    """Text, bytes, a message of a megabyte, the subprotocol, path and query."""
    with proxy.socket("/socket?a=%41&b", subprotocols=["other", "chat"]) as opened:
        assert opened.subprotocol == "chat"
        assert json.loads(opened.recv())["target"] == "/socket?a=%41&b"
        for message in ("hällo", b"\0\xff", PART * 16):
            opened.send(message)
            assert opened.recv() == message


@pytest.mark.parametrize("code", [1000, 1001, 4321])
def test_close_codes_pass_both_ways(proxy: Proxy, visitor: httpx.Client, code: int) -> None:
    """The app's close code and reason reach the visitor, the visitor's code the app."""
    with chat(proxy) as opened:
        opened.send(f"close {code} said by the app")
        with pytest.raises(ConnectionClosed) as closed:
            opened.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "said by the app")
    assert visitor.get("/last-close").json() == code
    with chat(proxy) as opened:
        opened.close(code, "said by the visitor")
    assert visitor.get("/last-close").json() == code


def test_a_visitor_who_is_cut_off_ends_the_apps_socket(proxy: Proxy, visitor: httpx.Client) -> None:
    """Without a close frame; the app hears of it all the same."""
    with chat(proxy) as opened:
        off = struct.pack("ii", 1, 0)
        opened.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, off)
        opened.socket.shutdown(socket.SHUT_RDWR)
        assert visitor.get("/last-close").status_code == 200


@pytest.mark.parametrize("status", [307, 418])
def test_the_apps_refusal_of_an_upgrade_comes_back(proxy: Proxy, status: int) -> None:
    """Status, fields and body of the app's own answer to the handshake, also where it leads elsewhere."""
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as plain:
        plain.sendall(
            f"GET /socket?refuse={status} HTTP/1.1\r\nHost: {proxy.host}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        answer = HTTPResponse(plain)
        answer.begin()
        assert (answer.status, answer.headers["location"]) == (status, "/socket")
        assert json.loads(answer.read()) == {"refused": True}
        answer.close()


# --- Waking -----------------------------------------------------------------------------------------


def test_a_request_wakes(visitor: httpx.Client, sandbox: Sandbox) -> None:
    """A POST to a paused sandbox is answered by the app, body and all, in one new incarnation."""
    before = sandbox.wakes
    sandbox.pause()
    assert reached(visitor.post("/", content="wake up"))["body"] == "wake up"
    assert (sandbox.wakes, sandbox.state) == (before + 1, "running")


def test_an_upgrade_wakes(proxy: Proxy, sandbox: Sandbox) -> None:
    """The same for a WebSocket."""
    before = sandbox.wakes
    sandbox.pause()
    with chat(proxy) as opened:
        opened.send("awake")
        assert opened.recv() == "awake"
    assert (sandbox.wakes, sandbox.state) == (before + 1, "running")


def test_many_at_once_wake_once(proxy: Proxy, sandbox: Sandbox) -> None:
    """Requests and upgrades of many visitors of a paused sandbox: all answered, one new incarnation."""

    def visit(number: int) -> int:
        if number % 2:
            with chat(proxy):
                return 200
        with proxy.visitor() as client:
            return client.get(f"/{number}").status_code

    before = sandbox.wakes
    sandbox.pause()
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(visit, range(16))) == {200}
    assert sandbox.wakes == before + 1


# --- Errors -----------------------------------------------------------------------------------------


def test_a_revoked_grant_is_told_as_json(start: Start, sandbox: Sandbox) -> None:
    """Open sockets end, and from then on both transports say so; also to a browser's navigation."""
    target = sandbox.target()
    gone = (401, "preview_proxy_token_revoked")
    with start(sandbox.environ(target)) as proxy, proxy.visitor() as visitor:
        with chat(proxy) as opened:
            assert reached(visitor.get("/"))["target"] == "/"
            sandbox.call("DELETE", f"/preview-urls/{target['grant']['id']}")
            with pytest.raises(ConnectionClosed):
                opened.recv()
        navigation = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
        assert refusal(visitor.get("/")) == refusal(visitor.get("/", headers=navigation)) == gone
        assert refusal(visitor.post("/", content="x")) == refused_socket(proxy) == gone


def test_tokens_that_are_old_or_of_the_other_transport(
    start: Start, sandbox: Sandbox, world: World
) -> None:
    """An expired HTTP token is told so; an HTTP token with an upgrade is out of scope."""
    target = sandbox.target()
    environ = sandbox.environ(
        target,
        PREVIEW_HTTP_TOKEN=expired(world, target["http_token"]),
        PREVIEW_WEBSOCKET_TOKEN=target["http_token"],
    )
    with start(environ) as proxy, proxy.visitor() as visitor:
        assert refusal(visitor.get("/")) == (401, "preview_proxy_token_expired")
        assert refused_socket(proxy) == (403, "preview_proxy_token_scope_mismatch")


def test_private_traffic_needs_the_proxys_second_token(start: Start, world: World) -> None:
    """Of the proxy, not of a visitor who happens to know it. The other transport's token is refused first."""
    with world.sandbox(network={"allow_public_traffic": False}) as private:
        known = {TRAFFIC_TOKEN: private.traffic_token}
        target = private.target()
        swapped = private.environ(target, PREVIEW_HTTP_TOKEN=target["websocket_token"])
        with start(swapped) as proxy, proxy.visitor() as visitor:
            mismatch = (403, "preview_proxy_token_scope_mismatch")
            assert refusal(visitor.get("/", headers=known)) == mismatch
            missing = (401, "traffic_access_token_missing")
            assert refused_socket(proxy, additional_headers=known) == missing


def test_private_traffic_with_the_second_token(start: Start, world: World) -> None:
    """Both transports reach a private sandbox; its token does not reach the app."""
    with world.sandbox(network={"allow_public_traffic": False}) as private:
        environ = private.environ(PREVIEW_TRAFFIC_TOKEN=private.traffic_token)
        with start(environ) as proxy, proxy.visitor() as visitor, proxy.socket() as opened:
            for said in (reached(visitor.get("/")), json.loads(opened.recv())):
                assert private.traffic_token not in str(said)


def test_an_edge_that_is_gone_is_a_bad_gateway(start: Start, sandbox: Sandbox) -> None:
    """Nobody listens where the edge should be: 502 by the proxy, for both transports."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with start(sandbox.environ(PREVIEW_ORIGIN=origin)) as proxy, proxy.visitor() as visitor:
            assert visitor.get("/").status_code == 502
            with pytest.raises(InvalidStatus) as refused, proxy.socket():
                pass
            assert refused.value.response.status_code == 502


def expired(world: World, token: str) -> str:
    """The same token, as it would be had it been issued a while ago."""
    key = SigningKeys(world.data).key
    headers = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    claims |= {"iat": claims["iat"] - 100_000, "exp": claims["exp"] - 100_000}
    return jwt.encode(claims, key.material, key.alg, headers=headers)
