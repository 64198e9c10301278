"""All volumes: rows of the store, and directories below one of ours.

A volume's directory is ``ID/files``, beside which the file calls have a place for what is on its way. Its data
is somebody's only copy, so nothing here removes a directory with something in it unless its volume was
deleted; and one that has vanished is missed, never made anew.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge.appliance.problems import (
    INSUFFICIENT_STORAGE,
    NOT_FOUND,
    STATE_UNWRITABLE,
    VOLUME_BUSY,
    VOLUME_LIMIT_EXCEEDED,
    VOLUME_NAME_CONFLICT,
    VOLUME_UNAVAILABLE,
    ApiError,
)
from edge.appliance.rows import Rows
from edge.appliance.runtime.entries import Budget, below
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.host import SEARCHES
from edge.appliance.runtime.interface import FileTooLarge
from edge.appliance.runtime.paths import DIRECTORY, MAX_DEPTH
from edge.appliance.runtime.staged import clear
from edge.appliance.store import Store
from edge.appliance.volumes.volume import Volume, from_document, to_document

MAX_VOLUMES = 100

MEASURED = 10.0
"""Seconds for which a measurement is good enough."""

MEASURED_ENTRIES = 100_000
MEASURED_SECONDS = 2.0
"""How far a measurement goes; what is beyond is not counted."""

_DELETED = ".deleted"


class Volumes:
    """The volumes below ``folder``. ``wall`` is Unix time in seconds. Raises `StoreError`."""

    def __init__(self, store: Store, folder: Path, wall: Callable[[], float]) -> None:
        self._folder = folder.absolute()
        self._wall = wall
        self._rows = Rows(store, "volumes", write=to_document, read=from_document)
        self._volumes = {volume.id: volume for volume in self._rows.load()}
        self._pinned: Counter[str] = Counter()
        self._used: Counter[str] = Counter()
        self._measuring = asyncio.Semaphore(1)
        self.searches = asyncio.Semaphore(SEARCHES)
        """For calls that may take long: few at a time, so that threads are left for others."""

    async def start(self) -> None:
        """Finish or take back what an earlier run had begun. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in list(self._folder.iterdir()):
            if left.name.endswith(_DELETED):
                name = left.name.removesuffix(_DELETED)
                if name in self._volumes:
                    # The volume was not deleted after all, since the store does not say so.
                    left.rename(left.with_name(name))
                else:
                    await asyncio.to_thread(clear, left)
            elif left.name in self._volumes:
                # What was on its way in did not get there.
                await asyncio.to_thread(clear, left / "aside")
            else:
                # Never told to anybody, if it is empty; what is not is not ours to judge.
                with suppress(OSError):
                    (left / "files").rmdir()
                    left.rmdir()

    def all(self) -> list[Volume]:
        """All of them, oldest first."""
        return list(self._volumes.values())

    def get(self, volume_id: str) -> Volume:
        """Raises `ApiError` (not_found, which is what the published client knows)."""
        volume = self._volumes.get(volume_id)
        if volume is None:
            raise _unknown("There is no volume with this id.")
        return volume

    def named(self, name: str) -> Volume:
        """Raises `ApiError` (not_found)."""
        for volume in self._volumes.values():
            if volume.name == name:
                return volume
        raise _unknown("There is no volume of this name.")

    def of(self, ref: str) -> Volume:
        """By id or by name. Raises `ApiError` (not_found)."""
        volume = self._volumes.get(ref)
        return volume if volume is not None else self.named(ref)

    def files(self, volume_id: str) -> Path:
        """Where its data is."""
        return self._folder / volume_id / "files"

    def there(self, volume: Volume) -> bool:
        """Whether its directory is."""
        try:
            return stat.S_ISDIR(self.files(volume.id).lstat().st_mode)
        except OSError:
            return False

    def create(self, name: str) -> Volume:
        """A new, empty one. Raises `ApiError` (volume_name_conflict, volume_limit_exceeded,
        insufficient_storage, state_unwritable).
        """
        if any(volume.name == name for volume in self._volumes.values()):
            raise ApiError(VOLUME_NAME_CONFLICT)
        if len(self._volumes) >= MAX_VOLUMES:
            raise ApiError(VOLUME_LIMIT_EXCEEDED, details={"limit": MAX_VOLUMES})
        volume = Volume(f"vol_{secrets.token_hex(8)}", name, self._wall())
        folder = self.files(volume.id)
        try:
            folder.mkdir(mode=0o700, parents=True)
            self._rows.put(volume)
        except BaseException as e:
            for left in (folder, folder.parent):
                with suppress(OSError):
                    left.rmdir()
            if isinstance(e, OSError):
                raise _unwritable(e) from None
            raise
        self._volumes[volume.id] = volume
        return volume

    async def delete(self, volume: Volume) -> None:
        """Remove it and its data. Raises `ApiError` (not_found, volume_busy while `pinned` or `used`, state_unwritable)."""
        self.get(volume.id)
        if self._pinned[volume.id] or self._used[volume.id]:
            raise ApiError(VOLUME_BUSY, "The volume is being used.")
        folder = self._folder / volume.id
        away = folder.with_name(volume.id + _DELETED)
        try:
            folder.rename(away)
        except FileNotFoundError:
            pass
        except OSError as e:
            raise _unwritable(e) from None
        try:
            self._rows.remove(volume.id)
        except BaseException:
            with suppress(OSError):
                away.rename(folder)
            raise
        del self._volumes[volume.id]
        await asyncio.to_thread(clear, away)

    @contextmanager
    def pinned(self, volume_ids: Iterable[str]) -> Iterator[None]:
        """Within, these are not deleted: somebody is about to attach them."""
        ids = list(volume_ids)
        self._pinned.update(ids)
        try:
            yield
        finally:
            self._pinned.subtract(ids)

    @contextmanager
    def used(self, volume_id: str) -> Iterator[WorkTree]:
        """Its files, for as long as in here. Raises `ApiError` (not_found, volume_unavailable)."""
        volume = self.get(volume_id)
        if not self.there(volume):
            raise ApiError(VOLUME_UNAVAILABLE, "The volume's directory is not there.")
        self._used[volume_id] += 1
        try:
            yield WorkTree(self.files(volume_id), name="")
        finally:
            self._used[volume_id] -= 1

    def pins(self, volume_id: str) -> int:
        """How many are about to attach it."""
        return self._pinned[volume_id]

    async def measure(self, *volumes: Volume) -> None:
        """Look how much is in them, unless that was done just now; in all only for so long."""
        async with self._measuring:
            end = time.monotonic() + MEASURED_SECONDS
            for volume in volumes:
                if time.monotonic() > end:
                    return
                now, last = self._wall(), volume.measured_at
                # A clock set back must not make the numbers stand still.
                if last is not None and 0 <= now - last < MEASURED:
                    continue
                found = await asyncio.to_thread(_measured, self.files(volume.id))
                if found is not None:
                    volume.used_bytes, volume.inode_count = found
                volume.measured_at = now


def _measured(folder: Path) -> tuple[int, int] | None:
    """Bytes and entries of a directory; None where there is none."""
    size = count = 0
    try:
        top = os.open(folder, DIRECTORY)
    except OSError:
        return None
    try:
        budget = Budget("", entries=MEASURED_ENTRIES, seconds=MEASURED_SECONDS)
        for found in below(top, "", MAX_DEPTH, budget):
            count += 1
            size += found.status.st_blocks * 512
    except (OSError, FileTooLarge):
        pass  # As far as it could be seen.
    finally:
        os.close(top)
    return size, count


def _unknown(message: str) -> ApiError:
    # With the code that the published client looks for, which is that of every unknown address.
    return ApiError(NOT_FOUND, message, action="List the volumes for ids and names, or create one.")


def _unwritable(error: OSError) -> ApiError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ApiError(INSUFFICIENT_STORAGE if full else STATE_UNWRITABLE)
