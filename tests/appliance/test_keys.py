"""The signing key: made once, private, and believed by the edge."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.appliance.keys import FILE_NAME, KeyUnusable, signing_key
from edge.core.credentials import keys_from_jwks


def test_the_key_is_kept_and_private(tmp_path: Path) -> None:
    """A second run has the same key; only the owner may read the file, even if it was opened up."""
    first = signing_key(tmp_path)
    path = tmp_path / FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert signing_key(tmp_path).jwks == first.jwks
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE_NAME]


def test_edges_accept_the_key_set_and_it_has_no_secret(tmp_path: Path) -> None:
    """The edge's own reader takes the set, and the private part is not in it."""
    key = signing_key(tmp_path)
    assert keys_from_jwks(key.jwks).keys() == {key.key.kid}
    assert "d" not in key.jwk


def test_a_broken_key_is_told(tmp_path: Path) -> None:
    """A file that is no key, or one of another kind, names itself and the way out."""
    path = tmp_path / FILE_NAME
    path.write_text("nonsense")
    with pytest.raises(KeyUnusable, match=r"signing-key\.pem: no usable key .* delete the file"):
        signing_key(tmp_path)
    rsa = generate_private_key(65537, 2048)
    path.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyUnusable, match="not an Ed25519 key"):
        signing_key(tmp_path)
