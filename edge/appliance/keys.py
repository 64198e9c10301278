"""The key that signs preview tokens: Ed25519, kept in the data directory, shown as a JWK set."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
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

FILE_NAME = "signing-key.pem"


class KeyUnusable(Exception):
    """The key file cannot be read or made. The message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private key, and its public half as RFC 7517 and RFC 8037 spell it."""

    key: Key
    jwk: dict[str, str]

    @property
    def jwks(self) -> dict[str, object]:
        """The JWK set that edges read."""
        return {"keys": [self.jwk]}


def signing_key(data_dir: Path) -> SigningKey:
    """The key of this data directory, made on first use, readable by its owner only.

    Raises `KeyUnusable`.
    """
    path = data_dir / FILE_NAME
    try:
        if not path.exists():
            _write(path)
        path.chmod(0o600)
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as e:
        raise KeyUnusable(
            f"{path}: no usable key ({e}); delete the file to make a new one"
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyUnusable(f"{path}: not an Ed25519 key; delete the file to make a new one")
    return _named(private)


def _write(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    # Whole or not at all: a crash must not leave half a key behind.
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    draft.replace(path)


def _named(private: Ed25519PrivateKey) -> SigningKey:
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}
    # RFC 7638: the name of a key is the hash of its required members, sorted, without blanks.
    thumbprint = hashlib.sha256(json.dumps(public, separators=(",", ":")).encode()).digest()
    kid = _base64url(thumbprint)
    return SigningKey(
        Key(kid, "EdDSA", private), {**public, "kid": kid, "use": "sig", "alg": "EdDSA"}
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
