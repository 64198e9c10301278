"""The watch: what each event proves, and where a reconnect starts."""

from __future__ import annotations

import asyncio

import pytest
from scriptedport import DOWN, Notes, ScriptedPort, sandbox
from virtual import VirtualLoop, run

from edge.core.records import GrantRecord, SandboxRecord
from edge.state.port import Change, Heartbeat, Resync, WatchEvent
from edge.wake.watch import Watch

CUT = DOWN


class Diary:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def hear_change(self, record: SandboxRecord | GrantRecord) -> None:
        self.entries.append(f"v{record.version}")

    def hear_heartbeat(self) -> None:
        self.entries.append("caught up")

    def doubt_everything(self) -> None:
        self.entries.append("doubt")


def follow(*events: WatchEvent | Exception | None) -> tuple[Diary, ScriptedPort, Notes]:
    """Play events; a cut or None ends a connection."""

    async def main(loop: VirtualLoop) -> tuple[Diary, ScriptedPort, Notes]:
        diary, port, notes = Diary(), ScriptedPort(), Notes()
        watch = Watch(port, diary, silence=5.0, observer=notes)
        task = loop.create_task(watch.run())
        for event in events:
            port.events.put_nowait(event)
        await asyncio.sleep(4.5)
        task.cancel()
        await asyncio.wait((task,))
        return diary, port, notes

    return run(main)


def change(cursor: int) -> Change:
    """The change at a place in the log."""
    return Change(cursor, sandbox(cursor))


@pytest.mark.parametrize(
    ("events", "told"),
    [
        # The first event of a stream without a cursor: what was looked up before may have changed.
        ([Heartbeat(5)], ["doubt", "caught up"]),
        ([Heartbeat(5), Heartbeat(5)], ["doubt", "caught up", "caught up"]),
        ([change(6), Heartbeat(6)], ["doubt", "v6", "caught up"]),
        # Connected is not caught up.
        ([change(6)], ["doubt", "v6"]),
        # Beyond where we stand: something was lost.
        ([Heartbeat(5), Heartbeat(6)], ["doubt", "caught up", "doubt", "caught up"]),
        # An old heartbeat that came late proves nothing.
        ([Heartbeat(5), change(6), Heartbeat(5)], ["doubt", "caught up", "v6"]),
        # A repeated change is passed on; versions sort it out.
        ([Heartbeat(5), change(6), change(6), Heartbeat(6)], ["doubt", "caught up", "v6", "v6", "caught up"]),
        # Resync alone is no proof of being caught up.
        ([Heartbeat(5), Resync(9)], ["doubt", "caught up", "doubt"]),
        ([Heartbeat(5), Resync(9), Heartbeat(9)], ["doubt", "caught up", "doubt", "caught up"]),
        # After a reconnect with a cursor nothing is in doubt.
        ([Heartbeat(5), CUT, change(6), Heartbeat(6)], ["doubt", "caught up", "v6", "caught up"]),
        # The log we come back to is a younger one: it was replaced.
        ([Heartbeat(5), CUT, Heartbeat(2)], ["doubt", "caught up", "doubt", "caught up"]),
        ([Heartbeat(5), CUT, change(3), Heartbeat(3)], ["doubt", "caught up", "v3", "doubt", "caught up"]),
    ],
)  # fmt: skip
def test_what_events_prove(events: list[WatchEvent | Exception], told: list[str]) -> None:
    """The table of the module, and its neighbours."""
    assert follow(*events)[0].entries == told


@pytest.mark.parametrize(
    ("events", "cursors"),
    [
        ([CUT], [None, None]),
        ([None], [None, None]),
        ([Heartbeat(5), CUT], [None, 5]),
        # A change does not move the cursor: an earlier one may have been overtaken by it.
        ([Heartbeat(5), change(7), CUT], [None, 5]),
        ([Heartbeat(5), change(6), Heartbeat(6), CUT], [None, 6]),
        ([Resync(9), CUT], [None, 9]),
        ([Heartbeat(5), CUT, CUT, Heartbeat(5), CUT], [None, 5, 5, 5]),
    ],
)
def test_where_a_reconnect_starts(
    events: list[WatchEvent | Exception | None], cursors: list[int | None]
) -> None:
    """A reconnect names the place up to which nothing can be missing."""
    assert follow(*events)[1].watches == cursors


def test_a_silent_connection_is_given_up() -> None:
    """A half-open connection raises nothing, so silence ends it."""

    async def main(loop: VirtualLoop) -> list[int | None]:
        port = ScriptedPort()
        task = loop.create_task(Watch(port, Diary(), silence=5.0, observer=Notes()).run())
        port.events.put_nowait(Heartbeat(3))
        await asyncio.sleep(4.9)
        assert port.watches == [None]
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait((task,))
        return port.watches

    assert run(main) == [None, 3]


def test_reconnects_back_off_and_are_told_once() -> None:
    """A control plane that is down is not hammered, and the log is not flooded."""
    _, port, notes = follow(*[CUT] * 100)
    assert 4 <= len(port.watches) <= 12
    assert notes.names() == ["watch_lost"]
    _, _, notes = follow(CUT, Heartbeat(1))
    assert notes.names() == ["watch_lost", "watch_caught_up"]
