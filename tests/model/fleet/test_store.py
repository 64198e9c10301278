"""The model's Redis is a Redis: the same random calls to its store and to a real server, the same answers."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from edge.state.redis import scripts
from tests.model.fleet.store import SCRIPTS, Scores, Store, Stream, WrongType
from tests.state.redis.valkey import Valkey

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
SEQUENCES = 12 * FACTOR
FIRST = 1000 * random.randrange(1, 10**6) if FACTOR > 1 else 0
CALLS = 120
RECORD, CHANGES, SERVER = "{x}:r", "{x}:c", "{x}:s"
LEASE, MEMBERS, BATCHES = "{x}:l", "{x}:m", "{x}:b"
KEYS = (RECORD, CHANGES, SERVER, LEASE, MEMBERS, BATCHES)
LONG = 100_000
"""Milliseconds that are long compared with a test, so that what is left of them is known."""


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A real server, which can be told to be another one."""
    async with Valkey(tmp_path, "--enable-debug-command", "yes") as server:
        yield server


class Twins:
    """A store and a server, to which the same is done. Epochs are times of theirs, so they are compared by name."""

    def __init__(self, client: Redis, rng: random.Random) -> None:
        self.client = client
        self.rng = rng
        self.now = int(time.time() * 1000)
        self.store = Store("0", lambda: self.now)
        self.known: list[tuple[bytes, bytes]] = [(b"0-0", b"0-0")]
        """Ids that were answered: of the server, of the store."""
        self.epochs: dict[bytes, bytes] = {b"0": b"0"}
        self.joined = 0
        self.added = 0

    async def script(self, name: str, keys: tuple[str, ...], *arguments: Any) -> None:
        """One call. Arguments may be pairs: of the server, of the store."""
        if name == "BEGIN":
            await self.next_millisecond()
        real = [one[0] if isinstance(one, tuple) else one for one in arguments]
        ours = [one[1] if isinstance(one, tuple) else one for one in arguments]
        try:
            expected = await self.client.eval(getattr(scripts, name), len(keys), *keys, *real)
        except ResponseError:
            expected = "an error"
        try:
            answer = getattr(self.store, name.lower())(keys, [_bytes(one) for one in ours])
        except WrongType:
            answer = "an error"
        assert self.same(expected, answer), (name, keys, real, expected, answer)

    async def next_millisecond(self) -> None:
        """Each epoch is a time of its own, on both: by the server's clock, which goes in steps."""
        latest = max(int(epoch) for pair in self.epochs.items() for epoch in pair)
        while True:
            seconds, micros = await self.client.time()
            self.now = seconds * 1000 + micros // 1000
            if self.now > latest + 1:
                return
            await asyncio.sleep(0.001)

    def same(self, real: Any, ours: Any) -> bool:
        """Whether two answers are the same but for the names of epochs."""
        if isinstance(real, list) and isinstance(ours, list):
            return len(real) == len(ours) and all(map(self.same, real, ours))
        if isinstance(real, bytes) and isinstance(ours, bytes) and b"-" in real and b"-" in ours:
            (epoch, number), (our_epoch, our_number) = real.split(b"-"), ours.split(b"-")
            self.known.append((real, ours))
            return number == our_number and self.epochs.setdefault(epoch, our_epoch) == our_epoch
        return bool(real == ours)

    def somewhere(self) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """Epoch and number of an id: of the newest ones, or of any."""
        real, ours = self.rng.choice([self.known[-1], self.known[-1], *self.known])
        (epoch, number), (our_epoch, our_number) = real.split(b"-"), ours.split(b"-")
        return (epoch, our_epoch), (number, our_number)

    async def call(self) -> None:
        """Anything."""
        rng = self.rng
        token = rng.choice([b"one", b"two", b"three"])
        match rng.randrange(19):
            case 0:
                await self.script("BEGIN", (CHANGES, SERVER), *self.somewhere())
            case 1:
                await self.script("BEGIN", (CHANGES, SERVER), 0, 0)
            case 2 | 3 | 4:
                text = b"r" * rng.choice([1, 5, 50])
                life = rng.choice([0, LONG, 2 * LONG])
                await self.script(
                    "PUBLISH", (RECORD, CHANGES),
                    "sandbox", rng.randrange(4, 13), text, life, 1000, *self.somewhere(),
                )  # fmt: skip
            case 5 | 6:
                await self.script("BEAT", (CHANGES, SERVER), 1000, *self.somewhere())
            case 7:
                await self.script("READ", (RECORD, CHANGES), rng.choice([10, 1000]))
            case 8 | 9:
                life, longest = rng.choice([LONG, 2 * LONG]), rng.choice([2 * LONG, 4 * LONG])
                await self.script("TAKE", (LEASE,), token, life, longest)
            case 10:
                await self.script("KEEP", (LEASE,), token, 3 * LONG)
            case 11:
                await self.script("LEAVE", (LEASE,), token, rng.choice([b"", b"done"]), LONG)
            case 12:
                self.joined += 1  # No two end at the same time, by whichever clock.
                life = rng.choice([15_000, 15_000, 15_000, -50_000, LONG, -3 * LONG])
                life += 500 * (self.joined % 60)
                await self.script("JOIN", (MEMBERS,), token, life, rng.choice([2, 100]))
            case 13:
                await self.script("MEMBERS", (MEMBERS,), rng.choice([1, 100]), rng.choice([3, 5]))
            case 14:
                await self.leave_usage()
            case 15:
                known = len(self.known)
                await self.script("LEFT", (BATCHES,), rng.choice([1, 100]), rng.choice([5, 60]))
                del self.known[known:]  # none of them is a place in the stream of changes
            case 16:
                await self.look()
            case 17:
                await self.vandalize(rng.choice((RECORD, LEASE, *KEYS)))
            case _:
                await self.befall()

    async def leave_usage(self) -> None:
        """An edge does; or somebody leaves what is none."""
        if not isinstance(self.store.get(BATCHES), (Stream, type(None))):
            return
        self.added += 1
        fields = {self.rng.choice([b"u", b"u", b"x"]): b"u" * self.rng.choice([1, 5, 6, 60, 61])}
        await self.client.xadd(BATCHES, dict(fields), id=f"1-{self.added}")
        self.epochs[b"1"] = b"1"
        if self.store.get(BATCHES) is None:
            self.store.set(BATCHES, Stream())
        self.store.keys[BATCHES].append(((1, self.added), fields))

    async def vandalize(self, key: str) -> None:
        """Somebody else writes where only we should."""
        match self.rng.randrange(5):
            case 0:
                (epoch, ours), _ = self.somewhere()
                version = self.rng.choice([b"3", b"10", b"010", b"9e15", b"%d" % 10**40])
                await self.client.delete(key)
                await self.client.hset(key, mapping={"v": version, "r": "rr", "e": epoch})
                self.store.set(key, {b"v": version, b"r": b"rr", b"e": ours})
            case 1:
                await self.client.set(key, "nonsense")
                self.store.set(key, b"nonsense")
            case 2:
                await self.client.delete(key)
                await self.client.hset(key, mapping={"v": "x", "r": "rr"})
                self.store.set(key, {b"v": b"x", b"r": b"rr"})
            case 3:
                await self.client.delete(key)
                self.store.delete(key)  # and as if its time had come
            case _:
                await self.client.delete(key)
                await self.client.zadd(key, {"z": 1})
                self.store.set(key, Scores({b"z": 1}))

    async def befall(self) -> None:
        """What happens to a server as a whole."""
        chance = self.rng.random()
        if chance < 0.1:
            await self.client.flushall()
            self.store.flush()
        elif chance < 0.3:
            await self.client.execute_command("DEBUG", "CHANGE-REPL-ID")
            self.store.server = b"%d" % (int(self.store.server) + 1)
            # What was written on the server before names that one, in both.
        elif chance < 0.6 and isinstance(self.store.get(CHANGES), Stream):
            kept = self.rng.choice([0, 1, 1, 2])
            await self.client.xtrim(CHANGES, maxlen=kept, approximate=False)
            del self.store.keys[CHANGES][: max(0, len(self.store.keys[CHANGES]) - kept)]

    async def look(self) -> None:
        """Everything that is held, and how long it lasts, is the same on both."""
        for key in KEYS:
            ours = self.store.get(key)
            match await self.client.type(key):
                case b"none":
                    assert ours is None, (key, ours)
                case b"string":
                    held = await self.client.get(key)
                    assert isinstance(ours, bytes)
                    assert key == SERVER or held == ours, (key, held, ours)
                case b"hash":
                    held = await self.client.hgetall(key)
                    if b"e" in held:
                        remark, blank, epoch = held[b"e"].rpartition(b" ")
                        held[b"e"] = remark + blank + self.epochs[epoch]
                    assert held == ours, (key, held, ours)
                case b"zset":
                    held = await self.client.zrange(key, 0, -1)
                    assert isinstance(ours, Scores)
                    assert held == [n for _, n in sorted((s, n) for n, s in ours.items())]
                case b"stream":
                    held = [[at, fields] for at, fields in await self.client.xrange(key)]
                    assert isinstance(ours, Stream)
                    after = self.store.after(key, b"0-0", 10_000)
                    known = len(self.known)
                    assert self.same(held, [list(entry) for entry in after]), (held, after)
                    del self.known[known:]
            left, until = await self.client.pttl(key), self.store.until.get(key)
            ours_left = -1 if until is None else until - self.store.clock()
            assert ours is None or round(left / LONG) == round(ours_left / LONG), (key, left)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def play(client: Redis, seed: int, calls: int = CALLS) -> None:
    """One sequence of calls to both."""
    await client.flushall()
    twins = Twins(client, random.Random(seed))
    for _ in range(calls):
        await twins.call()
    await twins.look()


async def test_the_same_calls_have_the_same_answers(valkey: Valkey) -> None:
    """Of whoever knows what, in whatever order, with foreign writes and losses in between."""
    async with valkey.client() as client:
        for seed in range(FIRST, FIRST + SEQUENCES):
            try:
                await play(client, seed)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error


def test_every_script_is_modelled() -> None:
    """One that is added or changed without the model would be missed by it."""
    names = [name for name in vars(scripts) if name.isupper() and name[0] != "_"]
    assert {vars(scripts)[name] for name in names} - {scripts.LOST} == set(SCRIPTS)


MUTANTS = [
    ("KEEP", "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n", ""),
    ("LEAVE", "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n", ""),
    ("TAKE", "'NX', ", ""),
    ("TAKE", "left >= 0 and ", ""),
    ("TAKE", "left <= tonumber(ARGV[3]) and ", ""),
    ("PUBLISH", "if found == 0 then return false end", ""),
    ("PUBLISH", "#held ~= #version", "false"),
    ("PUBLISH", "said == ARGV[6] or ", ""),
    ("PUBLISH", " or said == disputed", ""),
    ("BEAT", "or redis.pcall('GET', KEYS[2]) ~= here()", ""),
    ("READ", "or redis.call('HGET', KEYS[1], 'e') ~= epoch", ""),
    ("LEFT", " and #entry[2][at + 1] <= tonumber(ARGV[2])", ""),
    ("LEFT", "entry[2][at] == 'u' and ", ""),
    ("BEGIN", "and server == here()", ""),
    ("JOIN", "redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])\n", ""),
    (
        "MEMBERS",
        "if #name <= tonumber(ARGV[2]) then names[#names + 1] = name end",
        "names[#names + 1] = name",
    ),
    ("MEMBERS", "KEYS[1], ms, ms", "KEYS[1], '-inf', ms"),
]
"""Scripts, what is taken out of them, and what is in its place."""


async def test_a_script_that_is_broken_is_another(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each comparison in the scripts makes a difference that the sequences find."""
    async with valkey.client() as client:
        for name, what, instead in MUTANTS:
            text = getattr(scripts, name)
            assert what in text, f"{name} has changed: so should this test"
            with monkeypatch.context() as patch:
                patch.setattr(scripts, name, text.replace(what, instead))
                for seed in range(SEQUENCES):
                    try:
                        await play(client, seed)
                    except AssertionError:
                        break
                else:
                    pytest.fail(f"nothing tells {name} without {what!r} from the real one")
