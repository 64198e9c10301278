"""Our own proxies in front of the edge: which peers they are, and what is believed of those who come through."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Network, IPv6Network

from edge.core.head import Head
from edge.core.outbound import Peer, client_scheme, forwarded_for

_MAX_KNOWN = 4096


class Proxies:
    """Knows them by their networks, ``trusted``. ``public_scheme`` is the one by which the outside reaches the edge."""

    def __init__(
        self, trusted: tuple[IPv4Network | IPv6Network, ...], public_scheme: bytes
    ) -> None:
        self._trusted = trusted
        self._public_scheme = public_scheme
        self._known: dict[str, bool] = {}

    def trusts(self, address: str) -> bool:
        """Whether a peer is one of our own proxies."""
        if not self._trusted:
            return False
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = self._known[address] = self._in_trusted(address)
        return known

    def _in_trusted(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(ip, "ipv4_mapped", None)
        return any((mapped or ip) in network for network in self._trusted)

    def peer_of(self, address: str, head: Head) -> Peer:
        """Who asks, coming from this address, and by which scheme."""
        trusted = self.trusts(address)
        scheme = client_scheme(head, trusted, self._public_scheme)
        return Peer(address.encode("ascii", "replace"), trusted, scheme)

    def visitor_of(self, address: str, head: Head) -> str:
        """Whom to charge for a request: the peer, or who came to it where it is one of our own proxies."""
        if not (head.section.forwarded and self.trusts(address)):
            return address
        return forwarded_for(head, self.trusts) or address
