"""From a grant to what its holder is given: preview URLs with tokens, or a target for a proxy.

The families of tokens, their claims and the marker in a proxy's URLs are what the edge reads
(``edge/core/credentials.py``, ``edge/core/head.py``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from edge.appliance.grant import PRINCIPAL, AuthMode, Grant
from edge.appliance.problems import UNSUPPORTED_PREVIEW_PORT, ApiError
from edge.core.credentials import Claims, Family, Key, sign
from edge.core.records import Transport
from edge.core.target import Site, supported_port

MARKER = "__ns_preview_transport=header"
"""In a proxy's URLs: the credential is in the header. Not a secret."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A fresh grant and the URLs that carry its tokens. ``host`` has the port where one is needed."""

    grant: Grant
    host: str
    url: str = field(repr=False)
    websocket_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Way:
    """One transport of a proxy target: the URL without a credential, and the token for the header."""

    url: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProxyTarget:
    """A fresh grant for a customer's own proxy; None = a transport that was not asked for."""

    grant: Grant
    http: Way | None
    websocket: Way | None


class Minter:
    """Signs tokens. `site` and `reserved` are set anew once the edge's port is known.

    ``signing`` tells the key that signs now.
    """

    def __init__(
        self, signing: Callable[[], Key], *, issuer: str, site: Site, reserved: frozenset[int]
    ) -> None:
        self._signing = signing
        self._issuer = issuer
        self.site = site
        self.reserved = reserved

    def port(self, value: object) -> int:
        """A port that can be previewed. Raises `ApiError` (unsupported_preview_port)."""
        supported = type(value) is int and supported_port(value) and value not in self.reserved
        if not supported:
            shown = value if type(value) is int and abs(value) < 2**53 else str(value)[:32]
            raise ApiError(UNSUPPORTED_PREVIEW_PORT, details={"port": shown})
        assert isinstance(value, int)
        return value

    def preview(self, grant: Grant) -> Preview:
        """The URLs; HTTP and WebSocket carry tokens of their own."""
        return Preview(
            grant,
            self._host(grant),
            self._url(
                grant, Transport.HTTP, f"edge_token={quote(self._token(grant, Transport.HTTP))}"
            ),
            self._url(
                grant,
                Transport.WEBSOCKET,
                f"edge_token={quote(self._token(grant, Transport.WEBSOCKET))}",
            ),
        )

    def proxy_target(self, grant: Grant) -> ProxyTarget:
        """The transports the grant is for, each with a token of its own."""
        ways = {
            kind: Way(self._url(grant, kind, MARKER), self._token(grant, kind))
            for kind in grant.kinds
        }
        return ProxyTarget(grant, ways.get(Transport.HTTP), ways.get(Transport.WEBSOCKET))

    def place(self, grant: Grant) -> str:
        """Where a grant leads, without a credential."""
        return f"{self.site.scheme}://{self._host(grant)}/"

    def _host(self, grant: Grant) -> str:
        site = self.site
        usual = {"http": 80, "https": 443}[site.scheme]
        suffix = f":{site.port}" if site.port not in (0, usual) else ""
        label = grant.sandbox_id.replace("_", "-")
        return f"{grant.port}-{label}.{site.hostname}{suffix}"

    def _url(self, grant: Grant, kind: Transport, query: str) -> str:
        scheme: str = self.site.scheme
        if kind is Transport.WEBSOCKET:
            scheme = scheme.replace("http", "ws")
        return f"{scheme}://{self._host(grant)}/?{query}"

    def _token(self, grant: Grant, kind: Transport) -> str:
        claims = Claims(
            iss=self._issuer,
            aud=self.site.hostname,
            sub=grant.sandbox_id,
            port=grant.port,
            kind=kind,
            grant=grant.id,
            principal=PRINCIPAL,
            iat=grant.issued_at,
            exp=grant.expires_at,
            jti=secrets.token_hex(16),
        )
        return sign(claims, _FAMILIES[grant.mode], self._signing())


_FAMILIES = {AuthMode.DIRECT: Family.EDGE, AuthMode.PROXY: Family.PROXY}
