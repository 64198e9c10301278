"""The keys that sign preview tokens: files in the data directory, followed while we run.

`edge.state.keyfiles` says how files and the clock make a rotation. Files that come or go are noticed
without a signal or a restart: whoever mints a token or asks for the public keys looks at the folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edge.appliance.requests import LONGEST_TTL
from edge.core.credentials import Key
from edge.state.keyfiles import (
    KeyFile,
    KeyFileError,
    believed,
    jwks,
    make_key,
    names,
    read_keys,
    signer,
)


def _unheard(event: str, **fields: object) -> None:
    """Nobody listens."""


class SigningKeys:
    """The keys of a folder. ``wall`` is Unix time; ``log`` hears of keys that change or cannot be used.

    The first key is made where there is none. Raises `KeyFileError`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wall: Callable[[], float] = time.time,
        log: Callable[..., None] = _unheard,
    ) -> None:
        self._folder = folder
        self._wall = wall
        self._log = log
        self._trouble = ""
        self._seen = names(folder)
        if not self._seen:
            make_key(folder, None)
            self._seen = names(folder)
        self._keys = read_keys(folder)

    @property
    def key(self) -> Key:
        """The key that signs now."""
        return signer(self._followed(), self._wall()).key

    @property
    def jwks(self) -> dict[str, object]:
        """The public keys of all tokens that have not expired, and of those that will sign soon."""
        return jwks(believed(self._followed(), self._wall(), LONGEST_TTL))

    def _followed(self) -> tuple[KeyFile, ...]:
        """The keys as the folder has them now; the last good ones while it has none that can be used."""
        try:
            seen = names(self._folder)
            if seen and seen != self._seen:
                self._keys, self._seen = read_keys(self._folder), seen
                self._trouble = ""
                self._log("keys_changed", kids=[key.key.kid for key in self._keys])
        except KeyFileError as e:
            if str(e) != self._trouble:
                self._trouble = str(e)
                self._log("keys_unusable", error=self._trouble)
        return self._keys
