"""The copies that are kept, and what is left of those that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.appliance.problems import ApiError
from edge.appliance.sandbox import Plan
from edge.appliance.snapshots import shelf
from edge.appliance.snapshots.shelf import Copies
from edge.appliance.snapshots.snapshot import Copy
from edge.appliance.store import Store, StoreError

PLAN = Plan("t", 2, 3, "/c", {}, True, None, {}, None, None)


@pytest.fixture
async def copies(store: Store, tmp_path: Path) -> Copies:
    """Started, and empty."""
    made = Copies(store, tmp_path / "snapshots")
    await made.start()
    return made


async def _keep(copies: Copies) -> Copy:
    async with copies.room() as (snapshot_id, folder):
        (folder / "file").write_text("data")
        copy = Copy(snapshot_id, "sb_1", 4, 1.0, PLAN, (), ())
        copies.add(copy, lambda _: None)
    return copy


async def test_kept_ones_stay_over_a_restart(copies: Copies, store: Store, tmp_path: Path) -> None:
    """And everything else goes."""
    copy = await _keep(copies)
    (tmp_path / "snapshots" / "snap_half").mkdir()
    again = Copies(store, tmp_path / "snapshots")
    await again.start()
    assert again.all() == [copy] and again.find(copy.id) == copy
    assert (again.files(copy) / "file").read_text() == "data"
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [copy.id]


def _fail(_: object) -> None:
    raise ZeroDivisionError


async def _make(copies: Copies, kept: Callable[[Copy], None]) -> None:
    async with copies.room() as (snapshot_id, folder):
        (folder / "file").write_text("data")
        copies.add(Copy(snapshot_id, "sb_1", 4, 1.0, PLAN, (), ()), kept)


async def test_what_is_not_kept_leaves_nothing(
    copies: Copies, store: Store, tmp_path: Path
) -> None:
    """Because it could not be written, or what goes with it could not."""
    store.write("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        await _keep(copies)
    store.write("PRAGMA query_only = OFF")
    with pytest.raises(ZeroDivisionError):
        await _make(copies, _fail)
    assert copies.all() == [] and list((tmp_path / "snapshots").iterdir()) == []
    assert Copies(store, tmp_path / "snapshots").all() == []


async def test_the_limit_counts_those_being_made(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that many at once do not pass it; one that fails makes room again."""
    monkeypatch.setattr(shelf, "MAX_COPIES", 1)
    async with copies.room():
        with pytest.raises(ApiError) as caught:
            await _keep(copies)
        assert caught.value.problem.code == "quota_exceeded"
    copy = await _keep(copies)
    with pytest.raises(ApiError):
        await _keep(copies)
    await copies.delete(copy.id)
    await _keep(copies)


async def test_one_that_is_used_is_not_deleted(copies: Copies) -> None:
    """And one that was deleted is not used."""
    copy = await _keep(copies)
    with copies.used(copy) as folder:
        with pytest.raises(ApiError) as caught:
            await copies.delete(copy.id)
        assert caught.value.problem.code == "snapshot_in_use"
        assert (folder / "file").exists()
    await copies.delete(copy.id)
    assert not folder.exists()
    for call in (lambda: copies.delete(copy.id), lambda: _enter(copies, copy)):
        with pytest.raises(ApiError) as caught:
            await call()
        assert caught.value.problem.code == "snapshot_not_found"


async def _enter(copies: Copies, copy: Copy) -> None:
    with copies.used(copy):
        pass
