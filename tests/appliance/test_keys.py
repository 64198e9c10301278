"""The signing keys: the first is made once, and files that come and go count at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.appliance.keys import SigningKeys
from edge.core.credentials import keys_from_jwks
from edge.state.keyfiles import FIRST, KeyFileError, drop, make_key, read_keys

NOON = 1_772_366_400.0


class Clock:
    """Unix time that the test sets, and what was logged."""

    def __init__(self) -> None:
        self.now = NOON - 100
        self.told: list[tuple[str, dict[str, object]]] = []

    def __call__(self) -> float:
        return self.now

    def log(self, event: str, **fields: object) -> None:
        """Hear an event."""
        self.told.append((event, fields))


def followed(folder: Path, clock: Clock) -> SigningKeys:
    """The keys of a folder by this clock."""
    return SigningKeys(folder, wall=clock, log=clock.log)


def published(keys: SigningKeys) -> set[str]:
    """The ids of the public set, as an edge reads it."""
    return set(keys_from_jwks(keys.jwks))


def test_the_key_is_kept(tmp_path: Path) -> None:
    """A second run has the same key; edges accept the set."""
    first = SigningKeys(tmp_path)
    again = SigningKeys(tmp_path)
    assert again.jwks == first.jwks and again.key.kid == first.key.kid
    assert published(first) == {first.key.kid}
    assert [entry.name for entry in tmp_path.iterdir()] == [FIRST]


def test_a_broken_key_is_told(tmp_path: Path) -> None:
    """At the start, nobody signs with what cannot be read."""
    (tmp_path / FIRST).write_text("nonsense")
    with pytest.raises(KeyFileError, match="delete the file"):
        SigningKeys(tmp_path)


def test_a_rotation_goes_by_files_and_the_clock(tmp_path: Path) -> None:
    """A new file is published at once, signs from its moment on, and the old one goes when its time is over."""
    clock = Clock()
    keys = followed(tmp_path, clock)
    old = keys.key.kid
    new = make_key(tmp_path, NOON).key.kid
    assert published(keys) == {old, new} and keys.key.kid == old
    assert [event for event, _ in clock.told] == ["keys_changed"]
    clock.now = NOON
    assert keys.key.kid == new and published(keys) == {old, new}
    clock.now = NOON + 86_400 + 60
    assert published(keys) == {new}
    drop(read_keys(tmp_path)[:1])
    assert published(keys) == {new} and keys.key.kid == new


def test_the_last_good_keys_stay(tmp_path: Path) -> None:
    """A file that cannot be read is told once and changes nothing; mended, it counts. No file: as before."""
    clock = Clock()
    keys = followed(tmp_path, clock)
    old = keys.key.kid
    bad = tmp_path / "signing-key-20260301T120000Z.pem"
    bad.write_text("half of a")
    for _ in range(3):
        assert keys.key.kid == old and published(keys) == {old}
    assert [event for event, _ in clock.told] == ["keys_unusable"]
    bad.unlink()
    new = make_key(tmp_path, NOON).key.kid
    assert published(keys) == {old, new}
    drop(read_keys(tmp_path))
    assert published(keys) == {old, new}
    tmp_path.rmdir()
    assert keys.key.kid == old
