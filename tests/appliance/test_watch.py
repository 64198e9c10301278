"""The stream to an edge: in order, without gap, with a heartbeat even in a storm."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from virtual import VirtualLoop, run

from edge.appliance.feed import Feed
from edge.appliance.watch import HEARTBEAT, send_changes
from edge.core.records import SandboxRecord, State
from edge.state.port import Change, Heartbeat, Resync, WatchEvent


def _record(version: int) -> SandboxRecord:
    return SandboxRecord("sb_1", State.RUNNING, version, 1)


class Edge:
    """What one edge was sent, and when; ``slow`` is how long each frame takes."""

    def __init__(self, loop: VirtualLoop, slow: float = 0.0) -> None:
        self._loop = loop
        self._slow = slow
        self.frames: list[tuple[float, WatchEvent]] = []

    async def send(self, event: WatchEvent) -> None:
        self.frames.append((self._loop.time() - 1000.0, event))
        await asyncio.sleep(self._slow)

    def cursors(self, kind: type[WatchEvent]) -> list[int]:
        return [event.cursor for _, event in self.frames if isinstance(event, kind)]


def test_replay_then_live_then_heartbeats() -> None:
    """What came before, then what comes, and a first heartbeat at once."""

    async def main(loop: VirtualLoop) -> None:
        feed, edge = Feed(0), Edge(loop)
        feed.publish(_record(1))
        feed.publish(_record(2))
        task = loop.create_task(send_changes(feed, edge.send, 0))
        await asyncio.sleep(0.05)
        assert [event for _, event in edge.frames] == [
            *(feed.since(0) or []),
            Heartbeat(2),
        ]
        feed.publish(_record(3))
        await asyncio.sleep(0.001)
        assert edge.frames[-1][1] == Change(3, _record(3))
        await asyncio.sleep(3)
        times = [at for at, event in edge.frames if isinstance(event, Heartbeat)]
        assert max(b - a for a, b in pairwise(times)) < HEARTBEAT + 0.01
        task.cancel()
        await asyncio.wait([task])

    run(main)


def test_heartbeats_come_in_a_storm_too() -> None:
    """Changes without end do not push the heartbeat out, and it stays in order."""

    async def main(loop: VirtualLoop) -> None:
        feed, edge = Feed(0), Edge(loop)
        task = loop.create_task(send_changes(feed, edge.send, 0))
        for version in range(1, 300):
            feed.publish(_record(version))
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert len(edge.cursors(Heartbeat)) >= 9
        cursors = [event.cursor for _, event in edge.frames]
        assert cursors == sorted(cursors)
        assert edge.cursors(Change) == list(range(1, 300))

    run(main)


def test_a_watcher_too_far_behind_is_told_so() -> None:
    """An unknown cursor, and one that the log overtakes while a frame is on its way: resync, never a gap."""

    async def main(loop: VirtualLoop) -> None:
        feed, edge = Feed(100, max_changes=3), Edge(loop, slow=1.0)
        task = loop.create_task(send_changes(feed, edge.send, 7))
        await asyncio.sleep(0.5)
        assert [event for _, event in edge.frames] == [Resync(100)]
        for version in range(10):
            feed.publish(_record(version))
        await asyncio.sleep(1)
        assert edge.frames[1][1] == Resync(110)
        task.cancel()
        await asyncio.wait([task])

    run(main)
