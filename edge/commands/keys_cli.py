"""``preview-edge keys``: signing keys and cookie keys, made and rotated.

Everything about signing keys happens in files (`edge.state.keyfiles`), so that a control plane of any
make can follow: it signs with the newest key whose moment has come. No command prints a private key.
"""

from __future__ import annotations

import math
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from edge.ops.process import StartError
from edge.state.keyfiles import (
    LONGEST_TOKEN,
    KeyFile,
    KeyFileError,
    believed,
    drop,
    make_key,
    read_keys,
    signer,
    write_jwks,
)

GRACE = 300.0
"""Seconds from publishing a key to signing with it: several refreshes (`tokens.jwks_refresh`) of an edge."""

FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
JWKS = click.option(
    "--jwks",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to put the public keys.  [default: jwks.json in FOLDER]",
)
LONGEST = click.option(
    "--longest-token",
    type=click.FloatRange(0),
    default=LONGEST_TOKEN,
    show_default=True,
    metavar="SECONDS",
    help="Longest lifetime of a token: so long an old key is still believed.",
)


class _Telling(click.Group):
    """What is wrong with a file is the person's to mend: one line, exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyFileError as e:
            raise StartError(str(e)) from None


@click.group(cls=_Telling)
def keys() -> None:
    """Make and rotate the keys of preview tokens and cookies."""


@keys.command("new")
@FOLDER
@JWKS
def new(folder: Path, jwks: Path | None) -> None:
    """The first signing key (Ed25519) in FOLDER, and the file of public keys that edges read.

    Private keys are readable by their owner only.
    """
    files = _KeyFolder(folder, jwks, LONGEST_TOKEN)
    if files.keys():
        raise StartError(
            f"{folder}: there is a signing key already; `preview-edge keys rotate` adds the next"
        )
    files.add(None, time.time())
    files.show()


@keys.command("rotate")
@FOLDER
@JWKS
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=GRACE,
    show_default=True,
    metavar="SECONDS",
    help="From publishing the new key to signing with it; longer than edges take to refresh.",
)
@LONGEST
@click.option(
    "--revoke",
    is_flag=True,
    help="After a leak: the new key signs at once, and every token of the old ones is refused.",
)
def rotate(
    folder: Path, jwks: Path | None, grace: float, longest_token: float, *, revoke: bool
) -> None:
    """Publish a new key in FOLDER that signs after a grace, and drop keys whose last token has expired.

    Nothing else is to be done: who signs goes by the moment in the file's name.
    """
    now = time.time()
    files = _KeyFolder(folder, jwks, longest_token)
    old = files.some()
    if revoke:
        # Whole seconds, the past one: a moment that has come, whoever looks.
        files.add(math.floor(now), now, instead_of=old)
    else:
        if old[-1].since > now:
            raise StartError(
                f"{old[-1].path}: is published and signs from {_moment(old[-1].since)} on; "
                "rotate again after that"
            )
        files.add(math.ceil(now + grace), now)
    files.show()


@keys.command("tidy")
@FOLDER
@JWKS
@LONGEST
def tidy(folder: Path, jwks: Path | None, longest_token: float) -> None:
    """Drop the keys in FOLDER whose last token has expired, as `rotate` does, too."""
    files = _KeyFolder(folder, jwks, longest_token)
    files.some()
    files.publish(time.time())
    files.show()


@keys.command("show")
@FOLDER
@LONGEST
def show(folder: Path, longest_token: float) -> None:
    """The keys in FOLDER: which signs, which is only believed, and until when."""
    files = _KeyFolder(folder, None, longest_token)
    files.some()
    files.show()


@keys.command("cookie")
@click.option("--kid", help="Name of the key.  [default: made from today's date]")
def cookie(kid: str | None) -> None:
    """A new secret, as an entry for cookie.keys (or tokens.hs256) in the settings file."""
    name = kid or f"{datetime.now(UTC):%Y-%m-%d}-{secrets.token_hex(2)}"
    if not name.isascii() or not name.isprintable() or set(name) & set("\"\\'"):
        raise StartError("--kid: must be printable ASCII without quotes and backslashes")
    click.echo(f'{{ kid = "{name}", secret = "{secrets.token_hex(32)}" }}')


class _KeyFolder:
    """A folder of signing keys, and the file of the public ones. Everything raises `KeyFileError`."""

    def __init__(self, folder: Path, jwks: Path | None, longest_token: float) -> None:
        self._folder = folder
        self._jwks = jwks or folder / "jwks.json"
        self._longest = longest_token

    def keys(self) -> tuple[KeyFile, ...]:
        """All keys, the one that signs last at the end."""
        return read_keys(self._folder)

    def some(self) -> tuple[KeyFile, ...]:
        """The keys of a folder that has to have some. Raises `StartError`."""
        found = self.keys()
        if not found:
            raise StartError(
                f"{self._folder}: there is no signing key; `preview-edge keys new` makes the first"
            )
        return found

    def add(self, since: float | None, now: float, instead_of: tuple[KeyFile, ...] = ()) -> None:
        """A new key, published; nothing of it remains when it cannot be published."""
        made = make_key(self._folder, since)
        try:
            drop(instead_of)
            self.publish(now)
        except BaseException:
            if not instead_of:
                drop([made])
            raise

    def publish(self, now: float) -> None:
        """Write the public keys, then drop the private ones that have no part in them any more."""
        found = self.keys()
        standing = believed(found, now, self._longest)
        write_jwks(self._jwks, standing)
        drop(key for key in found if key not in standing)

    def show(self) -> None:
        """One line a key."""
        now, found = time.time(), self.keys()
        signs = signer(found, now)
        standing = believed(found, now, self._longest)
        for key, later in zip(found, [*found[1:], None], strict=True):
            if key is signs:
                state = f"signs until {_moment(later.since)}" if later else "signs"
            elif key.since > now:
                state = f"published, signs from {_moment(key.since)} on"
            else:
                state = "believed until its last token expires" if key in standing else "over"
            click.echo(f"{key.path}  {key.key.kid}  {state}")
        if self._jwks.is_file():
            click.echo(f"{self._jwks}  the public keys, for edges")


def _moment(since: float) -> str:
    return f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC"
