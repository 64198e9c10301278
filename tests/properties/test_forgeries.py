"""Forgeries of tokens whose real key is public: through the whole decision, whatever the algorithm, in bounded time."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from edge.core.credentials import Family, Key, Keys, keys_from_jwks, sign
from tests.core.previews import CLAIMS, COOKIES
from tests.core.wires import examples
from tests.properties.test_tokens import PAYLOAD, Sight, b64, carried, judged, names

PRIVATE: dict[str, Any] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
}
WRITERS = {"EdDSA": OKPAlgorithm, "ES256": ECAlgorithm, "RS256": RSAAlgorithm}
JWKS = {
    alg: {"keys": [json.loads(WRITERS[alg].to_jwk(key.public_key())) | {"kid": "k1"}]}
    for alg, key in PRIVATE.items()
}
GOOD = {
    (alg, family): sign(CLAIMS, family, Key("k1", alg, key)).encode()
    for alg, key in PRIVATE.items()
    for family in (Family.EDGE, Family.PROXY)
}
ISSUED = sorted(GOOD)
PATIENCE = 3.0
"""Seconds of processor time for what takes a millisecond at most."""


class Believing(Sight):
    """Sees a running sandbox, and believes one published key, of that algorithm."""

    def __init__(self, alg: str) -> None:
        super().__init__()
        self.keys = Keys(keys_from_jwks(JWKS[alg]), {COOKIES.kid: COOKIES})


def shapes(alg: str) -> list[bytes]:
    """The public key in every shape in which a careless library may take it for a secret."""
    key = PRIVATE[alg].public_key()
    formats = [
        (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.OpenSSH, PublicFormat.OpenSSH),
        *{
            "EdDSA": [(Encoding.Raw, PublicFormat.Raw)],
            "ES256": [
                (Encoding.X962, PublicFormat.UncompressedPoint),
                (Encoding.X962, PublicFormat.CompressedPoint),
            ],
            "RS256": [(Encoding.PEM, PublicFormat.PKCS1), (Encoding.DER, PublicFormat.PKCS1)],
        }[alg],
    ]
    (published,) = JWKS[alg]["keys"]
    texts = [json.dumps(JWKS[alg]), json.dumps(published), *map(str, published.values()), ""]
    return [key.public_bytes(*one) for one in formats] + [text.encode() for text in texts]


def put_together(header: dict[str, Any], payload: bytes, secret: bytes, digest: str) -> bytes:
    """A token of exactly this, with the HMAC of that secret."""
    text = b64(json.dumps(header).encode()) + b"." + b64(payload)
    return text + b"." + b64(hmac.digest(secret, text, digest))


@pytest.mark.parametrize(("alg", "family"), ISSUED)
def test_a_genuine_token_passes(alg: str, family: Family) -> None:
    """Or the refusals here would prove nothing; one signature, and none the next time."""
    view = Believing(alg)
    head = carried(family, GOOD[alg, family])
    assert judged(head, view) == ("forward", 1)
    view.looks = 0
    assert judged(head, view) == ("forward", 0)


@given(st.sampled_from(ISSUED), st.data())
@examples(200)
def test_the_public_key_is_no_secret(issued: tuple[str, Family], data: st.DataObject) -> None:
    """HMACs with it, whatever its shape and the header: refused; unless that names the key's own algorithm, unchecked."""
    alg, family = issued
    secret = data.draw(st.sampled_from(shapes(alg)))
    secret = data.draw(st.sampled_from([secret, secret.strip(), secret + b"\n"]))
    digest = data.draw(st.sampled_from(["sha256", "sha384", "sha512"]))
    said = data.draw(st.sampled_from(["HS256", "HS384", "HS512", "none", alg]))
    extra = data.draw(
        st.sampled_from([{}, {"jwk": JWKS[alg]["keys"][0]}, {"jku": "https://x/"}, {"b64": True}])
    )
    header = {"typ": str(family), "alg": said, "kid": "k1"} | extra
    token = put_together(header, json.dumps(PAYLOAD).encode(), secret, digest)
    expected = (names(family).invalid.code, int(said == alg))
    assert judged(carried(family, token), Believing(alg)) == expected


@given(st.sampled_from(ISSUED), st.data())
@examples(200)
def test_no_bit_can_be_changed(issued: tuple[str, Family], data: st.DataObject) -> None:
    """Header, claims or signature, under each algorithm: never a way in."""
    alg, family = issued
    value = bytearray(GOOD[issued])
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if family is Family.PROXY and not all(0x20 < byte < 0x7F for byte in value):
        return  # no such value reaches the decision in a header field
    code, checks = judged(carried(family, bytes(value)), Believing(alg))
    assert code != "forward" and checks <= 1


@pytest.mark.parametrize(("alg", "family"), ISSUED)
def test_a_token_inside_a_token_is_none(alg: str, family: Family) -> None:
    """Nested JWTs (RFC 7519, appendix A.2), tokens as claims, in base64, as a JWE: refused by looking."""
    good, key = GOOD[alg, family], PRIVATE[alg]
    header = {"typ": str(family), "alg": alg, "kid": "k1"}
    inner = good.decode()

    def signed(header: dict[str, Any], payload: bytes) -> bytes:
        text = b64(json.dumps(header).encode()) + b"." + b64(payload)
        algorithm = WRITERS[alg](WRITERS[alg].SHA256) if alg != "EdDSA" else OKPAlgorithm()
        return text + b"." + b64(algorithm.sign(text, key))

    assert judged(carried(family, signed(header, json.dumps(PAYLOAD).encode())), Believing(alg)) == (
        "forward", 1,
    )  # fmt: skip
    for token in (
        signed(header, good),
        signed(header | {"cty": "JWT"}, good),
        signed(header | {"cty": "JWT"}, json.dumps(inner).encode()),
        signed(header, json.dumps({"payload": PAYLOAD}).encode()),
        signed(header, json.dumps([PAYLOAD]).encode()),
        signed(header, json.dumps(PAYLOAD | {"sub": {"token": inner}}).encode()),
        b64(good),
        good + b"." + good,
        b".".join([good, b"AAAA", b"AAAA"]),
    ):
        code, checks = judged(carried(family, token), Believing(alg))
        assert (code, checks) == (names(family).invalid.code, 0)


PIECES = st.sampled_from(
    [b"[", b"{", b'{"a":', b'"', b"9" * 40, b"1e9", b"-", b"\\u0000", b"\\", b",", b"]", b"}", b"x", b"\xff"]
)  # fmt: skip


@given(
    st.sampled_from(list(Family)),
    st.lists(st.tuples(PIECES, st.integers(1, 4000)), max_size=3),
    st.lists(st.tuples(PIECES, st.integers(1, 4000)), max_size=3),
    st.sampled_from([b64, base64.b64encode, bytes]),
)
@examples(100)
def test_no_token_takes_long(
    family: Family, front: list[tuple[bytes, int]], back: list[tuple[bytes, int]], spelled: Any
) -> None:
    """Deep, long or broken, up to the longest head that is read: looked through in no time, and no signature."""
    header, payload = (b"".join(piece * times for piece, times in half) for half in (front, back))
    token = spelled(header) + b"." + spelled(payload) + b"." + b64(b"x" * 64)
    token = token[: 5000 if family is Family.EDGE else 60_000]  # in a query it is escaped
    if family is not Family.EDGE:
        token = bytes(byte for byte in token if 0x20 < byte < 0x7F and byte != 0x3B) or b"x"
    head = carried(family, token)
    view = Believing("EdDSA")
    began = time.thread_time()
    answer = judged(head, view)
    assert time.thread_time() - began < PATIENCE
    assert answer == (names(family).invalid.code, 0)
