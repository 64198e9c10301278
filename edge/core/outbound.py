"""Outbound: the heads the edge writes, to upstreams and to clients, built anew from what was understood.

Kept lines go out as they came in, in order; everything that frames, routes or authorises is written
by the edge. One join a head, because this runs for every request.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.core.answer import Answer
from edge.core.credentials import Family
from edge.core.decide import Forward
from edge.core.head import Head, strip_query_credentials

VIA = b"Via: 1.1 preview-edge"
_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the client's connection, and what the client sees of us.

    ``address`` is the peer's IP address as text. ``trusted``: it is one of our own proxies, whose
    X-Forwarded-* are believed. ``scheme`` is the one the client used, ``http`` or ``https``.
    """

    address: bytes
    trusted: bool
    scheme: bytes


def request_head(
    head: Head, way: Forward, peer: Peer, cookie_name: bytes, request_id: bytes
) -> bytes:
    """The head that goes to the upstream, with its empty line."""
    lines = head.lines
    if way.record.mask_request_host is not None:
        port = str(way.access.target.port)
        masked = way.record.mask_request_host.replace("${PORT}", port)
        lines[head.host_at] = b"Host: " + masked.encode("latin-1", "replace")
    if head.cookies:
        _strip_cookies(head, cookie_name)
    for index, value in head.referers:
        if b"edge_token=" in value or b"__ns_preview_transport=" in value:
            lines[index] = b"Referer: " + strip_query_credentials(value)
    out = [head.method + b" " + head.target + b" HTTP/1.1", *filter(None, lines)]
    if head.length is not None:
        out.append(b"Content-Length: %d" % head.length)
    elif head.chunked:
        out.append(b"Transfer-Encoding: chunked")
    if head.websocket:
        out.append(b"Connection: Upgrade\r\nUpgrade: websocket")
    if way.access.family is Family.PROXY:
        out += [entry.line for entry in head.forwarded]
    else:
        out.append(_forwarded(head, peer))
    out.append(b"X-Request-Id: " + request_id + b"\r\n" + VIA + b"\r\n\r\n")
    return b"\r\n".join(out)


def _strip_cookies(head: Head, name: bytes) -> None:
    """Take the continuation cookie out; other cookies stay byte for byte, an emptied line goes."""
    for index, value in head.cookies:
        if name in value:
            pairs = value.split(b";")
            kept = [p for p in pairs if p.strip(b" \t").partition(b"=")[0] != name]
            if len(kept) < len(pairs):
                rest = b";".join(kept).lstrip(b" \t")
                head.lines[index] = b"Cookie: " + rest if rest else b""


def _forwarded(head: Head, peer: Peer) -> bytes:
    """X-Forwarded-For, -Proto and -Host: the truth, appended to what a trusted proxy said."""
    chain, proto, host = peer.address, peer.scheme, head.host
    extra = b""
    if peer.trusted:
        for entry in head.forwarded:
            if entry.name == _FOR:
                chain = entry.value + b", " + chain if entry.value else chain
            elif entry.name == _HOST:
                host = entry.value
            elif entry.name == b"forwarded":
                node = b'"[' + peer.address + b']"' if b":" in peer.address else peer.address
                extra += b"\r\n" + entry.line + b", for=" + node
            elif entry.name != _PROTO:
                extra += b"\r\n" + entry.line
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b"
        % (chain, proto, host)
        + extra
    )


def client_scheme(head: Head, trusted: bool, public_scheme: bytes) -> bytes:
    """The scheme the client used: ours, unless a trusted proxy says otherwise, exactly and once."""
    if trusted and head.forwarded:
        said = [entry.value.lower() for entry in head.forwarded if entry.name == _PROTO]
        if len(said) == 1 and said[0] in (b"http", b"https"):
            return said[0]
    return public_scheme


def answer_head(
    answer: Answer, *, chunked: bool, close: bool, minor: int, cookie: bytes | None
) -> bytes:
    """The head that goes to the client, with its empty line.

    ``chunked``: the edge frames the body so. ``close``: the connection ends with this answer.
    ``minor``: the client's HTTP/1 minor version. ``cookie``: a Set-Cookie line of the edge.
    """
    out = [answer.status_line, *answer.lines]
    if chunked:
        out.append(b"Transfer-Encoding: chunked")
    if cookie is not None:
        # The answer now belongs to one visitor, whatever the app said about caching.
        out += [cookie, b"Cache-Control: private"]
    if close:
        out.append(b"Connection: close")
    elif minor == 0:
        out.append(b"Connection: keep-alive")
    out.append(b"\r\n")
    return b"\r\n".join(out)


def interim_head(answer: Answer) -> bytes:
    """A 1xx head for the client (RFC 9110 section 15.2)."""
    return b"\r\n".join([answer.status_line, *answer.lines, b"\r\n"])


def upgrade_head(answer: Answer) -> bytes:
    """The upstream's 101 for the client."""
    out = [
        answer.status_line,
        *answer.lines,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"\r\n",
    ]
    return b"\r\n".join(out)
