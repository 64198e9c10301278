"""Outbound: the heads the edge writes, to upstreams and to clients, built anew from what was understood.

Kept lines go out as they came in, in order; everything that frames, routes or authorises is written
by the edge. One join a head, because this runs for every request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from edge.core.answer import Answer
from edge.core.credentials import Family
from edge.core.decision import Forward
from edge.core.head import Head, strip_query_credentials
from edge.core.section import Section

_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
_FORWARDED = b"forwarded"
_X_FORWARDED = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b"
_PROXIES = 16
"""Entries of X-Forwarded-For that are looked at, from its end: no chain of our own proxies is longer."""
# RFC 9110 section 7.2: uri-host [":" port], by the characters of RFC 3986 section 3.2.2.
_HOST_VALUE = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]+")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the client's connection, and what the client sees of us.

    ``address`` is the peer's IP address as text. ``trusted``: it is one of our own proxies, whose
    X-Forwarded-* are believed. ``scheme`` is the one the client used, ``http`` or ``https``.
    """

    address: bytes
    trusted: bool
    scheme: bytes


@dataclass(slots=True)
class Outward:
    """What a `Section` becomes on its way to the upstream.

    ``instead`` says what goes out in the place of a line (nothing = it is dropped); lines it does not
    name go out as they are. ``added`` is what the edge says, up to the value of X-Request-Id. ``lines``
    are those of the latest request, ``made`` the whole section that came of them.
    """

    instead: dict[bytes, bytes]
    added: bytes
    lines: list[bytes] | None = None
    made: bytes = b""


def outward(section: Section, way: Forward, peer: Peer, cookie_name: bytes) -> Outward:
    """Depends on nothing but the arguments, so that requests which share them share it (`Passage`)."""
    instead = section.outward.copy()
    if way.record.mask_request_host is not None:
        _mask_host(instead, section, way.record.mask_request_host, way.access.target.port)
    for line, value in section.cookies:
        instead[line] = _strip_cookie(line, value, cookie_name)
    for line, value in section.referers:
        stripped = strip_query_credentials(value)
        if stripped != value:
            instead[line] = b"Referer: " + stripped
    added = []
    if section.length is not None:
        added.append(b"Content-Length: %d" % section.length)
    elif section.chunked:
        added.append(b"Transfer-Encoding: chunked")
    if section.websocket:
        added.append(b"Connection: Upgrade\r\nUpgrade: websocket")
    if way.access.family is Family.PROXY:
        added += [entry.line for entry in section.forwarded]
    else:
        added.append(_forwarded(section, peer))
    return Outward(instead, b"\r\n".join([*added, b"X-Request-Id: "]))


def request_head(head: Head, way: Outward, request_id: bytes) -> bytes:
    """The head that goes to the upstream, with its empty line."""
    lines = head.lines
    if way.lines is not lines:
        kept = filter(None, map(way.instead.get, lines, lines))
        way.lines, way.made = lines, b"\r\n".join([*kept, way.added])
    return b"%b %b HTTP/1.1\r\n%b%b\r\nVia: 1.1 preview-edge\r\n\r\n" % (
        head.method, head.target, way.made, request_id,
    )  # fmt: skip


def _mask_host(instead: dict[bytes, bytes], section: Section, mask: str, port: int) -> None:
    """Put the record's Host in the place of the public one.

    The mask is a sandbox owner's text: one with a CR LF in it would write further fields, or a whole
    request. What cannot be a Host is passed over, here and not where records are read: a record
    refused there would take the watch down, and every other sandbox's freshness with it.
    """
    masked = mask.replace("${PORT}", str(port))
    if _HOST_VALUE.fullmatch(masked):
        instead[section.host_line] = b"Host: " + masked.encode("ascii")


def _strip_cookie(line: bytes, value: bytes, name: bytes) -> bytes:
    """Take the continuation cookie out; other cookies stay byte for byte, an emptied line goes."""
    if name not in value:
        return line
    pairs = value.split(b";")
    kept = [pair for pair in pairs if pair.strip(b" \t").partition(b"=")[0] != name]
    if len(kept) == len(pairs):
        return line
    rest = b";".join(kept).lstrip(b" \t")
    return b"Cookie: " + rest if rest else b""


def _forwarded(section: Section, peer: Peer) -> bytes:
    """X-Forwarded-For, -Proto and -Host: the truth, appended to what a trusted proxy said."""
    if not (peer.trusted and section.forwarded):
        return _X_FORWARDED % (peer.address, peer.scheme, section.host)
    said: dict[bytes, list[bytes]] = {}
    others = b""
    for entry in section.forwarded:
        if entry.name in (_FOR, _PROTO, _HOST, _FORWARDED):
            said.setdefault(entry.name, []).append(entry.value)
        else:
            others += b"\r\n" + entry.line
    # Several lines are one list, in their order (RFC 9110 section 5.3): apps count from its end.
    chain = [value for value in said.get(_FOR, ()) if value] + [peer.address]
    hosts = said.get(_HOST, ())
    host = hosts[0] if len(hosts) == 1 else section.host
    nodes = [value for value in said.get(_FORWARDED, ()) if value]
    if nodes:
        # RFC 7239 section 6: an IPv6 address stands in brackets, and those in quotes.
        nodes.append(
            b'for="[%b]"' % peer.address if b":" in peer.address else b"for=" + peer.address
        )
        others += b"\r\nForwarded: " + b", ".join(nodes)
    return _X_FORWARDED % (b", ".join(chain), peer.scheme, host) + others


def client_scheme(head: Head, trusted: bool, public_scheme: bytes) -> bytes:
    """The scheme the client used: ours, unless a trusted proxy says otherwise, exactly and once."""
    if trusted and head.section.forwarded:
        said = [entry.value.lower() for entry in head.section.forwarded if entry.name == _PROTO]
        if len(said) == 1 and said[0] in (b"http", b"https"):
            return said[0]
    return public_scheme


def forwarded_for(head: Head, trusts: Callable[[str], bool]) -> str | None:
    """The address that X-Forwarded-For gives for the client of a trusted proxy; None where it gives none.

    Each of our own proxies has appended who came to it: the last address that is not one of theirs counts.
    """
    said = b",".join(entry.value for entry in head.section.forwarded if entry.name == _FOR)
    for node in reversed(said.split(b",")[-_PROXIES:]):
        address = node.strip(b" \t").decode("latin-1")
        try:
            ip_address(address)
        except ValueError:
            return None
        if not trusts(address):
            return address
    return None


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


def plain_head(answer: Answer) -> bytes:
    """`answer_head` of the common case: for HTTP/1.1, going on, no cookie. Made once for an `Answer`."""
    if not answer.plain:
        answer.plain = answer_head(
            answer, chunked=answer.length is None, close=False, minor=1, cookie=None
        )
    return answer.plain


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
