"""Usage: everything noted arrives, at least once and counted once, with bounded memory."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from edge.core.settings import ControlPlaneSettings
from edge.state import wire
from edge.state.http import HttpStatePort
from edge.state.port import Unavailable, Usage, UsageBatch
from edge.wake import usage
from edge.wake.spool import Spool
from edge.wake.usage import UsageReporter


class Ledger:
    """A control plane's side of usage: fails on cue, counts a repeat of (edge, sequence) once."""

    def __init__(self) -> None:
        self.calls: list[UsageBatch] = []
        self.times: list[float] = []
        self.counted: dict[tuple[str, int], UsageBatch] = {}
        self.fail_before = 0
        self.fail_after = 0
        self.told = asyncio.Event()

    async def report(self, batch: UsageBatch) -> None:
        """Take a batch, lose it, or lose the acknowledgement."""
        self.calls.append(batch)
        self.times.append(asyncio.get_running_loop().time())
        self.told.set()
        if self.fail_before:
            self.fail_before -= 1
            raise Unavailable("lost on the way")
        self.counted.setdefault((batch.edge, batch.sequence), batch)
        if self.fail_after:
            self.fail_after -= 1
            raise Unavailable("the answer was lost")

    def total(self, what: str) -> int:
        """The sum of one count over all that was counted."""
        return sum(getattr(item, what) for batch in self.counted.values() for item in batch.items)

    async def until(self, condition) -> None:
        """Wait until a call makes the condition true."""
        async with asyncio.timeout(5):
            while not condition():
                self.told.clear()
                await self.told.wait()


@pytest.fixture
def quick(monkeypatch):
    """Seconds become hundredths."""
    monkeypatch.setattr(usage, "INTERVAL", 0.01)
    monkeypatch.setattr(usage, "LONGEST_RETRY", 0.02)


def reporter(port, wall=lambda: 1_767_225_600.25, **more) -> UsageReporter:
    """A reporter on the loop's clock without jitter."""
    clock = asyncio.get_running_loop().time
    return UsageReporter(port, edge_id="edge-1", clock=clock, wall=wall, jitter=lambda: 0.0, **more)


@asynccontextmanager
async def running(made: UsageReporter):
    """Have the reporter report meanwhile."""
    task = asyncio.create_task(made.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_is_noted_is_reported_per_pair(quick):
    """Notes of one pair are one item; the item holds every count, the last error and its time."""
    ledger = Ledger()
    made = reporter(ledger)
    made.note("sb_a", "g1", requests=1, bytes_in=10)
    made.note("sb_a", "g2", websockets=1)
    made.note("sb_a", "g1", requests=2, bytes_out=5, error="preview_upstream_closed")
    assert made.waiting() == 2
    async with running(made):
        await ledger.until(lambda: ledger.counted)
    [batch] = ledger.counted.values()
    assert batch == UsageBatch(
        "edge-1",
        1_767_225_600_250,
        (
            Usage("sb_a", "g1", 3, 0, 10, 5, True, "preview_upstream_closed", 1_767_225_600.25),
            Usage("sb_a", "g2", 0, 1, 0, 0, True),
        ),
    )
    assert made.waiting() == 0


@pytest.mark.parametrize(
    ("counts", "active"),
    [
        ({"requests": 1}, True),
        ({"websockets": 1}, True),
        ({"bytes_in": 1}, True),
        ({"bytes_out": 1}, True),
        ({"error": "edge_token_expired"}, False),
        ({}, False),
    ],
)
async def test_only_traffic_is_activity(counts, active):
    """Requests and bytes postpone the inactivity timeout; an error by itself does not."""
    ledger = Ledger()
    made = reporter(ledger)
    made.note("sb_a", "g", **counts)
    await made.flush()
    assert [item.active for item in ledger.calls[0].items] == [active]


async def test_nothing_is_reported_when_nothing_happened(quick):
    """An idle edge sends nothing, before and after its first report."""
    ledger = Ledger()
    made = reporter(ledger)
    async with running(made):
        for _ in range(5):
            await asyncio.sleep(0)
        assert not made._something.is_set()  # what the loop waits for, without a timer
        assert ledger.calls == []
        made.note("sb_a", "g", requests=1)
        await ledger.until(lambda: ledger.counted)
        await asyncio.sleep(0)
        assert not made._something.is_set()
    assert len(ledger.calls) == 1


async def test_at_most_one_batch_an_interval(monkeypatch):
    """However fast the notes come, batches keep their distance and their sequence is without gap."""
    monkeypatch.setattr(usage, "INTERVAL", 0.05)
    ledger = Ledger()
    made = reporter(ledger)

    async def busy():
        while True:
            made.note("sb_a", "g", requests=1)
            await asyncio.sleep(0)

    async with running(made):
        traffic = asyncio.create_task(busy())
        await ledger.until(lambda: len(ledger.calls) == 4)
        traffic.cancel()
        with suppress(asyncio.CancelledError):
            await traffic
    gaps = [b - a for a, b in zip(ledger.times, ledger.times[1:], strict=False)]
    assert all(gap >= 0.025 for gap in gaps)
    first = ledger.calls[0].sequence
    assert [batch.sequence for batch in ledger.calls] == list(range(first, first + 4))


@pytest.mark.parametrize("lost", ["fail_before", "fail_after"])
async def test_a_lost_batch_is_repeated_unchanged(quick, lost):
    """Whether the batch or its acknowledgement was lost: the same batch again, counted once."""
    ledger = Ledger()
    setattr(ledger, lost, 3)
    made = reporter(ledger)
    made.note("sb_a", "g", requests=1)
    async with running(made):
        await ledger.until(lambda: ledger.calls)
        made.note("sb_a", "g", requests=10)
        made.note("sb_b", "g", requests=100)
        await ledger.until(lambda: ledger.total("requests") == 111)
    assert ledger.calls[:4] == [ledger.calls[0]] * 4
    assert len(ledger.counted) == 2
    assert ledger.total("requests") == 111


async def test_an_outage_costs_memory_per_pair_not_per_note(quick):
    """Notes of an outage are merged; afterwards they arrive complete in few batches."""
    ledger = Ledger()
    ledger.fail_before = 10**9
    made = reporter(ledger)
    async with running(made):
        for i in range(1000):
            made.note(f"sb_{i % 5}", "g", requests=1, bytes_in=2)
            if i % 100 == 0:
                await asyncio.sleep(0)
        await ledger.until(lambda: len(ledger.calls) > 3)
        assert made.waiting() <= 10
        ledger.fail_before = 0
        await ledger.until(lambda: ledger.total("requests") == 1000)
    assert ledger.total("bytes_in") == 2000
    assert len(ledger.counted) == 2


async def test_pairs_are_bounded(monkeypatch):
    """Beyond the bound the pair waiting longest is given up and counted as such."""
    monkeypatch.setattr(usage, "MAX_PAIRS", 3)
    ledger = Ledger()
    made = reporter(ledger)
    for i in range(5):
        made.note(f"sb_{i}", "g", requests=1)
    made.note("sb_4", "g", requests=1)
    assert made.given_up == 2
    await made.flush()
    assert [(item.sandbox_id, item.requests) for item in ledger.calls[0].items] == [
        ("sb_2", 1),
        ("sb_3", 1),
        ("sb_4", 2),
    ]


async def test_batches_are_bounded(monkeypatch, quick):
    """Many pairs go out in several batches, those waiting longest first."""
    monkeypatch.setattr(usage, "MAX_ITEMS", 4)
    ledger = Ledger()
    made = reporter(ledger)
    for i in range(10):
        made.note(f"sb_{i}", "g", requests=1)
    async with running(made):
        await ledger.until(lambda: ledger.total("requests") == 10)
    assert [len(batch.items) for batch in ledger.calls] == [4, 4, 2]
    sent = [item.sandbox_id for batch in ledger.calls for item in batch.items]
    assert sent == [f"sb_{i}" for i in range(10)]


async def test_a_full_batch_stays_under_common_body_limits():
    """The largest batch of ordinary ids and large counts is well under 1 MB."""
    ledger = Ledger()
    made = reporter(ledger)
    for i in range(usage.MAX_ITEMS):
        made.note(
            f"sb_{i:040}",
            f"pvg_{i:032}",
            requests=10**12,
            websockets=10**12,
            bytes_in=10**15,
            bytes_out=10**15,
            error="preview_proxy_token_scope_mismatch",
        )
    await made.flush()
    assert len(ledger.calls) == 1
    assert len(wire.usage_to_json(ledger.calls[0])) < 600_000


async def test_a_restart_continues_above_what_was_used(quick):
    """An edge restarted under its name uses no sequence again, even after a batch a second."""
    ledger = Ledger()
    now = 1000.0
    for _ in range(3):
        made = reporter(ledger, wall=lambda: now)  # noqa: B023 - called before it changes
        for _ in range(4):
            made.note("sb_a", "g", requests=1)
            await made.flush()
        now += 0.05
    assert ledger.total("requests") == 12
    sequences = [batch.sequence for batch in ledger.calls]
    assert sequences == sorted(set(sequences))


async def test_a_cancelled_report_is_sent_again_by_the_flush(quick):
    """Cut off in the middle of a report, the same batch is flushed, and then the rest."""
    arrived = asyncio.Event()
    ledger = Ledger()

    class Stuck:
        async def report(self, batch):
            ledger.calls.append(batch)
            arrived.set()
            await asyncio.Event().wait()

    made = reporter(Stuck())
    made.note("sb_a", "g", requests=1)
    async with running(made):
        await arrived.wait()
        made.note("sb_a", "g", requests=2)
    assert made.waiting() == 2
    made._port = ledger
    await made.flush()
    assert made.waiting() == 0
    assert ledger.calls[0] == ledger.calls[1]
    assert ledger.total("requests") == 3


async def test_flush_says_when_it_fails():
    """A flush that cannot deliver says so once and keeps what it has."""
    ledger = Ledger()
    ledger.fail_before = 1
    made = reporter(ledger)
    made.note("sb_a", "g", requests=1)
    with pytest.raises(Unavailable):
        await made.flush()
    assert made.waiting() == 1
    await made.flush()
    assert ledger.total("requests") == 1


async def test_back_off_doubles_up_to_its_limit(monkeypatch):
    """During an outage the attempts become rarer, up to the longest retry."""
    monkeypatch.setattr(usage, "INTERVAL", 0.02)
    monkeypatch.setattr(usage, "LONGEST_RETRY", 0.08)
    ledger = Ledger()
    ledger.fail_before = 10**9
    made = reporter(ledger)
    made.note("sb_a", "g", requests=1)
    async with running(made):
        await ledger.until(lambda: len(ledger.times) == 5)
    gaps = [b - a for a, b in zip(ledger.times, ledger.times[1:], strict=False)]
    for gap, least in zip(gaps, (0.02, 0.04, 0.08, 0.08), strict=True):
        assert gap >= least * 0.9


async def test_over_real_http(quick):
    """Through the HTTP adapter and a server that fails at first, every byte is counted once."""
    counted: dict[tuple[str, int], UsageBatch] = {}
    first, arrived = asyncio.Event(), asyncio.Event()
    statuses = iter([500, 204, 503])

    async def handler(request):
        batch = wire.usage_from_json(await request.read())
        status = next(statuses, 204)
        if status != 500:
            counted.setdefault((batch.edge, batch.sequence), batch)
            first.set()
        if status == 204 and len(counted) == 2:
            arrived.set()
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post(f"{wire.PREFIX}/usage", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}".format(*runner.addresses[0][:2])
    port = HttpStatePort(ControlPlaneSettings(url=url, token="t" * 32), "edge-1")
    made = reporter(port)
    made.note("sb_a", "g", bytes_out=1)
    async with running(made), asyncio.timeout(5):
        await first.wait()
        made.note("sb_a", "g", bytes_out=2)
        await arrived.wait()
    assert sum(item.bytes_out for batch in counted.values() for item in batch.items) == 3
    await port.close()
    await runner.cleanup()


async def test_an_outage_of_both_loses_nothing(quick, tmp_path):
    """The edge ends while the control plane is away: the next one delivers what it had, each count once."""
    ledger = Ledger()
    ledger.fail_before = 10**6
    first = reporter(ledger, spool=Spool(tmp_path))
    first.note("sb_1", "pvg_1", requests=3)
    async with running(first):
        await ledger.until(lambda: len(ledger.calls) >= 2)
        first.note("sb_2", "pvg_2", requests=4)
    with pytest.raises(Unavailable):
        await first.flush()
    assert await first.keep()
    first.close()
    ledger.fail_before = 0
    second = reporter(ledger, wall=lambda: 1_800_000_000.0, spool=Spool(tmp_path))
    second.note("sb_1", "pvg_1", requests=5)
    async with running(second):
        await ledger.until(lambda: ledger.total("requests") == 12)
    await second.flush()
    second.close()
    assert list(tmp_path.iterdir()) == []
    third = reporter(ledger, wall=lambda: 1_900_000_000.0, spool=Spool(tmp_path))
    async with running(third):
        third.note("sb_1", "pvg_1", requests=1)
        await ledger.until(lambda: ledger.total("requests") == 13)
    third.close()


async def test_an_edge_that_is_killed_in_an_outage(quick, tmp_path):
    """What it had when it last failed to report is on the disk; what arrived after all counts once."""
    ledger = Ledger()
    ledger.fail_after = 1  # the first arrives, and the edge does not know
    spool = Spool(tmp_path)
    first = reporter(ledger, spool=spool)
    first.note("sb_1", "pvg_1", requests=3)
    with pytest.raises(Unavailable):
        await first.flush()
    first.note("sb_1", "pvg_1", requests=4)
    ledger.fail_before = 1
    with pytest.raises(Unavailable):
        await first.flush()
    os.close(spool._lock)  # killed
    second = reporter(ledger, wall=lambda: 1_800_000_000.0, spool=Spool(tmp_path))
    async with running(second):
        await ledger.until(lambda: ledger.total("requests") == 7)
    second.close()


async def test_old_batches_are_bounded(quick, monkeypatch, tmp_path):
    """Edges that start and die for weeks without a control plane do not fill the memory."""
    monkeypatch.setattr(usage, "MAX_BATCHES", 3)
    spool = Spool(tmp_path)
    spool.write([UsageBatch("old", n, (Usage("sb_1", "pvg_1", requests=1),)) for n in range(5)])
    spool.close()
    ledger = Ledger()
    heir = reporter(ledger, spool=Spool(tmp_path))
    async with running(heir):
        await ledger.until(lambda: len(ledger.counted) == 3)
    heir.close()
    assert sorted(ledger.counted) == [("old", 2), ("old", 3), ("old", 4)] and heir.given_up == 2


async def test_troubles_of_the_disk_are_told(quick, tmp_path):
    """Once; the report itself does not suffer."""
    (tmp_path / "file").write_text("")
    told = []
    ledger = Ledger()
    ledger.fail_before = 2
    noted = reporter(
        ledger, spool=Spool(tmp_path / "file"), tell=lambda event, **_: told.append(event)
    )
    noted.note("sb_1", "pvg_1", requests=3)
    async with running(noted):
        await ledger.until(lambda: ledger.total("requests") == 3)
    assert told == ["usage_not_kept"]
