"""``preview-edge keys``: what lies in the folder after each command, and one line for each mistake."""

from __future__ import annotations

import json
import stat
import time
import tomllib
from pathlib import Path

import pytest

from edge.cli import main
from edge.core.credentials import keys_from_jwks
from edge.core.settings import CookieSettings
from edge.state.keyfiles import make_key, read_keys, signer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a first key."""
    run("new", tmp_path / "keys")
    return tmp_path / "keys"


def run(*arguments: object) -> None:
    """A command that succeeds."""
    main(["keys", *map(str, arguments)])


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a mistake is answered with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    return said.err


def published(file: Path) -> list[str]:
    """The ids in a file of public keys, as an edge reads it."""
    return list(keys_from_jwks(json.loads(file.read_text())))


def kids(folder: Path) -> list[str]:
    """The ids of the private keys, in the order in which they sign."""
    return [key.key.kid for key in read_keys(folder)]


def test_the_first_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A private file for its owner, a public one for edges, and no second first key."""
    (key,) = read_keys(folder)
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert published(folder / "jwks.json") == [key.key.kid]
    run("show", folder)
    shown = capsys.readouterr().out
    assert f"{key.path}  {key.key.kid}  signs\n" in shown
    assert "PRIVATE" not in shown
    assert "keys rotate" in complaint(capsys, "new", folder)
    assert kids(folder) == [key.key.kid]


def test_a_rotation_publishes_first_and_signs_later(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both keys are published, the old one signs until the grace is over; not twice within it."""
    (old,) = kids(folder)
    before = time.time()
    run("rotate", folder, "--grace", 100, "--jwks", tmp_path / "public.json")
    keys = read_keys(folder)
    assert [keys[0].key.kid, keys[1].key.kid] == published(tmp_path / "public.json")
    assert before + 100 <= keys[1].since <= time.time() + 101
    assert signer(keys, time.time()).key.kid == old
    assert signer(keys, keys[1].since).key.kid == keys[1].key.kid
    shown = capsys.readouterr().out
    assert "signs until" in shown and "published, signs from" in shown
    assert "rotate again after that" in complaint(capsys, "rotate", folder)
    assert len(kids(folder)) == 2


def test_old_keys_go_when_their_last_token_has_expired(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tidy` and `rotate` drop them, from the set first; what may still be in use stays."""
    (first,) = kids(folder)
    second = make_key(folder, time.time() - 5000).key.kid
    run("show", folder)
    assert "believed until" in capsys.readouterr().out
    run("tidy", folder)
    assert kids(folder) == [first, second] == published(folder / "jwks.json")
    run("tidy", folder, "--longest-token", 4000)
    assert kids(folder) == [second] == published(folder / "jwks.json")
    third = make_key(folder, time.time() - 4500).key.kid
    run("rotate", folder, "--longest-token", 4000)
    assert kids(folder)[0] == third and len(kids(folder)) == 2


def test_after_a_leak_nothing_old_is_believed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--revoke` leaves one key, which signs at once, even while a rotation is under way."""
    run("rotate", folder)
    old = kids(folder)
    run("rotate", folder, "--revoke")
    (new,) = read_keys(folder)
    assert new.key.kid not in old and new.since <= time.time()
    assert published(folder / "jwks.json") == [new.key.kid]


def test_what_cannot_be_published_does_not_remain(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that no edge would know must not begin to sign."""
    before = kids(folder)
    taken = tmp_path / "a file"
    taken.write_text("x")
    said = complaint(capsys, "rotate", folder, "--jwks", taken / "jwks.json")
    assert "cannot be written" in said
    assert kids(folder) == before


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No keys there, a key that is none, no folder, a grace in the past: one line each, status 2."""
    for command in ("rotate", "tidy", "show"):
        assert "keys new" in complaint(capsys, command, tmp_path)
    (tmp_path / "signing-key.pem").write_text("hunter2")
    said = complaint(capsys, "rotate", tmp_path)
    assert "signing-key.pem: no usable key" in said and "hunter2" not in said
    assert "Missing argument" in complaint(capsys, "rotate")
    assert "--grace" in complaint(capsys, "rotate", tmp_path, "--grace", "-1")
    assert "--kid" in complaint(capsys, "cookie", "--kid", 'a"b')


def test_a_cookie_key_fits_into_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is an entry of ``cookie.keys``, different each time."""
    run("cookie")
    run("cookie", "--kid", "next")
    lines = capsys.readouterr().out.splitlines()
    read = tomllib.loads(f"keys = [{', '.join(lines)}]")
    keys = CookieSettings.model_validate(read).keys
    assert keys[1].kid == "next" and keys[0].kid != "next"
    secrets = {key.secret.get_secret_value() for key in keys}
    assert len(secrets) == 2 and all(len(secret) == 64 for secret in secrets)
