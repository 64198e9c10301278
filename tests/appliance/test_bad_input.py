"""Every call of the description, spoiled in every way we could think of, and in ways Hypothesis thinks of.

Whatever comes: an answer, a 4xx that says what to do (501 for what is no address of ours), and nothing is
changed. See ``judge.py`` for who says so, and ``good.py`` for what is spoiled.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from good import GOOD, POOL, VOLUME, Request, S, World
from judge import Judge
from service import KEY, Service

from edge.appliance.api.description import DESCRIPTION
from tests.core.wires import FACTOR

ENDS = list(GOOD)[list(GOOD).index(f"POST {S}/files/rename") :]
"""Calls that end something: with these only what has to be refused is tried."""

V = TypeVar("V")

JSON_CALLS = [call for call, said in GOOD.items() if isinstance(said.get("body"), dict)]

VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**63), 1e308, "", "a", "1", "\0", "a\0b", "\ud800", "\udfff\ud800",
    "\u202e", "..", "../../etc/passwd", "/proc/self/mem", "x" * 5000, "x" * 200_000, [], [None], [[]],
    ["a"] * 3000, {}, {"": ""}, {"a": {"b": 1}}, {"\0": "\ud800"}, "${PORT}", "a\r\nb", "%00",
]  # fmt: skip

BODIES: dict[str, bytes] = {
    "nothing but a brace": b"{",
    "no JSON": b"nonsense",
    "a list": b"[]",
    "null": b"null",
    "a string": b'"a"',
    "a number": b"1",
    "blanks": b" \n",
    "two objects": b"{}{}",
    "a comma too much": b'{"a":1,}',
    "UTF-16": "{}".encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "Latin-1": b'{"a":"\xe9"}',
    "an encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "NUL": b'{"a":"\0"}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":[-Infinity]}',
    "a float that is too large": b'{"a":1e999}',
    "an integer that is too large": b'{"a":' + b"9" * 5000 + b"}",
    "a key twice": b'{"a":1,"a":1}',
    "an inner key twice": b'{"a":[{"b":1,"b":2}]}',
    "65 levels": b'{"a":' * 65 + b"1" + b"}" * 65,
    "half a million levels": b"[" * 500_000,
    "half a million objects": b'{"a":' * 160_000,
    "a megabyte and more": b'{"a":"' + b"x" * (1 << 20) + b'"}',
}
"""By what is wrong; each has to be refused wherever an object is expected."""


SHARED = [
    call
    for call in GOOD
    if call.startswith(tuple(f"{m} {VOLUME}/file" for m in ("GET", "PUT", "POST")))
]
"""Calls whose handlers and models are those of the same calls for sandboxes."""


def few(call: str, values: list[V]) -> list[V]:
    """All of them; for a call that shares its handler every fourth, so that the test takes no longer than it has to."""
    return values[SHARED.index(call) % 4 :: 4] if call in SHARED and FACTOR == 1 else values


def _description(service: Service) -> dict[str, Any]:
    runner = service.plane._runner
    assert runner is not None
    return runner.app[DESCRIPTION].document


def places(service: Service, call: str) -> list[tuple[str, ...]]:
    """Where in the body of a call something may stand: its keys, and those of objects within."""
    document = _description(service)
    method, path = call.split(" ")
    content = document["paths"][path][method.lower()]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    return list(_places(document["components"]["schemas"], schema))


def _places(schemas: dict[str, Any], schema: Any, depth: int = 0) -> Iterator[tuple[str, ...]]:
    for option in [schema, *schema.get("anyOf", [])]:
        name = option.get("$ref", "").rpartition("/")[2]
        found = schemas[name] if name else option
        for key, inner in found.get("properties", {}).items():
            yield (key,)
            if depth < 2:
                for place in _places(schemas, inner, depth + 1):
                    yield (key, *place)


def put(body: Any, place: tuple[str, ...], value: Any) -> Any:
    """The body with a value at a place."""
    key, *rest = place
    inner = body.get(key) if isinstance(body.get(key), dict) else {}
    return body | {key: put(inner, tuple(rest), value) if rest else value}


def spoilable(request: Request) -> Request:
    """A create is made to fail at last, so that what is accepted does not fill the machine."""
    if request.call == "POST /v1/sandboxes":
        pool = {"id": "wp_none", "mode": "require"}
        return request.but(body={"template": "base", "warm_pool": pool})
    return request


@pytest.fixture
async def world(service: Service) -> World:
    """What the good requests are good in."""
    return await World(service).set_up()


async def test_bodies_that_are_no_objects(world: World) -> None:
    """No JSON, not our JSON, too much of it: refused by every call that takes an object."""
    judge = Judge(world)
    for call in JSON_CALLS:
        request = spoilable(world.request(call))
        for why, body in BODIES.items():
            spoiled = request.but(body=body)
            await judge.refused(
                why, spoiled, spoiled.wire(), "invalid_request", "payload_too_large"
            )
    judge.verdict()
    assert judge.answers[400] > 20 * len(JSON_CALLS)


async def test_bodies_of_another_kind(world: World) -> None:
    """A form, plain text, another coding, a lie about the coding; a bomb is not unpacked."""
    judge = Judge(world)
    bomb = gzip.compress(b" " * (4 << 20))
    for call in JSON_CALLS:
        request = spoilable(world.request(call))
        for media in ("text/plain", "application/x-www-form-urlencoded", "nonsense", "a/b/c", ";"):
            other = request.but(media=media)
            await judge.refused(
                f"the media type {media}", other, other.wire(), "unsupported_media_type"
            )
        form = request.but(media=None, body=b"a=b&c=d")
        await judge.refused("a form", form, form.wire())
        for coding, body in (("gzip", b"no"), ("deflate", b"no"), ("br", b"no"), ("gzip", bomb)):
            coded = request.but(body=body)
            wire = coded.wire(fields=f"Content-Encoding: {coding}\r\n".encode())
            await judge.refused(f"{coding} that is none", coded, wire)
    judge.verdict()


async def test_values_in_bodies(world: World) -> None:
    """Every key of every body, also of objects within, with values of all kinds and sizes."""
    judge = Judge(world)
    for call in JSON_CALLS:
        if call in ENDS:
            continue
        request = spoilable(world.request(call))
        for place in places(world.service, call):
            for value in few(call, VALUES):
                spoiled = request.but(body=put(request.body, place, value))
                why = f"{'.'.join(place)} = {str(value)[:20]!r}"
                await judge.asked(why, spoiled, spoiled.wire())
    judge.verdict()
    assert judge.answers[400] > 1000


IDS = [
    "unknown", "sb_00000000", "..", ".", "%2e%2e", "%2E", "%00", "%0d%0a", "%2f", "%2F..%2F", "%5c", "%ff", "%ed%a0%80",
    "%c0%ae%c0%ae", "%25", "*", "{sandbox}", "a;b", "a%3Fb", "x" * 4000, "%f0%9f%98%80", "-1", "0", "1.5", "%31%32",
    "99999999999999999999", "+1", "0x10", "1e3", "%20", "22", "65536",
]  # fmt: skip
BROKEN = [
    b"%",
    b"%zz",
    b"%u0041",
    b"a%",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"a//b",
    b"a/../b",
    b"<x>",
    b"a\\b",
]
"""What belongs in no path."""


async def test_paths(world: World) -> None:
    """Ids that are none, spelled in all ways: never another's thing, and never a stack trace."""
    judge = Judge(world)
    for call in GOOD:
        request = world.request(call)
        for name, good in request.ids.items():
            for given in few(call, [*(one.encode() for one in IDS), *BROKEN]):
                if call.endswith("/preview-proxy-target") and given == b"0":
                    continue
                path = request.call.split(" ")[1].encode()
                for key, value in request.ids.items():
                    put = given if key == name else value.encode()
                    path = path.replace(f"{{{key}}}".encode(), put)
                wire = request.wire(path=path)
                why = f"{name} = {given[:40]!r} for {good}"
                if name in ("port", "part") and given in (b"0", b"%31%32"):
                    await judge.asked(why, request, wire)
                elif name == "port" and given == b"22":
                    await judge.refused(why, request, wire, "unsupported_preview_port")
                else:
                    await judge.refused(why, request, wire)
    judge.verdict()


async def test_queries(world: World) -> None:
    """Every name of every query, with values of all kinds, twice, and names that are none."""
    judge = Judge(world)
    paths = _description(world.service)["paths"]
    values = ["", "a", "-1", "1.5", "%00", "%ff", "%ed%a0%80", "%", "+", "9" * 5000, "null", "[]", "[" * 3000,
              "%7B%22a%22%3ANaN%7D", "0", "..%2F..%2Fetc%2Fpasswd", "9999-99-99", "0001-01-01T00:00:00Z",
              "9999-12-31T23:59:59-23:59", "YWZ0ZXI6LTE=", "YWZ0ZXI6" + "OTk5" * 400]  # fmt: skip
    for call in GOOD:
        if call in ENDS:
            continue
        request = world.request(call)
        method, path = call.split(" ")
        described = paths[path][method.lower()]["parameters"]
        known = [one["name"] for one in described if one["in"] == "query"]
        for name in known:
            for value in few(call, values):
                query = f"{name}={value}".encode()
                await judge.asked(f"the query {query[:60]!r}", request, request.wire(query=query))
        if known and not path.endswith(("/ws", POOL)):
            twice = f"{known[0]}=a&{known[0]}=a".encode()
            await judge.refused(
                "a name twice", request, request.wire(query=twice), "invalid_request"
            )
        for query in (b"&&&", b"=", b"%00=%00", b"a=%ff&\xff=1", b"x" * 6000):
            await judge.asked(f"the query {query[:20]!r}", request, request.wire(query=query))
    judge.verdict()


async def test_methods_and_heads(world: World) -> None:
    """Other methods, no key, two keys, lengths and codings that lie, heads that are none."""
    judge = Judge(world)
    paths = _description(world.service)["paths"]
    for call in GOOD:
        request = world.request(call)
        method, path = call.split(" ")
        for other in ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            if other.lower() not in paths[path]:
                wire = request.wire(method=other)
                codes = ("method_not_allowed", "invalid_request")[other == "BREW" :]
                await judge.refused(f"the method {other}", request, wire, *codes)
        if path.startswith("/v1"):
            for fields in (
                b"Authorization: \r\n", b"Authorization: Bearer\r\n", b"Authorization: Bearer x\r\n",
                b"Authorization: Bearer " + b"x" * 7000 + b"\r\n", b"Authorization: Bearer \xff\r\n",
                f"Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}\r\n".encode(),
            ):  # fmt: skip
                await judge.refused(
                    f"{fields[:40]!r}", request, request.wire(fields=fields), "unauthorized"
                )
        for fields in (
            b"Content-Length: -1\r\n", b"Content-Length: x\r\n", b"Content-Length: 1e3\r\n",
            b"Content-Length: 1\r\nContent-Length: 2\r\n", b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: 0\r\nTransfer-Encoding: gzip, chunked\r\n", b"Content-Length: 0\r\nx\r\n",
            b"Content-Length: 0\r\nx : y\r\n", b"Content-Length: 0\r\n folded: y\r\n",
            b"Content-Length: 0\r\nx: a\0b\r\n", b"Content-Length: 0\r\nx: " + b"y" * 20_000 + b"\r\n",
            b"Content-Length: 0\r\nExpect: nonsense\r\n",
        ):  # fmt: skip
            await judge.refused(f"{fields[:60]!r}", request, request.wire(fields=fields))
        if method != "GET" and call not in ENDS:
            chunks = request.but(body=b"zz\r\nno\r\n").wire(
                fields=b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
            )
            await judge.asked("a bad chunk", request, _without_length(chunks))
    create = world.request("POST /v1/sandboxes")
    for key in (b"x" * 256, b"\xff" * 300, b"a" * 7000):
        wire = create.wire(fields=b"Idempotency-Key: " + key + b"\r\n")
        await judge.refused("a long key", create, wire, "invalid_request")
    judge.verdict()


def _without_length(wire: bytes) -> bytes:
    head, _, body = wire.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_wrong_states(world: World) -> None:
    """Every call on a sandbox that is paused and does not resume by itself, and on one that is gone."""
    judge = Judge(world)
    s = f"/v1/sandboxes/{world.ids['sandbox']}"
    paused = World(world.service)
    await paused.set_up(auto_resume=False)
    p = paused.ids["sandbox"]
    assert (await world.service.api("POST", f"/v1/sandboxes/{p}/hibernate"))[0] == 200
    judge = Judge(paused)
    may = (
        "preview",
        "/host",
        "/timeout",
        "/lifecycle",
        "/metrics",
        "/hibernate",
        "-url",
        "/readiness",
        "/fork",
        "/snapshots",
        "/volumes",
    )
    for call in GOOD:
        request = paused.request(call)
        if "sandbox" not in request.ids or call in (f"POST {S}/resume", f"DELETE {S}", f"GET {S}"):
            continue
        if call.endswith(may) or any(
            part in call for part in ("/uploads/", "preview", "/volumes/")
        ):
            await judge.asked("a paused sandbox", request, request.wire())
        else:
            await judge.refused(
                "a paused sandbox", request, request.wire(), "sandbox_not_ready", "invalid_request"
            )
    assert (await world.service.api("GET", f"/v1/sandboxes/{p}"))[1]["status"] == "paused"
    judge.verdict()
    assert (await world.service.api("DELETE", s))[0] == 204
    judge = Judge(world)
    for call in GOOD:
        request = world.request(call)
        if "sandbox" in request.ids and call != f"GET {S}/lifecycle":
            codes = (
                "sandbox_not_found",
                "snapshot_not_found",
                "upload_not_found",
                "invalid_request",
            )
            await judge.refused("a sandbox that is gone", request, request.wire(), *codes)
    judge.verdict()
    assert (await world.service.api("DELETE", f"/v1/sandboxes/{p}"))[0] == 204
    assert len(await _forks(world)) == 1
    for fork in await _forks(world):
        await world.service.api("DELETE", f"/v1/sandboxes/{fork}")
    await _volumes_and_snapshots(world)


async def _forks(world: World) -> list[str]:
    _, found = await world.service.api("GET", "/v1/sandboxes")
    return [one["id"] for one in found]


async def _volumes_and_snapshots(world: World) -> None:
    """Those that are gone, and those that somebody needs."""
    needs, ids = World(world.service), world.ids
    await needs.set_up()
    ids["sandbox"] = s = needs.ids["sandbox"]
    _, snapshot = await world.service.api("POST", f"/v1/sandboxes/{s}/hibernate")
    _, [attached] = await world.service.api("GET", f"/v1/sandboxes/{s}/volumes")
    judge = Judge(world)
    for call, used, code in (
        ("DELETE /v1/snapshots/{snapshot}", {"snapshot": snapshot["id"]}, "snapshot_in_use"),
        (f"DELETE {VOLUME}", {"volume": attached["volume_id"]}, "volume_busy"),
        ("POST /v1/volumes", {}, "volume_name_conflict"),
        (f"POST {S}/volumes", {}, "volume_mount_conflict"),
    ):
        request = world.request(call)
        request = request.but(ids={**request.ids, **used})
        if call == "POST /v1/volumes":
            request = request.but(body={"name": ids["name"]})
        if call == f"POST {S}/volumes":
            request = request.but(body={"ref": "shared", "mount_path": attached["mount_path"]})
        await judge.refused("what somebody needs", request, request.wire(), code)
    assert (await world.service.api("DELETE", f"/v1/volumes/{ids['volume']}"))[0] == 204
    judge = Judge(world)
    for call in GOOD:
        request = world.request(call)
        if "volume" in request.ids or "name" in request.ids or call == f"POST {S}/volumes":
            await judge.refused("a volume that is gone", request, request.wire(), "not_found")
    judge.verdict()


FRAMES: list[str | bytes] = [
    "", "x", "[]", "null", "{}", "1", b"{}", b"\xff", '{"type":1}', '{"type":"exec_start"}', '{"type":"nothing"}',
    '{"type":"exec_start","command":""}', '{"type":"exec_start","command":"a","args":"b"}',
    '{"type":"exec_start","command":"no-such-program"}', '{"type":"exec_start","command":"a","timeout_secs":NaN}',
    '{"type":"exec_start","type":"exec_start","command":"true"}', '{"type":"exec_connect","pid":1}',
    '{"type":"exec_connect","pid":1e999}', '{"type":"exec_connect","pid":99999999999999999999999}',
    '{"type":"exec_start","command":"a\\u0000"}', '{"type":"exec_start","command":"\\ud800"}',
    '{"type":"exec_start","command":"true","cwd":"../.."}', '{"type":"exec_start","id":"\\ud800"}',
    '{"type":"file_watch"}', '{"type":"file_watch","id":"a","path":"../.."}',
    '{"type":"file_watch","id":"a","path":"\\u0000"}', '{"type":"file_watch","id":"\\ud800","path":"nothing"}',
    '{"type":"file_watch","id":"a","path":".","timeout_secs":-1}', "[" * 60_000, '{"a":' * 10_000,
    '{"a":"' + "x" * (1 << 20) + '"}', "x" * (5 << 20),
]  # fmt: skip


@pytest.mark.parametrize("way", ["/ws?channel=exec", "/ws", "/lifecycle/ws"])
async def test_frames(world: World, way: str) -> None:
    """What a WebSocket does not understand is an ``error`` frame (or, beyond all limits, a close), and the end."""
    judge = Judge(world)
    path = f"/v1/sandboxes/{world.ids['sandbox']}{way}"
    session, headers = world.service.session, {"Authorization": f"Bearer {KEY}"}
    for frame in FRAMES:
        async with session.ws_connect(path, headers=headers) as socket:
            with suppress(ConnectionError):  # Beyond all limits nobody reads on.
                if isinstance(frame, bytes):
                    await socket.send_bytes(frame)
                else:
                    await socket.send_str(frame)
            async with asyncio.timeout(20):
                heard = [json.loads(message.data) async for message in socket]
        assert [one["type"] for one in heard] == ["error"][: len(heard)], (frame[:80], heard)
        assert all(one["message"] for one in heard), frame[:80]
        # Watching ends without a word when nothing that is text comes.
        assert heard or way == "/ws" or len(frame) > 1 << 20, frame[:80]
    assert judge.fingerprint() == Judge(world).fingerprint()
    judge.verdict()
