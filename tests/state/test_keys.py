"""The key store: files and URLs that appear, change, break and come back; hints; secrets."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from edge.core.settings import CookieSettings, HmacKey, TokenSettings
from edge.state import keys as keys_module
from edge.state.keys import KeyStore, KeysUnusable

SECRET = "a shared secret, long enough to be one"
COOKIE = CookieSettings(
    keys=(HmacKey(kid="c2", secret=SECRET + "2"), HmacKey(kid="c1", secret=SECRET + "1"))
)


def jwks(*kids: str, private: bool = False) -> bytes:
    """A key set with a fresh key for each id."""
    made = {kid: Ed25519PrivateKey.generate() for kid in kids}
    entries = [
        json.loads(OKPAlgorithm.to_jwk(key if private else key.public_key())) | {"kid": kid}
        for kid, key in made.items()
    ]
    return json.dumps({"keys": entries}).encode()


@dataclass
class Watcher:
    """Hears what the store says, and lets tests wait for it."""

    changes: list = field(default_factory=list)
    events: list = field(default_factory=list)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self, keys) -> None:
        """The callback of the store."""
        self.changes.append(keys)
        self.woken.set()

    def event(self, name, **fields) -> None:
        """The observer's part the store uses."""
        self.events.append((name, fields))
        self.woken.set()

    async def until(self, condition) -> None:
        """Wait until something that was heard makes the condition true."""
        async with asyncio.timeout(5):
            while not condition():
                self.woken.clear()
                await self.woken.wait()


def store(watcher, **tokens) -> KeyStore:
    """A store that refreshes and retries at the speed of tests."""
    pace = {
        "hint_interval": tokens.pop("hint_interval", 0.01),
        "first_retry": tokens.pop("first_retry", 0.01),
    }
    return KeyStore(
        TokenSettings(**tokens), COOKIE, watcher.changed, watcher, jitter=lambda: 0.5, **pace
    )


@asynccontextmanager
async def running(made: KeyStore):
    """Have the refresh loop run meanwhile."""
    task = asyncio.create_task(made.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# --- Files ---------------------------------------------------------------------------------------


async def test_a_file_is_loaded(tmp_path):
    """The keys of the file are believed, the cookie keys stand beside them in their order."""
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks("a", "b"))
    watcher = Watcher()
    made = store(watcher, jwks_file=file)
    assert not made.ready
    assert made.keys.issued == {}
    assert list(made.keys.continuation) == ["c2", "c1"]
    await made.load()
    assert made.ready
    assert set(made.keys.issued) == {"a", "b"}
    assert list(made.keys.continuation) == ["c2", "c1"]
    assert watcher.changes == [made.keys]
    assert {key.alg for key in made.keys.issued.values()} == {"EdDSA"}
    assert {key.alg for key in made.keys.continuation.values()} == {"HS256"}


BROKEN = {
    "empty": (b"", "not JSON"),
    "not JSON": (b"-----BEGIN PRIVATE KEY-----\nhunter2", "not JSON"),
    "not UTF-8": (b"\xff\xfe\xff", "not JSON"),
    "no set": (b"[]", "not a JWK set"),
    "no key": (b'{"keys": []}', "no usable signing key"),
    "deep": (b"[" * 200_000, ""),
    "too long": (jwks("a") + b" " * keys_module.MAX_JWKS, "more than"),
}


@pytest.mark.parametrize(("text", "why"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_file_is_one_clear_line(tmp_path, text, why):
    """The first load of a bad file fails with its name and the reason, and shows none of it."""
    file = tmp_path / "jwks.json"
    file.write_bytes(text)
    watcher = Watcher()
    with pytest.raises(KeysUnusable) as caught:
        await store(watcher, jwks_file=file).load()
    message = str(caught.value)
    assert str(file) in message
    assert why in message
    assert "\n" not in message
    assert "hunter2" not in message
    assert [name for name, _ in watcher.events] == ["keys_unusable"]
    assert watcher.changes == []


async def test_files_that_are_none(tmp_path):
    """A missing file, a folder and a pipe nobody writes to are told, and none of them blocks."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path / "missing.json", tmp_path, pipe):
        with pytest.raises(KeysUnusable, match="no such file"):
            await store(Watcher(), jwks_file=path).load()


async def test_private_keys_in_the_file_are_refused(tmp_path):
    """Somebody who points the edge at the signing keys is told so, not served."""
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks("a", private=True))
    with pytest.raises(KeysUnusable, match="no usable signing key"):
        await store(Watcher(), jwks_file=file).load()


async def test_a_changed_file_is_noticed(tmp_path):
    """A new file is taken at the next refresh; the same keys in other words are no change."""
    file = tmp_path / "jwks.json"
    first = jwks("a")
    file.write_bytes(first)
    watcher = Watcher()
    made = store(watcher, jwks_file=file, jwks_refresh=0.01)
    await made.load()
    reads = []
    real = keys_module._read

    async def counted(path):
        reads.append(path)
        watcher.woken.set()
        return await real(path)

    keys_module._read = counted
    try:
        async with running(made):
            file.write_bytes(json.dumps(json.loads(first), indent=3).encode() + b"\n")
            await watcher.until(lambda: len(reads) >= 3)
            assert len(watcher.changes) == 1
            fresh = tmp_path / "new"
            fresh.write_bytes(jwks("a", "b"))
            fresh.rename(file)
            await watcher.until(lambda: len(watcher.changes) == 2)
    finally:
        keys_module._read = real
    assert set(made.keys.issued) == {"a", "b"}
    assert watcher.changes[-1] is made.keys


async def test_another_key_of_the_same_id_is_a_change(tmp_path):
    """Ids are not compared alone: a replaced key is a change, or its old tokens would live on."""
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks("a"))
    watcher = Watcher()
    made = store(watcher, jwks_file=file)
    await made.load()
    await made.load()
    assert len(watcher.changes) == 1
    file.write_bytes(jwks("a"))
    await made.load()
    assert len(watcher.changes) == 2


async def test_the_last_good_set_stays(tmp_path):
    """A file that breaks later, or goes, changes nothing; when it is good again it counts."""
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks("a"))
    watcher = Watcher()
    made = store(watcher, jwks_file=file, jwks_refresh=0.01)
    await made.load()
    before = made.keys
    async with running(made):
        file.write_bytes(b"{")
        await watcher.until(lambda: watcher.events[-1][0] == "keys_unusable")
        file.unlink()
        await watcher.until(lambda: "no such file" in str(watcher.events[-1]))
        assert made.keys is before
        assert made.ready
        assert len(watcher.changes) == 1
        new = tmp_path / "new"
        new.write_bytes(jwks("b"))
        new.rename(file)
        await watcher.until(lambda: len(watcher.changes) == 2)
    assert set(made.keys.issued) == {"b"}


# --- URLs ----------------------------------------------------------------------------------------


class Publisher:
    """Serves a key set, or whatever the test puts in its place; counts and times the requests."""

    def __init__(self) -> None:
        self.answer = web.Response
        self.times: list[float] = []
        self.heads: list = []
        self.asked = asyncio.Event()

    async def __call__(self, request):
        """Answer one request."""
        self.times.append(asyncio.get_running_loop().time())
        self.heads.append(dict(request.headers))
        self.asked.set()
        return self.answer()

    def publish(self, text: bytes, **more) -> None:
        """Answer with this from now on."""
        self.answer = lambda: web.Response(body=text, **more)

    async def until(self, count: int) -> None:
        """Wait for so many requests in all."""
        async with asyncio.timeout(5):
            while len(self.times) < count:
                self.asked.clear()
                await self.asked.wait()


async def test_a_url_is_loaded(serve):
    """The key set is fetched without any credential."""
    publisher, watcher = Publisher(), Watcher()
    publisher.publish(jwks("a"))
    made = store(watcher, jwks_url=await serve(publisher) + "/.well-known/jwks.json")
    await made.load()
    assert made.ready
    assert set(made.keys.issued) == {"a"}
    assert "Authorization" not in publisher.heads[0]


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (b"gone", {"status": 500}),
        (b"", {"status": 404}),
        (b"", {"status": 302, "headers": {"Location": "/elsewhere"}}),
        (b"<html>", {}),
        (b"{}", {}),
        (jwks("a") + b" " * keys_module.MAX_JWKS, {}),
        (jwks("a"), {"headers": {"Content-Encoding": "gzip"}, "status": 203}),
    ],
)
async def test_a_url_that_fails_is_tried_again(serve, text, more):
    """The first load does not fail for a URL; the loop tries on, and then the store is ready."""
    publisher, watcher = Publisher(), Watcher()
    publisher.publish(text, **more)
    made = store(watcher, jwks_url=await serve(publisher))
    await made.load()
    assert not made.ready
    assert made.keys.issued == {}
    assert watcher.events[0][0] == "keys_unusable"
    async with running(made):
        await publisher.until(3)
        assert not made.ready
        publisher.publish(jwks("a"))
        await watcher.until(lambda: made.ready)
    assert set(made.keys.issued) == {"a"}
    assert len(watcher.changes) == 1


async def test_nobody_listens_yet(serve, unused_tcp_port):
    """The control plane may start after the edge: a refused connection is waited out."""
    watcher = Watcher()
    made = store(watcher, jwks_url=f"http://127.0.0.1:{unused_tcp_port}/")
    await made.load()
    publisher = Publisher()
    publisher.publish(jwks("a"))
    async with running(made):
        await watcher.until(lambda: len(watcher.events) > 2)
        assert "cannot connect" in watcher.events[0][1]["reason"]
        made._url = await serve(publisher)
        await watcher.until(lambda: made.ready)


async def test_a_silent_url_costs_its_timeout(serve, monkeypatch):
    """A publisher that never answers is given up, and the store lives on."""
    monkeypatch.setattr(keys_module, "FETCH_TIMEOUT", 0.05)

    async def silent(_):
        await asyncio.Event().wait()

    watcher = Watcher()
    await store(watcher, jwks_url=await serve(silent)).load()
    assert "no answer within 0.05 s" in watcher.events[0][1]["reason"]


async def test_run_without_load_loads_at_once(serve):
    """A loop started first does not wait a whole refresh interval for its first keys."""
    publisher, watcher = Publisher(), Watcher()
    publisher.publish(jwks("a"))
    made = store(watcher, jwks_url=await serve(publisher), jwks_refresh=3600)
    async with running(made):
        await watcher.until(lambda: made.ready)


def test_back_off_grows_to_the_interval():
    """Failures are retried soon, then ever later, never later than a refresh, and never all at once."""
    made = store(Watcher(), jwks_url="http://127.0.0.1/", jwks_refresh=60, first_retry=0.5)
    delays = []
    for failures in (1, 2, 3, 7, 8, 9, 1000):
        made._failures = failures
        delays.append(made._delay())
    assert delays == [0.375, 0.75, 1.5, 24.0, 45.0, 45.0, 45.0]
    made._failures, made._ready = 0, True
    low, high = (made._delay() for made._jitter in (lambda: 0.0, lambda: 1.0))
    assert (low, high) == (54.0, 66.0)


# --- Hints ---------------------------------------------------------------------------------------


async def test_a_hint_brings_new_keys_soon(serve):
    """An unknown key id leads to an early refresh, although the interval is an hour."""
    publisher, watcher = Publisher(), Watcher()
    publisher.publish(jwks("a"))
    made = store(watcher, jwks_url=await serve(publisher), jwks_refresh=3600)
    await made.load()
    async with running(made):
        publisher.publish(jwks("a", "b"))
        made.hint()
        await watcher.until(lambda: len(watcher.changes) == 2)
    assert set(made.keys.issued) == {"a", "b"}
    assert len(publisher.times) == 2


async def test_hints_are_rationed(serve):
    """However many unknown ids come, attempts keep their distance, and no hint is lost for good."""
    publisher, watcher = Publisher(), Watcher()
    publisher.publish(jwks("a"))
    made = store(watcher, jwks_url=await serve(publisher), jwks_refresh=3600, hint_interval=0.1)
    await made.load()

    async def flood():
        while True:
            made.hint()
            await asyncio.sleep(0)

    async with running(made):
        flooding = asyncio.create_task(flood())
        await publisher.until(4)
        flooding.cancel()
        with suppress(asyncio.CancelledError):
            await flooding
    gaps = [b - a for a, b in zip(publisher.times, publisher.times[1:], strict=False)]
    assert all(gap >= 0.05 for gap in gaps)


async def test_a_hint_does_not_undo_the_back_off(serve):
    """While the publisher is down, hints make no more attempts than one an interval either."""
    publisher, watcher = Publisher(), Watcher()
    publisher.publish(b"", status=500)
    made = store(
        watcher, jwks_url=await serve(publisher), first_retry=60.0, jwks_refresh=3600,
        hint_interval=0.1,
    )  # fmt: skip
    await made.load()
    async with running(made):
        made.hint()
        await publisher.until(2)
    assert publisher.times[1] - publisher.times[0] >= 0.05


async def test_a_hint_says_what_to_wait_for(serve):
    """An attempt that begins at once, or is under way, can be awaited; its keys are there afterwards."""
    publisher, watcher = Publisher(), Watcher()
    publisher.publish(jwks("a"))
    made = store(watcher, jwks_url=await serve(publisher), jwks_refresh=3600, hint_interval=0.0)
    await made.load()
    async with running(made):
        publisher.publish(jwks("a", "b"))
        coming = made.hint()
        assert made.hint() is coming
        async with asyncio.timeout(5):
            await coming.wait()
        assert set(made.keys.issued) == {"a", "b"}
        publisher.publish(b"", status=500)
        async with asyncio.timeout(5):
            await made.hint().wait()  # one that fails is over, too
    assert watcher.events[-1][0] == "keys_unusable"


async def test_a_hint_too_soon_has_nothing_to_wait_for(serve, tmp_path):
    """Just after an attempt nobody is held; the next one comes all the same when its time has come."""
    publisher, watcher = Publisher(), Watcher()
    publisher.publish(jwks("a"))
    url = await serve(publisher)
    made = store(watcher, jwks_url=url, jwks_refresh=3600, hint_interval=3600)
    await made.load()
    async with running(made):
        assert made.hint() is None
        await asyncio.sleep(0)
        assert made.hint() is None
    assert len(publisher.times) == 1
    assert store(watcher, hs256=(HmacKey(kid="s", secret=SECRET),)).hint() is None


async def test_a_hint_during_a_download_waits_for_that_one(serve):
    """A burst of requests of a new key makes one download, and all of them may wait for it."""
    publisher, watcher = Publisher(), Watcher()
    publisher.publish(jwks("a"))
    gate = asyncio.Event()

    async def slow(request):
        await gate.wait()
        return await publisher(request)

    made = store(watcher, jwks_url=await serve(slow), jwks_refresh=3600, hint_interval=3600)
    async with running(made):
        first = made.hint()
        await asyncio.sleep(0)
        assert made.hint() is first
        gate.set()
        async with asyncio.timeout(5):
            await first.wait()
        assert made.hint() is None
    assert len(publisher.times) == 1


# --- Configured secrets --------------------------------------------------------------------------


async def test_secrets_alone_need_no_loading():
    """With HS256 keys only the store is ready at once, and its loop has nothing to do."""
    watcher = Watcher()
    made = store(watcher, hs256=(HmacKey(kid="s", secret=SECRET),))
    assert made.ready
    await made.load()
    await made.run()
    assert made.keys.issued["s"].alg == "HS256"
    assert watcher.changes == []
    assert SECRET not in repr(made.keys)


async def test_a_published_key_cannot_replace_a_secret(tmp_path):
    """Secrets stay beside published keys, and win where the ids are equal."""
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks("s", "a"))
    watcher = Watcher()
    made = store(watcher, jwks_file=file, hs256=(HmacKey(kid="s", secret=SECRET),))
    assert set(made.keys.issued) == {"s"}
    await made.load()
    assert {kid: key.alg for kid, key in made.keys.issued.items()} == {"s": "HS256", "a": "EdDSA"}


@pytest.mark.parametrize("kids", [("x", "x"), ("",)])
def test_configured_ids_are_unique(kids):
    """Two secrets of one id, or one without, are refused with the name of the setting."""
    entries = tuple(HmacKey(kid=kid, secret=SECRET + str(i)) for i, kid in enumerate(kids))
    with pytest.raises(ValueError, match=r"tokens\.hs256"):
        store(Watcher(), hs256=entries)
    with pytest.raises(ValueError, match=r"cookie\.keys") as caught:
        KeyStore(TokenSettings(), CookieSettings(keys=entries), print, Watcher())
    assert SECRET not in str(caught.value)
