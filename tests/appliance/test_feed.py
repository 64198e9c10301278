"""The change log: gap-free from a cursor, or an honest None."""

from __future__ import annotations

from edge.appliance.feed import Feed
from edge.core.records import SandboxRecord, State


def _record(version: int) -> SandboxRecord:
    return SandboxRecord("sb_1", State.RUNNING, version, 1)


def test_changes_after_a_cursor() -> None:
    """A watcher gets exactly what came after its cursor, in order, with growing cursors."""
    feed = Feed(100)
    for version in (1, 2, 3):
        feed.publish(_record(version))
    assert [change.cursor for change in feed.since(100) or []] == [101, 102, 103]
    assert [change.record.version for change in feed.since(101) or []] == [2, 3]
    assert feed.since(103) == []


def test_what_is_not_kept_is_not_pretended() -> None:
    """A cursor before the log, or of another run, gets None instead of a gap."""
    feed = Feed(100, max_changes=2)
    for version in (1, 2, 3):
        feed.publish(_record(version))
    assert feed.since(100) is None
    assert feed.since(101) is not None
    assert feed.since(104) is None
    assert feed.since(0) is None


def test_news_taken_before_a_look_hears_of_what_comes_after() -> None:
    """Each change sets the event that was current before it."""
    feed = Feed(0)
    news = feed.news
    assert not news.is_set()
    feed.publish(_record(1))
    assert news.is_set()
    assert not feed.news.is_set()


def test_listeners_hear_of_every_record() -> None:
    """At once and in order, besides the log."""
    feed, heard = Feed(0), []
    feed.listen(heard.append)
    for version in (1, 2):
        feed.publish(_record(version))
    assert [record.version for record in heard] == [1, 2]
