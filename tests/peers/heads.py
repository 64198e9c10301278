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


def added_to_requests(fields: Fields) -> dict[bytes, bytes]:
    """What the edge said to the app. Fails if it says anything twice."""
    own = [(name.lower(), value) for name, value in fields if name.lower() in ADDED_TO_REQUESTS]
    assert len(dict(own)) == len(own)
    return dict(own)


def without_cookie(fields: Fields) -> Fields:
    """An answer's fields without the edge's cookie and the one Cache-Control that goes with it."""
    cookies = [f for f in fields if f[0].lower() == b"set-cookie" and f[1].startswith(COOKIE)]
    if not cookies:
        return fields
    assert len(cookies) == 1
    at = fields.index(cookies[0])
    assert fields[at + 1] == (b"Cache-Control", b"private")
    return fields[:at] + fields[at + 2 :]
