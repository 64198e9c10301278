"""Signing keys as files: which signs, which is believed, and that nobody else can read them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from edge.core.credentials import Key, keys_from_jwks
from edge.state import keyfiles
from edge.state.keyfiles import (
    FIRST,
    LONGEST_TOKEN,
    SLACK,
    KeyFile,
    KeyFileError,
    believed,
    drop,
    jwks,
    make_key,
    names,
    read_keys,
    signer,
    write_jwks,
)
from tests.core.wires import calm

NOON = 1_772_366_400.0  # 2026-03-01 12:00:00 UTC


def at(*moments: float) -> list[KeyFile]:
    """Keys that sign from these moments on, named by their place."""
    return [
        KeyFile(Path(f"{i}"), since, Key(f"{i}", "EdDSA", None), {})
        for i, since in enumerate(moments)
    ]


def test_names_carry_the_moment(tmp_path: Path) -> None:
    """What is made is read again, in the order of the moments, whatever else lies in the folder."""
    later = make_key(tmp_path, NOON)
    first = make_key(tmp_path, None)
    assert [key.path.name for key in (first, later)] == [FIRST, "signing-key-20260301T120000Z.pem"]
    for other in ("jwks.json", "signing-key.pem.bak", "signing-key-20260399T120000Z.pem", "lock"):
        (tmp_path / other).write_text("x")
    read = read_keys(tmp_path)
    assert [(key.path, key.since, key.jwk) for key in read] == [
        (key.path, since, key.jwk) for key, since in ((first, 0.0), (later, NOON))
    ]
    assert names(tmp_path) == {first.path.name, later.path.name}
    assert names(tmp_path / "none") == frozenset() and read_keys(tmp_path / "none") == ()
    drop([first, first])
    assert [key.path for key in read_keys(tmp_path)] == [later.path]


def test_private_keys_are_private_and_public_ones_public(tmp_path: Path) -> None:
    """Modes at once and again when somebody opened a file up; no secret in the set; no draft left."""
    folder = tmp_path / "new" / "keys"
    key = make_key(folder, None)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    key.path.chmod(0o644)
    read_keys(folder)
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    file = folder / "jwks.json"
    write_jwks(file, [key])
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    published = json.loads(file.read_text())
    assert keys_from_jwks(published).keys() == {key.key.kid}
    assert published == jwks([key]) and "d" not in published["keys"][0]
    assert {entry.name for entry in folder.iterdir()} == {FIRST, "jwks.json"}


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    """The second of the same moment is an error, and the first one stands."""
    key = make_key(tmp_path, NOON)
    with pytest.raises(KeyFileError, match="there already"):
        make_key(tmp_path, NOON)
    assert [found.key.kid for found in read_keys(tmp_path)] == [key.key.kid]


@pytest.mark.parametrize(
    ("moments", "now", "signs", "stand"),
    [
        ((0,), 0, 0, [0]),
        ((0, 100), 99, 0, [0, 1]),
        ((0, 100), 100, 1, [0, 1]),
        ((0, 100), 100 + LONGEST_TOKEN + SLACK - 1, 1, [0, 1]),
        ((0, 100), 100 + LONGEST_TOKEN + SLACK, 1, [1]),
        ((0, 100, 200), 150, 1, [0, 1, 2]),
        ((0, 100, 200), 100 + LONGEST_TOKEN + SLACK, 2, [1, 2]),
        ((100, 200), 50, 0, [0, 1]),
    ],
)
def test_who_signs_and_who_is_believed(
    moments: tuple[float, ...], now: float, signs: int, stand: list[int]
) -> None:
    """By the clock alone; a key of the future signs only where there is no other."""
    keys = at(*moments)
    assert signer(keys, now) is keys[signs]
    assert believed(keys, now) == [keys[i] for i in stand]


@given(
    st.lists(st.integers(0, 300_000), min_size=1, max_size=6, unique=True),
    st.integers(0, 400_000),
    st.integers(0, int(LONGEST_TOKEN)),
)
@calm
def test_no_token_outlives_its_key(moments: list[int], signed: int, age: int) -> None:
    """Whatever the rotations: what was signed at any time is believed until it expires, and from the
    moment its key's file was there.
    """
    keys = at(*sorted(map(float, moments)))
    key = signer(keys, signed)
    assert key in believed(keys, signed + age)
    assert key in believed(keys, 0)


def test_what_is_no_key_is_told(tmp_path: Path) -> None:
    """Nonsense, another kind of key and a folder name themselves and the way out, in one line."""
    path = tmp_path / FIRST
    rsa = generate_private_key(65537, 2048)
    other = rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for text, why in (
        (b"hunter2", r"signing-key\.pem: no usable key .* delete the file"),
        (other, "not an Ed25519 key"),
        (b"", "no usable key"),
    ):
        path.write_bytes(text)
        with pytest.raises(KeyFileError, match=why) as caught:
            read_keys(tmp_path)
        assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(KeyFileError, match="not a file"):
        read_keys(tmp_path)
    with pytest.raises(KeyFileError, match="Not a directory"):
        read_keys(Path("/dev/null"))
    for act in (lambda: make_key(Path("/dev/null/x"), None), lambda: write_jwks(path, [])):
        with pytest.raises(KeyFileError, match="cannot be written"):
            act()


def test_a_crash_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full when the file is flushed: no key, no draft."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfiles.os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        make_key(tmp_path, None)
    assert list(tmp_path.iterdir()) == []
