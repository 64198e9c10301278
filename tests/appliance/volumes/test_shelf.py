"""The volumes' directories and rows: nothing with data in it goes that was not deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.appliance.problems import ApiError
from edge.appliance.store import Store, StoreError
from edge.appliance.volumes import shelf
from edge.appliance.volumes.shelf import Volumes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the volumes are."""
    return tmp_path / "volumes"


@pytest.fixture
async def volumes(store: Store, folder: Path) -> Volumes:
    """Started, and empty."""
    made = Volumes(store, folder, lambda: 1.0)
    await made.start()
    return made


def _code(call: Callable[[], object]) -> str:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value.problem.code


async def test_by_id_and_by_name(volumes: Volumes) -> None:
    """Each has a directory of its own; names are given once; what is not there is ``not_found``."""
    one, two = volumes.create("one"), volumes.create("two")
    assert volumes.all() == [one, two]
    assert volumes.get(one.id) is volumes.named("one") is volumes.of("one") is volumes.of(one.id)
    assert volumes.files(one.id).is_dir() and volumes.there(one)
    assert _code(lambda: volumes.create("one")) == "volume_name_conflict"
    for call in (volumes.get, volumes.named, volumes.of):
        assert _code(lambda call=call: call("vol_none")) == "not_found"


async def test_the_limit(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reached, one has to be deleted first."""
    monkeypatch.setattr(shelf, "MAX_VOLUMES", 1)
    one = volumes.create("one")
    assert _code(lambda: volumes.create("two")) == "volume_limit_exceeded"
    await volumes.delete(one)
    volumes.create("two")


async def test_they_are_there_after_a_restart(volumes: Volumes, store: Store, folder: Path) -> None:
    """With their data; what was on its way in is not."""
    one = volumes.create("one")
    (volumes.files(one.id) / "data").write_text("data")
    (folder / one.id / "aside").mkdir()
    again = Volumes(store, folder, lambda: 2.0)
    await again.start()
    assert again.get(one.id).name == "one"
    assert (again.files(one.id) / "data").read_text() == "data"
    assert not (folder / one.id / "aside").exists()


async def test_what_cannot_be_written_is_not_made(
    volumes: Volumes, store: Store, folder: Path
) -> None:
    """Neither a volume without a row nor a deleted one with."""
    one = volumes.create("one")
    (volumes.files(one.id) / "data").write_text("data")
    store.write("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        volumes.create("two")
    with pytest.raises(StoreError):
        await volumes.delete(one)
    assert volumes.all() == [one] and [path.name for path in folder.iterdir()] == [one.id]
    assert (volumes.files(one.id) / "data").exists()


async def test_a_directory_that_cannot_be_made_is_told(volumes: Volumes, folder: Path) -> None:
    """As trouble of ours; and no row is left."""
    folder.rmdir()
    folder.write_text("")
    assert _code(lambda: volumes.create("one")) == "state_unwritable"
    assert volumes.all() == []


async def test_half_done_deletes_are_finished_or_taken_back(
    volumes: Volumes, store: Store, folder: Path
) -> None:
    """By what the store says; a directory with data that belongs to nobody stays."""
    kept, gone = volumes.create("kept"), volumes.create("gone")
    for volume in (kept, gone):
        (volumes.files(volume.id) / "data").write_text("data")
        (folder / volume.id).rename(folder / f"{volume.id}.deleted")
    store.write("DELETE FROM volumes WHERE id = ?", (gone.id,))
    for name in ("vol_empty", "vol_full"):
        (folder / name / "files").mkdir(parents=True)
    (folder / "vol_full" / "files" / "data").write_text("data")
    again = Volumes(store, folder, lambda: 2.0)
    await again.start()
    assert {path.name for path in folder.iterdir()} == {kept.id, "vol_full"}
    assert (again.files(kept.id) / "data").read_text() == "data"


async def test_what_is_in_use_is_not_deleted(volumes: Volumes) -> None:
    """While somebody attaches it, or uses its files."""
    one = volumes.create("one")
    with volumes.pinned([one.id]), pytest.raises(ApiError):
        await volumes.delete(one)
    with volumes.used(one.id) as tree:
        assert tree.write("/a/b", b"1").path == "/a/b"
        assert [entry.path for entry in tree.entries("/", 2)] == ["/a", "/a/b"]
        with pytest.raises(ApiError):
            await volumes.delete(one)
    await volumes.delete(one)
    assert _code(lambda: volumes.get(one.id)) == "not_found"
    with pytest.raises(ApiError):
        await volumes.delete(one)


async def test_one_that_has_vanished_is_missed(volumes: Volumes, folder: Path) -> None:
    """Not made anew; it can be deleted all the same."""
    one = volumes.create("one")
    (folder / one.id).rename(folder.with_name("away"))
    assert not volumes.there(one)
    with pytest.raises(ApiError), volumes.used(one.id):
        pass
    await volumes.measure(one)
    assert not (folder / one.id).exists()
    await volumes.delete(one)


async def test_measuring(store: Store, folder: Path) -> None:
    """At most every ten seconds, by any clock; links are not followed."""
    now = [100.0]
    volumes = Volumes(store, folder, lambda: now[0])
    await volumes.start()
    one = volumes.create("one")
    files = volumes.files(one.id)
    (files / "d").mkdir()
    (files / "d" / "f").write_bytes(bytes(10_000))
    (files / "l").symlink_to(Path("/usr"))
    await volumes.measure(one)
    assert (one.inode_count, one.measured_at) == (3, 100.0) and 10_000 <= one.used_bytes < 40_000
    (files / "more").write_text("")
    for time, count in ((105.0, 3), (110.0, 4), (50.0, 4)):
        now[0] = time
        await asyncio.gather(volumes.measure(one), volumes.measure(one))
        assert one.inode_count == count
    assert one.measured_at == 50.0
