"""The continuation cookie: what lets a browser go on after the first request of a signed link.

It says what the edge token said, no longer than the edge token, signed with the fleet's own key, and it
is for HTTP only (contract: credentials).
"""

from __future__ import annotations

from collections.abc import Callable

from edge.core.credentials import Claims, Family, Keys, sign
from edge.core.decide import cookie_values
from edge.core.head import Head

_MAX_MINTED = 4096


class Continuation:
    """Mints cookies and remembers them: the same claims always get the same cookie. Bounded."""

    def __init__(self, keys: Callable[[], Keys], wall: Callable[[], float]) -> None:
        self._keys = keys
        self._wall = wall
        self._minted: dict[tuple[str, Claims], bytes] = {}

    @staticmethod
    def name(scheme: bytes) -> bytes:
        """The cookie's name; the prefix ``__Host-`` (RFC 6265bis section 4.1.3.2) needs https."""
        return b"__Host-ns_preview" if scheme == b"https" else b"ns_preview"

    def set_cookie(self, head: Head, claims: Claims, scheme: bytes) -> bytes | None:
        """The Set-Cookie line for these claims; None when the client shows that it has the cookie."""
        name = self.name(scheme)
        value = self._value(claims)
        if value in cookie_values(head, name):
            return None
        age = max(0, int(claims.exp - self._wall()))
        secure = b"; Secure" if scheme == b"https" else b""
        return b"Set-Cookie: %b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b" % (
            name, value, age, secure,
        )  # fmt: skip

    def _value(self, claims: Claims) -> bytes:
        key = next(iter(self._keys().continuation.values()))
        value = self._minted.get((key.kid, claims))
        if value is None:
            if len(self._minted) >= _MAX_MINTED:
                self._minted.clear()
            value = sign(claims, Family.CONTINUATION, key).encode("ascii")
            self._minted[key.kid, claims] = value
        return value
