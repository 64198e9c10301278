"""Links to one file of one sandbox that need no key: signed, for reading or for writing, for a while."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping

from edge.appliance.requests import DEFAULT_TTL


class FileLinks:
    """Signs and checks. The key lives as long as the process, and so do the links at most.

    ``wall`` is Unix time in seconds.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._key = secrets.token_bytes(32)

    def sign(self, method: str, sandbox: str, path: str) -> dict[str, str]:
        """The query of a link: ``path``, ``expires`` (Unix time), ``signature``."""
        expires = str(int(self._wall()) + DEFAULT_TTL)
        signature = self._signature(method, sandbox, path, expires)
        return {"path": path, "expires": expires, "signature": signature}

    def good(self, method: str, sandbox: str, query: Mapping[str, str]) -> bool:
        """Whether the query was signed for this, and its time has not come."""
        path, expires = query["path"], query["expires"]
        wanted = self._signature(method, sandbox, path, expires)
        # As bytes: a signature from outside may hold any character.
        if not hmac.compare_digest(wanted.encode(), query["signature"].encode("utf-8", "replace")):
            return False
        return self._wall() < int(expires)

    def _signature(self, method: str, sandbox: str, path: str, expires: str) -> str:
        signed = json.dumps([method, sandbox, expires, path])  # Unambiguous, and ASCII.
        return hmac.new(self._key, signed.encode(), hashlib.sha256).hexdigest()
