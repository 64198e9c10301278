"""Heads compared: what the edge has to keep, and what is its own."""

from __future__ import annotations

Fields = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
"""Fields each connection has of its own (RFC 9110 section 7.6.1); the edge writes them anew."""

ADDED_TO_REQUESTS = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"via"}
)

COOKIE = b"__Host-ns_preview="


def parsed(head: bytes) -> tuple[bytes, Fields]:
    """First line and fields, as they were sent."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    pairs = [line.partition(b":") for line in lines]
    return first, [(name, value.strip(b" \t")) for name, _, value in pairs]


def without(fields: Fields, *names: bytes, also: frozenset[bytes] = frozenset()) -> Fields:
    """The fields that are not named, in their order."""
    return [(name, value) for name, value in fields if name.lower() not in also.union(names)]


def end_to_end(fields: Fields) -> Fields:
    """The fields that are meant for the other end, spelling and order kept."""
    return without(fields, also=HOP_BY_HOP)


def without_cookie(fields: Fields) -> Fields:
    """An answer's fields without the edge's cookie and the one Cache-Control that goes with it."""
    cookies = [f for f in fields if f[0].lower() == b"set-cookie" and f[1].startswith(COOKIE)]
    if not cookies:
        return fields
    assert len(cookies) == 1
    at = fields.index(cookies[0])
    assert fields[at + 1] == (b"Cache-Control", b"private")
    return fields[:at] + fields[at + 2 :]


def judge_request(sent: bytes, came: bytes, token: str) -> None:
    """The app gets what was sent, less the token, and what the edge has to say."""
    (said, fields), (heard, got) = parsed(sent), parsed(came)
    for end in (b"&", b""):  # Between other pairs, or the last one or the only one.
        said = said.replace(b"edge_token=" + token.encode() + end, b"")
    said = said.replace(b"& HTTP", b" HTTP").replace(b"? HTTP", b" HTTP")
    assert said.replace(b" HTTP/1.0", b" HTTP/1.1") == heard
    kept = without(end_to_end(got), b"content-length", also=ADDED_TO_REQUESTS)
    assert kept == without(end_to_end(fields), b"content-length")
    # The edge writes the length itself, behind what is kept.
    assert _lengths(got) == _lengths(fields)
    own = [(name.lower(), value) for name, value in got if name.lower() in ADDED_TO_REQUESTS]
    added = dict(own)
    assert len(added) == len(own)
    assert added.pop(b"x-request-id")
    (host,) = (value for name, value in got if name.lower() == b"host")
    assert added == {
        b"x-forwarded-for": b"127.0.0.1",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-host": host,
        b"via": b"1.1 preview-edge",
    }


def judge_answer(came: bytes, sent: bytes) -> None:
    """The client gets the app's head: status, reason, and the fields in order and as they were spelled."""
    (heard, got), (said, fields) = parsed(came), parsed(sent)
    assert heard == said.replace(b"HTTP/1.0", b"HTTP/1.1")
    assert end_to_end(without_cookie(got)) == end_to_end(fields)


def _lengths(fields: Fields) -> list[bytes]:
    return [value for name, value in fields if name.lower() == b"content-length"]


def answers(data: bytes) -> list[bytes]:
    """The heads of an answer: those of 1xx, then the final one."""
    heads = []
    while True:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, f"no whole head in {head!r}"
        heads.append(head + end)
        if not head.startswith(b"HTTP/1.1 1") or head.startswith(b"HTTP/1.1 101"):
            return heads
