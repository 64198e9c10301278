"""The keys that are believed: fetched or read, refreshed, and kept when a refresh fails."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path

import aiohttp

from edge.core.credentials import Key, Keys, keys_from_jwks
from edge.core.reports import Observer
from edge.core.settings import CookieSettings, HmacKey, TokenSettings
from edge.state.calls import failure, open_session, read_bounded

MAX_JWKS = 256 * 1024
"""Bytes of a key set that are read."""

FETCH_TIMEOUT = 5.0
"""Seconds for one download of the key set."""

HINT_INTERVAL = 5.0
"""Seconds between attempts at most, however often an unknown key id asks for an early one."""

FIRST_RETRY = 0.5
"""Seconds until the second attempt after a failure; doubled with each, up to the refresh interval."""


class KeysUnusable(Exception):
    """No key set could be had from where the settings say. The message is one line for people."""


class KeyStore:
    """Whose signatures count: the control plane's keys, shared secrets, and the fleet's cookie keys.

    ``on_change`` is called with the new set whenever the keys really differ, never for a mere
    refresh. A configured secret stands before a published key of the same id. Raises ValueError when
    two configured keys of one kind have the same id.
    """

    def __init__(
        self,
        settings: TokenSettings,
        cookie: CookieSettings,
        on_change: Callable[[Keys], None],
        observer: Observer,
        *,
        hint_interval: float | None = None,
        first_retry: float = FIRST_RETRY,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._file = settings.jwks_file
        self._url = settings.jwks_url
        self._refresh = settings.jwks_refresh
        self._secrets = _hmac_keys("tokens.hs256", settings.hs256)
        self._keys = Keys(dict(self._secrets), _hmac_keys("cookie.keys", cookie.keys))
        self._on_change = on_change
        self._observer = observer
        self._hint_interval = HINT_INTERVAL if hint_interval is None else hint_interval
        self._first_retry = first_retry
        self._jitter = jitter
        self._hinted = asyncio.Event()
        self._over = asyncio.Event()  # of the attempt under way, or the next one
        self._under_way = False
        self._last = -inf  # loop time at which the last attempt ended
        self._ready = self._file is None and self._url is None
        self._failures = 0

    @property
    def keys(self) -> Keys:
        """The keys believed now. Until the first load there are only the configured secrets."""
        return self._keys

    @property
    def ready(self) -> bool:
        """Whether the key set was loaded at least once (or there is none to load)."""
        return self._ready

    def hint(self) -> asyncio.Event | None:
        """A token named a key id we do not know: look for new keys soon. Cheap, call it freely.

        Returns what is set once an attempt is over that is under way or begins at once. None: there is
        no such attempt, because the last one was less than ``hint_interval`` ago (the next one comes as
        soon as that is over) or because there is nowhere to look.
        """
        if self._file is None and self._url is None:
            return None
        if self._under_way:
            return self._over
        self._hinted.set()
        due = asyncio.get_running_loop().time() >= self._last + self._hint_interval
        return self._over if due else None

    async def load(self) -> None:
        """The first load.

        Raises `KeysUnusable` for a file, which nobody will repair by waiting. A URL that does not
        answer yet is left to `run`, because the control plane may start after the edge.
        """
        try:
            await self._attempt()
        except KeysUnusable:
            if self._file is not None:
                raise

    async def run(self) -> None:
        """Refresh until cancelled: at the interval, after failures sooner, on a hint at once."""
        if self._file is None and self._url is None:
            return
        while True:
            await self._until(self._last + self._delay(), self._last + self._hint_interval)
            self._hinted.clear()
            try:
                await self._attempt()
            except KeysUnusable:
                continue  # told to the observer; the last good set stays

    async def _until(self, due: float, earliest: float) -> None:
        """Sleep until ``due``, or after a hint only until ``earliest``. Both are loop times."""
        try:
            async with asyncio.timeout_at(due):
                await self._hinted.wait()
                await asyncio.sleep(earliest - asyncio.get_running_loop().time())
        except TimeoutError:
            pass

    def _delay(self) -> float:
        if not self._ready and not self._failures:
            return 0.0
        if not self._failures:
            # A fleet started at once shall not ask at once for ever.
            return self._refresh * (0.9 + 0.2 * self._jitter())
        steps = min(self._failures - 1, 16)
        return min(self._first_retry * 2.0**steps, self._refresh) * (0.5 + 0.5 * self._jitter())

    async def _attempt(self) -> None:
        """One load. Raises `KeysUnusable`, after the observer was told."""
        self._under_way = True
        try:
            await self._load_issued()
        finally:
            self._under_way = False
            self._last = asyncio.get_running_loop().time()
            over, self._over = self._over, asyncio.Event()
            over.set()

    async def _load_issued(self) -> None:
        try:
            issued = await _issued(self._file, self._url)
        except KeysUnusable as e:
            self._failures += 1
            self._observer.event("keys_unusable", reason=str(e), ready=self._ready)
            raise
        self._failures = 0
        self._ready = True
        new = Keys(issued | self._secrets, self._keys.continuation)
        if new != self._keys:
            self._keys = new
            self._observer.event("keys_changed", kids=sorted(new.issued))
            self._on_change(new)


async def keys_now(tokens: TokenSettings, cookie: CookieSettings) -> Keys:
    """The keys that these settings lead to at this moment. Raises `KeysUnusable`, ValueError."""
    secrets = _hmac_keys("tokens.hs256", tokens.hs256)
    issued = await _issued(tokens.jwks_file, tokens.jwks_url)
    return Keys(issued | secrets, _hmac_keys("cookie.keys", cookie.keys))


async def _issued(file: Path | None, url: str | None) -> dict[str, Key]:
    if file is not None:
        return _parsed(f"tokens.jwks_file {file}", await _read(file))
    if url is not None:
        return _parsed("tokens.jwks_url", await _fetch(url))
    return {}


def _hmac_keys(name: str, entries: Iterable[HmacKey]) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    for entry in entries:
        if not entry.kid or entry.kid in keys:
            raise ValueError(f"{name}: every key needs a kid of its own, {entry.kid!r} is not")
        keys[entry.kid] = Key(entry.kid, "HS256", entry.secret.get_secret_value())
    return keys


def _parsed(source: str, text: bytes) -> dict[str, Key]:
    try:
        return keys_from_jwks(json.loads(text))
    except (ValueError, RecursionError) as e:
        # The text itself is not shown: somebody may have named a file with a private key.
        why = "not JSON" if isinstance(e, json.JSONDecodeError | UnicodeDecodeError) else e
        raise KeysUnusable(f"{source}: {why}") from None


async def _read(file: Path) -> bytes:
    def read() -> bytes:
        if not file.is_file():
            # Opening a pipe would wait for a writer.
            raise FileNotFoundError(2, "there is no such file")
        with file.open("rb") as opened:
            return opened.read(MAX_JWKS + 1)

    try:
        text = await asyncio.to_thread(read)
    except OSError as e:
        raise KeysUnusable(f"tokens.jwks_file {file}: {e.strerror}") from None
    if len(text) > MAX_JWKS:
        raise KeysUnusable(f"tokens.jwks_file {file}: more than {MAX_JWKS} bytes")
    return text


async def _fetch(url: str) -> bytes:
    # One session per fetch: once a minute, an idle connection would be stale anyway.
    try:
        async with (
            asyncio.timeout(FETCH_TIMEOUT),
            open_session() as session,
            session.get(url) as answer,
        ):
            if answer.status != 200:
                raise KeysUnusable(f"tokens.jwks_url: status {answer.status}")
            return await read_bounded(answer, MAX_JWKS)
    except (aiohttp.ClientError, OSError, ValueError) as e:
        raise KeysUnusable(f"tokens.jwks_url: {failure(e, FETCH_TIMEOUT)}") from None
