"""A stranger learns nothing and costs nothing: no look-up, no wake, and never an error of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from edge.core.records import State
from tests.flows.forgeries import FORGERIES
from tests.flows.rawclient import Answer
from tests.flows.stage import MakeStage, Preview, Stage

NOTHING = {"sandbox": 0, "grant": 0, "resume": 0}


def told(answer: Answer) -> tuple[object, ...]:
    """All that an answer tells, without what differs from one answer to the next anyway."""
    volatile = (b"date", b"x-request-id", b"content-length")
    fields = [(name, value) for name, value in answer.fields if name.lower() not in volatile]
    return answer.status, answer.reason, fields, {**answer.json, "request_id": ""}


@pytest.mark.parametrize("case", FORGERIES)
async def test_a_stranger(stage: Stage, case: str) -> None:
    """The same answer for a sandbox that runs, one that sleeps and one that never was; nothing is asked."""
    app = await stage.app()
    running, asleep = stage.sandbox(app), stage.sandbox(app, State.PAUSED)
    nobody = Preview(stage, "sb_neverexisted", running.port, running.grant)
    forgery = FORGERIES[case]
    answers = []
    for box in (running, asleep, nobody):
        answer = await stage.ask(forgery.request(box))
        assert (answer.status, answer.code) == (forgery.status, forgery.code)
        assert answer.json["retryable"] is False and answer.value("cache-control") == "no-store"
        challenge = 'NullspacePreview realm="preview"' if answer.status == 401 else None
        assert answer.value("www-authenticate") == challenge
        assert answer.values("set-cookie") == []
        answers.append(told(answer))
    assert answers[0] == answers[1] == answers[2]
    assert stage.plane.asked == NOTHING and app.connections == 0
    # Nor did it spoil anything for those who may.
    assert (await stage.ask(asleep.get())).status == 200


@pytest.mark.parametrize(
    "claim", ["iss", "aud", "sub", "port", "kind", "grant", "principal", "iat", "exp", "jti"]
)
async def test_every_claim_is_needed(stage: Stage, claim: str) -> None:
    """A genuine token that leaves a claim out, or has it of another type, is not valid."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    claims = stage.mint.claims(box.id, box.port, box.grant)
    for value in (None, True, [], {}, "" if claim in {"iat", "exp", "port"} else 7):
        changed = {k: v for k, v in (claims | {claim: value}).items() if v is not None}
        answer = await stage.ask(box.get(token=stage.mint.sign(changed)))
        assert (value, answer.status, answer.code) == (value, 401, "edge_token_invalid")
    assert stage.plane.asked == NOTHING


HOSTS: dict[str, tuple[Callable[[Preview], bytes], int, str]] = {
    "another site": (lambda _: b"example.org", 404, "preview_host_unknown"),
    "the site itself": (lambda box: box.stage.mint.site.encode(), 404, "preview_host_unknown"),
    "no port": (lambda box: box.host.split("-", 1)[1].encode(), 404, "preview_host_unknown"),
    "leading zero": (lambda box: b"0" + box.host.encode(), 404, "preview_host_unknown"),
    "a site behind ours": (lambda box: box.host.encode() + b".evil", 404, "preview_host_unknown"),
    "a site before ours": (lambda box: b"evil." + box.host.encode(), 404, "preview_host_unknown"),
    "port that is none": (lambda box: box.host.encode() + b":http", 404, "preview_host_unknown"),
    "user": (lambda box: b"me@" + box.host.encode(), 404, "preview_host_unknown"),
    "path": (lambda box: box.host.encode() + b"/", 404, "preview_host_unknown"),
    "not ASCII": (lambda box: b"\xff" + box.host.encode(), 404, "preview_host_unknown"),
    "short id": (
        lambda box: b"3000-sb-abc." + box.stage.mint.site.encode(),
        404,
        "preview_host_unknown",
    ),
    "very long": (lambda _: b"a" * 5000, 404, "preview_host_unknown"),
    "address": (lambda _: b"[::1]:3000", 404, "preview_host_unknown"),
    "empty": (lambda _: b"", 400, "bad_request"),
    "two": (lambda box: box.host.encode() + b"\r\nHost: " + box.host.encode(), 400, "bad_request"),
    "blank": (lambda box: box.host.encode() + b" x", 404, "preview_host_unknown"),
} | {
    f"port {port}": (
        lambda box, port=port: f"{port}-{box.host.split('-', 1)[1]}".encode(),
        400,
        "unsupported_preview_port",
    )
    for port in (0, 22, 5900, 5999, 65536, 99999)
}


@pytest.mark.parametrize("case", HOSTS)
async def test_a_host_that_is_no_preview(stage: Stage, case: str) -> None:
    """With the best of tokens: what Host does not name is not looked for."""
    host, status, code = HOSTS[case]
    app = await stage.app()
    box = stage.sandbox(app, State.PAUSED)
    request = box.get().replace(box.host.encode(), host(box), 1)
    answer = await stage.ask(request)
    assert (answer.status, answer.code) == (status, code)
    if code == "unsupported_preview_port":
        assert answer.json["details"] == {"port": int(case.removeprefix("port "))}
    assert answer.json["retryable"] is False
    assert stage.plane.asked == NOTHING and app.connections == 0
    assert (await stage.ask(box.get())).status == 200


@pytest.mark.parametrize(
    "spelling",
    [
        lambda host: host.upper(),
        lambda host: host.replace("sb-", "sb_"),
        lambda host: host + ":443",
        lambda host: host.title() + ":8080",
    ],
)
async def test_spellings_of_one_host(stage: Stage, spelling: Callable[[str], str]) -> None:
    """Case, ``_`` for ``-`` and a port are all the same preview, and wake the same sandbox."""
    app = await stage.app()
    box = stage.sandbox(app, State.PAUSED)
    host = spelling(box.host).encode()
    assert (await stage.ask(box.get().replace(box.host.encode(), host, 1))).status == 200
    assert stage.plane.incarnations[box.id] == 1
    assert b"\r\nHost: %b\r\n" % host in app.requests[0]


async def test_bytes_that_are_no_request(stage: Stage) -> None:
    """Raw bytes in the target, TLS, another protocol: 400 and closed, with nothing asked."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    for junk in (
        box.get().replace(b"edge_token=", b"edge_token=\xff\xfe"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ):
        async with await stage.client() as client:
            answer = await client.ask(junk)
            assert (answer.status, answer.code) == (400, "bad_request")
            assert answer.value("connection") == "close"
            assert await client.at_end()
    assert stage.plane.asked == NOTHING


async def test_private_traffic_needs_its_second_key_before_a_wake(stage: Stage) -> None:
    """``allow_public_traffic: false``: a good edge token alone wakes nobody."""
    secret = b"a traffic access token"
    app = await stage.app()
    box = stage.sandbox(app, State.PAUSED, traffic_token_sha256=hashlib.sha256(secret).hexdigest())
    name = b"x-nullspace-traffic-access-token: "
    for fields, code in (
        (b"", "traffic_access_token_missing"),
        (name + b"guess\r\n", "traffic_access_token_invalid"),
        (name + secret + b"\r\n" + name + b"guess\r\n", "traffic_access_token_invalid"),
    ):
        for request in (
            box.get("/", fields),
            box.upgrade("/", fields),
            box.get("/", fields + box.cookie(), token=""),
            box.get("/", fields + box.proxy(), token=""),
        ):
            answer = await stage.ask(request)
            assert (answer.status, answer.code) == (401, code)
    assert stage.plane.counts["resume"] == 0
    assert (await stage.ask(box.get("/", name + secret + b"\r\n"))).status == 200
    assert secret not in app.requests[0]
    assert stage.plane.incarnations[box.id] == 1


async def test_guessing_is_budgeted(make_stage: MakeStage) -> None:
    """Bad signatures from one address are checked so many times a minute; known good tokens go on."""
    stage = await make_stage(tokens={"failures_per_minute": 5})
    box = stage.sandbox(await stage.app())
    good = box.token()
    assert (await stage.ask(box.get(token=good))).status == 200
    codes = [(await stage.ask(FORGERIES["another key"].request(box))).code for _ in range(8)]
    assert codes == ["edge_token_invalid"] * 5 + ["preview_overloaded"] * 3
    assert (await stage.ask(box.get(token=good))).status == 200
    assert stage.plane.asked == {"sandbox": 1, "grant": 1, "resume": 0}


async def test_guessing_is_charged_to_who_guesses(make_stage: MakeStage) -> None:
    """Not to the proxy in front, by which everybody comes, nor to an address that the guesser invents."""
    stage = await make_stage(
        tokens={"failures_per_minute": 5}, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"]
    )
    box = stage.sandbox(await stage.app())

    async def by(chain: str, *, forged: bool) -> Answer:
        fields = f"X-Forwarded-For: {chain}\r\n".encode()
        request = FORGERIES["another key"].request(box) if forged else box.get()
        return await stage.ask(request.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n", 1))

    chains = [f"192.0.2.{n}, 203.0.113.1, 10.0.0.9" for n in range(6)]
    codes = [(await by(chain, forged=True)).code for chain in chains]
    assert codes == ["edge_token_invalid"] * 5 + ["preview_overloaded"]
    assert (await by("203.0.113.1", forged=False)).code == "preview_overloaded"
    assert (await by("198.51.100.7, 10.0.0.9", forged=False)).status == 200
