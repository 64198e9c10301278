"""Signing keys as files: made, rotated by the clock, published, and dropped when their time is over.

A folder holds one private key a file, and the file's name says from when on it signs::

    signing-key.pem                     the first one: from the beginning
    signing-key-20260301T120000Z.pem    from that moment on (UTC)

Two rules follow from the names, and everybody who reads the folder comes to the same result:

* **The newest key whose moment has come signs.** So a key can be published before it signs.
* **A key is published from the moment its file is there until the last token it can have signed has
  expired**: that is the moment the next key began to sign, and the longest lifetime of a token.

So a rotation is one new file with a moment a little in the future, and no second step that somebody
could forget or do too early. A file never changes; it comes and goes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from edge.core.credentials import Key

FIRST = "signing-key.pem"
LONGEST_TOKEN = 86_400.0
"""Seconds the longest token may live (contract: credentials)."""
SLACK = 60.0
"""Seconds a key outlives its last token, for clocks that differ."""
MAX_PEM = 16 * 1024
"""Bytes of a key file that are read."""

_NAME = re.compile(r"signing-key(?:-(\d{8}T\d{6}Z))?\.pem")
_MOMENT = "%Y%m%dT%H%M%SZ"


class KeyFileError(Exception):
    """A key file cannot be read or made. The message is one line that says which and what to do."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One private key, its public half (RFC 7517, RFC 8037), and the Unix time from which it signs."""

    path: Path
    since: float
    key: Key
    jwk: dict[str, str]


def names(folder: Path) -> frozenset[str]:
    """The names of the key files that are there; none where there is no folder. Raises `KeyFileError`."""
    try:
        return frozenset(file.name for file in folder.iterdir() if _since(file.name) is not None)
    except FileNotFoundError:
        return frozenset()
    except OSError as e:
        raise KeyFileError(f"{folder}: {e.strerror}; name a folder with signing keys") from None


def read_keys(folder: Path) -> tuple[KeyFile, ...]:
    """All keys of a folder, the one that signs last at the end. Raises `KeyFileError`.

    Files that others may read are closed to them: a private key is nobody else's business.
    """
    found = [(since, name) for name in names(folder) if (since := _since(name)) is not None]
    return tuple(_read(folder / name, since) for since, name in sorted(found))


def signer(keys: Sequence[KeyFile], now: float) -> KeyFile:
    """The key that signs at this time: the newest whose moment has come, else the first."""
    return next((key for key in reversed(keys) if key.since <= now), keys[0])


def believed(
    keys: Sequence[KeyFile], now: float, longest_token: float = LONGEST_TOKEN
) -> list[KeyFile]:
    """The keys to publish at this time: all but those whose last token has expired."""
    ends = [later.since + longest_token + SLACK for later in keys[1:]]
    return [key for key, end in zip(keys, [*ends, float("inf")], strict=True) if end > now]


def jwks(keys: Iterable[KeyFile]) -> dict[str, object]:
    """The set of public keys that edges read."""
    return {"keys": [key.jwk for key in keys]}


def make_key(folder: Path, since: float | None) -> KeyFile:
    """A new key that signs from ``since`` on (Unix time, whole seconds; None = the first of all).

    Its file appears whole, readable by its owner only, or not at all. Raises `KeyFileError`, also when
    the file is there already.
    """
    name = FIRST if since is None else f"signing-key-{_spelled(since)}.pem"
    path = folder / name
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            raise KeyFileError(f"{path}: is there already")
        _put(path, pem, 0o600)
    except OSError as e:
        raise KeyFileError(f"{path}: cannot be written: {e.strerror}") from None
    return _read(path, since or 0.0)


def write_jwks(file: Path, keys: Iterable[KeyFile]) -> None:
    """Replace the file of public keys, whole or not at all; everybody may read it. Raises `KeyFileError`."""
    text = json.dumps(jwks(keys), indent=2) + "\n"
    try:
        _put(file, text.encode(), 0o644)
    except OSError as e:
        raise KeyFileError(f"{file}: cannot be written: {e.strerror}") from None


def drop(keys: Iterable[KeyFile]) -> None:
    """Delete key files. Raises `KeyFileError`."""
    for key in keys:
        try:
            key.path.unlink(missing_ok=True)
        except OSError as e:
            raise KeyFileError(f"{key.path}: cannot be deleted: {e.strerror}") from None


def _since(name: str) -> float | None:
    """The Unix time that a file's name says; None for names of other files."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    if match[1] is None:
        return 0.0
    try:
        return datetime.strptime(match[1], _MOMENT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None  # the 99th of a month


def _spelled(since: float) -> str:
    return datetime.fromtimestamp(since, UTC).strftime(_MOMENT)


def _read(path: Path, since: float) -> KeyFile:
    try:
        if not path.is_file():
            raise KeyFileError(f"{path}: not a file; delete it")
        path.chmod(0o600)
        with path.open("rb") as file:
            private = load_pem_private_key(file.read(MAX_PEM), password=None)
    except (OSError, ValueError, TypeError) as e:
        why = (
            e.strerror if isinstance(e, OSError) else "not a private key in PEM without a password"
        )
        raise KeyFileError(
            f"{path}: no usable key ({why}); delete the file to make a new one"
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: not an Ed25519 key; delete the file to make a new one")
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}
    # RFC 7638: the name of a key is the hash of its required members, sorted, without blanks.
    thumbprint = hashlib.sha256(json.dumps(public, separators=(",", ":")).encode()).digest()
    kid = _base64url(thumbprint)
    return KeyFile(
        path,
        since,
        Key(kid, "EdDSA", private),
        {**public, "kid": kid, "use": "sig", "alg": "EdDSA"},
    )


def _put(path: Path, data: bytes, mode: int) -> None:
    """Write a file that appears whole, with its mode, or not at all: a crash must leave no half of it."""
    fd, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
            os.fchmod(fd, mode)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
