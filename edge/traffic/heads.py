"""What a client has sent and nobody has used yet, and the request heads that are cut off it."""

from __future__ import annotations

import re

from edge.core import errors
from edge.core.errors import EdgeError
from edge.core.fields import has_half_end
from edge.core.head import Head, RequestScanner, glimpse
from edge.core.section import Section
from edge.core.settings import LimitSettings

_EMPTY_LINES = re.compile(rb"(?:\r\n)+")

_SECTIONS = 4
"""Header sections a connection remembers while it is busy: a page's own, its scripts', its images', ..."""


class HeadBuffer:
    """The unused bytes of one connection. Looks at each byte of a head once, however few come at a time.

    ``data`` is what a read brought, as it came, for as long as that is one whole head. What comes in
    pieces, or many heads at a time, is collected in a bytearray: bytes would be copied for every
    read that adds to them, and for every head that is cut off them.
    """

    __slots__ = ("_limits", "_refused", "_scanner", "_searched", "_sections", "data")

    def __init__(self, scanner: RequestScanner, limits: LimitSettings) -> None:
        self._scanner = scanner
        self._limits = limits
        self._refused = b""  # the head that `head` has cut off and found to be bad
        self._searched = 0  # how much of ``data`` is known to hold no end of a head
        self._sections: tuple[Section, ...] = ()  # of the last requests, the newest first
        self.data: bytes | bytearray = b""

    def __len__(self) -> int:
        return len(self.data)

    def add(self, data: bytes) -> None:
        """More bytes have come."""
        if self.data:
            self._collect().extend(data)
        else:
            self.data = data

    def _collect(self) -> bytearray:
        """``data``, so that it can be added to and cut in place."""
        data = self.data
        if not isinstance(data, bytearray):
            data = self.data = bytearray(data)
        return data

    def take(self) -> bytes:
        """All of it; the caller uses it now."""
        data, self.data, self._searched = self.data, b"", 0
        return bytes(data)

    def give_back(self, data: bytes) -> None:
        """Bytes that were taken and belong to the next request."""
        self.data = data + self.data if self.data else data
        self._searched = 0

    def forget_sections(self) -> None:
        """Forget what is remembered of earlier requests: credentials, and 4 kB each."""
        self._sections = ()

    def head(self) -> Head | None:
        """Cut the next head off; None while it is incomplete. Raises `EdgeError`."""
        data = self.data
        if data[:2] == b"\r\n":
            # RFC 9112 section 2.2: empty lines before a request are ignored; all of them, or what a
            # client gets would depend on how its bytes are cut into reads.
            lines = _EMPTY_LINES.match(data)
            assert lines is not None
            length = lines.end()
            del lines  # it would forbid to cut what it has matched
            data = self._cut(length)
        end = data.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._check_start(data)
            return None
        if end > self._limits.header_bytes:
            raise errors.too_large("limits.header_bytes")
        block = bytes(data[:end])
        if end + 4 == len(data):
            self.data, self._searched = b"", 0
        else:
            self._cut(end + 4)
        try:
            head = self._scanner.scan(block, self._sections)
        except EdgeError:
            self._refused = block
            raise
        section, recent = head.section, self._sections
        if not recent or recent[0] is not section:
            others = [known for known in recent if known is not section]
            self._sections = (section, *others[: _SECTIONS - 1])
        return head

    def glimpse(self) -> Head | None:
        """Who sent the head that was refused, or is not complete, as far as that can be told."""
        return glimpse(self._refused or bytes(self.data[: self._limits.header_bytes]))

    def _cut(self, length: int) -> bytearray:
        """Drop so many bytes from the start; the rest."""
        self._searched = 0
        data = self._collect()
        del data[:length]
        return data

    def _check_start(self, data: bytes | bytearray) -> None:
        """Refuse at once what cannot become a head any more, rather than wait for its end."""
        if len(data) > self._limits.header_bytes:
            raise errors.too_large("limits.header_bytes")
        if has_half_end(data, self._searched):
            raise errors.bad_request("lines must end with CR LF")
        self._searched = len(data)
        self._collect()
