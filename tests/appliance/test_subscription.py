"""Following the log: what a subscription means, and that no event is lost, doubled or out of place."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, Self

import pytest

from edge.appliance.events import Actor, EventLog, LifecycleEvent, Operation, Status
from edge.appliance.problems import ApiError
from edge.appliance.store import Store
from edge.appliance.subscription import (
    BATCH,
    MAX_STREAMS,
    Places,
    Reader,
    StreamError,
    Subscription,
    read_subscription,
)

Send = Callable[[LifecycleEvent], Awaitable[None]]


def subscription(**said: Any) -> Subscription:
    """What a client's first frame says."""
    return read_subscription(json.dumps({"type": "subscribe", **said}))


def emit(log: EventLog, number: int) -> None:
    """An event of one of three sandboxes, of varying kind."""
    log.emit(
        list(Operation)[number % 9],
        list(Status)[number % 2],
        sandbox_id=f"sb_{number % 3}",
        actor=Actor.USER,
        reason="api",
        snapshot_id=f"snap_{number % 4}",
        metadata={"number": number, "odd": number % 2 == 1},
    )


def filled(store: Store, count: int, **bounds: Any) -> EventLog:
    """A log with so many events."""
    log = EventLog(store, lambda: 1.0, **bounds)
    for number in range(count):
        emit(log, number)
    return log


def ids(log: EventLog) -> list[str]:
    """The ids of all events that are kept, oldest first."""
    return [event.id for _, event in reversed(log.before(log.head, subscription().filter, 10**6))]


class Following:
    """A reader at work; ``seen`` is what it was given."""

    def __init__(self, log: EventLog, wanted: Subscription) -> None:
        self.log = log
        self.seen: list[LifecycleEvent] = []
        self.reader = Reader(log, wanted)
        self.more = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.reader.start()
        self._task = asyncio.create_task(self.reader.follow(self._take))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _take(self, event: LifecycleEvent) -> None:
        self.seen.append(event)
        self.more.set()

    async def numbers(self, count: int) -> list[object]:
        """The numbers of the events seen, once there are so many (and none too many)."""
        async with asyncio.timeout(20):
            while len(self.seen) < count:
                self.more.clear()
                await self.more.wait()
            for _ in range(5):
                await asyncio.sleep(0)
        return [event.metadata["number"] for event in self.seen]


@pytest.mark.parametrize(
    ("said", "replayed"),
    [
        ({}, range(150, 250)),
        ({"replay_limit": 3}, [247, 248, 249]),
        ({"replay_limit": 0}, []),
        ({"replay_limit": 10**30}, range(250)),
        ({"live_only": True}, []),
        ({"live_only": True, "replay_limit": 9}, []),
        ({"live_only": False, "replay_limit": None}, range(150, 250)),
        ({"sandbox_id": "sb_1", "replay_limit": 3}, [241, 244, 247]),
        ({"sandbox_id": "sb_1"}, range(1, 250, 3)),
        ({"sandbox_id": "sb_no"}, []),
        ({"snapshot_id": "snap_2", "replay_limit": 2}, [242, 246]),
        ({"operation": "fork", "replay_limit": 2}, [232, 241]),
        ({"status": "succeeded", "replay_limit": 2}, [247, 249]),
        ({"status": "failed"}, []),
        ({"metadata": {"odd": True}, "replay_limit": 2}, [247, 249]),
        ({"metadata": {"odd": True}, "sandbox_id": "sb_0"}, range(3, 250, 6)),
        ({"metadata": {"number": 7}}, [7]),
        ({"metadata": {"number": 7, "odd": False}}, []),
        ({"metadata": {"other": None}}, []),
        ({"metadata": {}}, range(150, 250)),
        ({"audience": "customer", "replay_limit": 1}, [249]),
    ],
)
async def test_what_a_stream_begins_with(store: Store, said: dict[str, Any], replayed: Any) -> None:
    """The newest that are asked for, oldest first; then what happens, filtered in the same way."""
    log = filled(store, 250)
    async with Following(log, subscription(**said)) as following:
        assert await following.numbers(len(replayed)) == list(replayed)
        for number in range(250, 300):
            emit(log, number)
        wanted = subscription(**said)
        live = [
            event.metadata["number"]
            for _, event in log.after(250, wanted.filter, 99)[0]
            if wanted.admits(event)
        ]
        assert (await following.numbers(len(replayed) + len(live)))[len(replayed) :] == live


async def test_behind_a_cursor_comes_everything(store: Store) -> None:
    """Whatever ``replay_limit`` says, and although the event of the cursor is none of those asked for."""
    log = filled(store, 5 * BATCH + 7)
    cursor = ids(log)[9]
    async with Following(log, subscription(after_event_id=cursor, replay_limit=1)) as all_of_them:
        assert await all_of_them.numbers(5 * BATCH - 3) == list(range(10, 5 * BATCH + 7))
    async with Following(log, subscription(after_event_id=cursor, sandbox_id="sb_1")) as some:
        assert (await some.numbers(2))[:2] == [10, 13]
    async with Following(log, subscription(after_event_id=ids(log)[-1])) as none:
        assert await none.numbers(0) == []
        emit(log, 1000)
        assert await none.numbers(1) == [1000]
    async with Following(log, subscription(after_event_id=cursor, live_only=True)) as live:
        emit(log, 1001)
        assert await live.numbers(1) == [1001]


@pytest.mark.parametrize("live_only", [False, True])
async def test_a_cursor_that_is_not_kept_is_an_error(store: Store, live_only: bool) -> None:
    """Pruned, never there, or no id at all: nothing after it could be told without a gap."""
    log = filled(store, 3, max_events=3)
    pruned = ids(log)[0]
    emit(log, 3)
    for cursor in (pruned, "00000000-0000-4000-8000-000000000000", "", "x"):
        wanted = subscription(after_event_id=cursor, live_only=live_only)
        with pytest.raises(StreamError, match="after_event_id"):
            await Reader(log, wanted).start()
    kept = Reader(log, subscription(after_event_id=ids(log)[0]))
    await kept.start()


async def test_events_that_went_before_they_were_read_are_told(store: Store) -> None:
    """A reader that is overtaken gets an error, and what it got before is a gapless beginning."""
    log = filled(store, BATCH, max_events=BATCH)
    seen: list[object] = []

    async def slowly(event: LifecycleEvent) -> None:
        seen.append(event.metadata["number"])
        assert len(seen) < 10 * BATCH, "events that it missed were passed over in silence"
        emit(log, BATCH + 2 * len(seen) - 2)
        emit(log, BATCH + 2 * len(seen) - 1)

    reader = Reader(log, subscription())
    await reader.start()
    with pytest.raises(StreamError, match="too slow"):
        await reader.follow(slowly)
    assert seen == list(range(len(seen))) and len(seen) >= BATCH


async def test_a_reader_without_a_cursor_is_not_too_slow_before_it_began(store: Store) -> None:
    """It was promised the newest of what there is; what went before the first was sent is no gap."""
    log = filled(store, 5, max_events=5)
    reader = Reader(log, subscription())
    await reader.start()
    emit(log, 5)
    emit(log, 6)
    seen: list[object] = []

    async def take(event: LifecycleEvent) -> None:
        seen.append(event.metadata["number"])
        if len(seen) == 5:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await reader.follow(take)
    assert seen == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("NaN", "not JSON"),
        ("[" * 1000 + "]" * 1000, "not JSON"),
        ("[]", "subscribe"),
        ('"subscribe"', "subscribe"),
        ("null", "subscribe"),
        ("{}", "subscribe"),
        ('{"type": "unsubscribe"}', "subscribe"),
        ('{"type": ["subscribe"]}', "subscribe"),
        ('{"type": "subscribe", "operation": "explode"}', "operation"),
        ('{"type": "subscribe", "operation": 1}', "operation"),
        ('{"type": "subscribe", "status": "maybe"}', "status"),
        ('{"type": "subscribe", "audience": "internal"}', "audience"),
        ('{"type": "subscribe", "live_only": 1}', "live_only"),
        ('{"type": "subscribe", "live_only": "true"}', "live_only"),
        ('{"type": "subscribe", "replay_limit": -1}', "replay_limit"),
        ('{"type": "subscribe", "replay_limit": "1"}', "replay_limit"),
        ('{"type": "subscribe", "replay_limit": 1.5}', "replay_limit"),
        ('{"type": "subscribe", "replay_limit": true}', "replay_limit"),
        ('{"type": "subscribe", "metadata": []}', "metadata"),
        ('{"type": "subscribe", "after_event_id": 1}', "after_event_id"),
        ('{"type": "subscribe", "sandbox_id": ["sb_1"]}', "sandbox_id"),
        ('{"type": "subscribe", "sandbox_id": "\\ud800"}', "sandbox_id"),
        ('{"type": "subscribe", "sandbox_id": "sb_2"}', "sandbox_id"),
    ],
)
def test_first_frames_that_cannot_be(text: str, message: str) -> None:
    """Every one is an error that says what is wrong."""
    with pytest.raises(StreamError, match=message):
        read_subscription(text, "sb_1")


def test_first_frames_as_they_come() -> None:
    """Nulls and keys of newer clients are fine; the stream of a sandbox is of that one."""
    nulls = dict.fromkeys(Subscription.model_fields, None) | {"type": "subscribe"}
    assert read_subscription(json.dumps(nulls)) == Subscription(type="subscribe")
    assert subscription(newer=1) == Subscription(type="subscribe")
    wanted = read_subscription('{"type": "subscribe"}', "sb_1")
    assert wanted.filter.sandbox_id == "sb_1"
    assert read_subscription('{"type": "subscribe", "sandbox_id": "sb_1"}', "sb_1") == wanted


def test_the_answer_says_what_was_understood() -> None:
    """And how to come back."""
    assert subscription().answer() == {
        "type": "subscribed",
        "subscription": {"audience": "customer"},
        "reconnect_mode": "cursor_replay",
    }
    said = {
        "sandbox_id": "sb_1", "operation": "create", "status": "failed", "metadata": {"a": None},
        "live_only": True, "replay_limit": 7, "after_event_id": "x", "audience": "customer",
    }  # fmt: skip
    answer = subscription(**said).answer()
    assert answer["subscription"] == said
    assert answer["reconnect_mode"] == "live_only"


def test_places_are_counted_and_given_back() -> None:
    """Also by a stream that fails."""
    places = Places()

    def fails() -> None:
        with places.taken():
            raise ValueError

    with ExitStack() as most:
        for _ in range(MAX_STREAMS - 1):
            most.enter_context(places.taken())
        for _ in range(2):
            with pytest.raises(ValueError):
                fails()
        with (
            places.taken(),
            pytest.raises(ApiError, match="too_many_streams") as refused,
            places.taken(),
        ):
            pass
        assert (refused.value.problem.status, refused.value.problem.retryable) == (503, True)


@pytest.mark.parametrize("seed", range(20))
async def test_random_cuts_and_filters_lose_nothing(store: Store, seed: int) -> None:
    """Readers with any filter, cut off at any place, who come back with the last event they saw: together
    they saw what the list shows, each event once, in order, while events go on.
    """
    dice = random.Random(seed)
    log = EventLog(store, lambda: 1.0)
    filters: list[dict[str, Any]] = [
        {}, {"sandbox_id": "sb_1"}, {"snapshot_id": "snap_3"}, {"status": "requested"},
        {"operation": "create"}, {"metadata": {"odd": True}},
        {"metadata": {"odd": False}, "sandbox_id": "sb_2"},
    ]  # fmt: skip
    said = dice.choice(filters)
    written = 0

    def happen(count: int) -> None:
        nonlocal written
        for _ in range(count):
            emit(log, written)
            written += 1

    class CutError(Exception):
        pass

    happen(dice.randrange(50))
    seen: list[str] = []
    first = {"replay_limit": 10_000}

    async def take(event: LifecycleEvent) -> None:
        seen.append(event.id)
        if dice.random() < 0.1:
            await asyncio.sleep(0)
        if dice.random() < 0.2:
            happen(dice.randrange(4))
        if dice.random() < 0.02:
            raise CutError

    async def emitter() -> None:
        while written < 350:
            happen(dice.randrange(5))
            await asyncio.sleep(0)

    task = asyncio.create_task(emitter())

    async def done() -> bool:
        wanted = subscription(**said)
        rest, _ = log.after(log.number(seen[-1]) if seen else 0, wanted.filter, 10**6)  # type: ignore[arg-type]
        return task.done() and not any(wanted.admits(event) for _, event in rest)

    while not await done():
        cursor = {"after_event_id": seen[-1]} if seen else first
        reader = Reader(log, subscription(**said, **cursor))
        await reader.start()
        following = asyncio.create_task(reader.follow(take))
        while not following.done() and not await done():  # noqa: ASYNC110 - any turn may be the last
            await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait([following])
        if not following.cancelled():
            assert isinstance(following.exception(), CutError)
    wanted = subscription(**said)
    everything = reversed(log.before(log.head, wanted.filter, 10**6))
    assert seen == [event.id for _, event in everything if wanted.admits(event)]
