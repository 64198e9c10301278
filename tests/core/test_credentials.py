"""Credentials, seen by an attacker: who can make the edge believe what nobody signed?"""

from __future__ import annotations

import base64
import json
import string
from dataclasses import replace

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from edge.core import credentials
from edge.core.credentials import (
    DIRECT,
    PROXY,
    Claims,
    Expectation,
    Family,
    Key,
    Keys,
    Peeked,
    UnknownKey,
    keys_from_jwks,
    peek,
    scope_problem,
    sign,
    verify,
)
from edge.core.records import Transport
from tests.core.wires import calm

PRIVATE = Ed25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key()
OTHER = Ed25519PrivateKey.generate()
SECRET = "a shared secret of the fleet, long enough"

SIGNER = Key("k1", "EdDSA", PRIVATE)
KEYS = Keys(
    issued={"k1": Key("k1", "EdDSA", PUBLIC), "s1": Key("s1", "HS256", SECRET)},
    continuation={"c1": Key("c1", "HS256", SECRET + "!")},
)
EXPECT = Expectation("nullspace", "preview.example", 4096)
CLAIMS = Claims(
    "nullspace",
    "preview.example",
    "sb_aaaaaaaa",
    3000,
    Transport.HTTP,
    "pvg_1",
    "user_1",
    1000.0,
    1900.0,
    "jti-1",
)
HEADER = {"alg": "EdDSA", "kid": "k1", "typ": "ns-edge+jwt"}
PAYLOAD = {
    "iss": "nullspace", "aud": "preview.example", "sub": "sb_aaaaaaaa", "port": 3000,
    "kind": "http_port", "grant": "pvg_1", "principal": "user_1", "iat": 1000.0, "exp": 1900.0,
    "jti": "jti-1",
}  # fmt: skip
GOOD = sign(CLAIMS, Family.EDGE, SIGNER).encode()


def b64(data: bytes) -> bytes:
    """Base64url without padding, as in tokens."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def forge(header: object = HEADER, payload: object = PAYLOAD, *, key: Ed25519PrivateKey = PRIVATE):
    """A token whose parts are exactly these (bytes as they are, else JSON), signed with ``key``."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    ]
    signed = b".".join(map(b64, parts))
    return signed + b"." + b64(key.sign(signed))


def accepted(token: bytes, family: Family = Family.EDGE, keys: Keys = KEYS) -> Claims | None:
    """What the edge would believe: peek, then verify."""
    peeked = peek(token, family, keys, EXPECT)
    return peeked.claims if isinstance(peeked, Peeked) and verify(token, peeked) else None


# --- What is believed ----------------------------------------------------------------------------


def test_a_genuine_token_is_believed():
    """What was signed is what is read, for our own signer and a hand-made token alike."""
    assert accepted(GOOD) == CLAIMS
    assert accepted(forge()) == CLAIMS


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("signed_as", Family)
def test_families_never_pass_for_one_another(family, signed_as):
    """A token is good in its own family only, whichever keys sign it."""
    key = Key("c1", "HS256", SECRET + "!") if signed_as is Family.CONTINUATION else SIGNER
    token = sign(CLAIMS, signed_as, key).encode()
    assert (accepted(token, family) == CLAIMS) is (family is signed_as)


def test_keys_of_cookies_sign_nothing_else():
    """The fleet's own key makes no edge tokens, and the control plane's no cookies."""
    fleet = Key("c1", "HS256", SECRET + "!")
    assert accepted(sign(CLAIMS, Family.EDGE, fleet).encode()) is None
    assert accepted(sign(CLAIMS, Family.CONTINUATION, SIGNER).encode(), Family.CONTINUATION) is None


@pytest.mark.parametrize("alg", ["ES256", "RS256", "HS256"])
def test_other_algorithms(alg):
    """Keys of each allowed algorithm work, published as JWKS (a secret from settings)."""
    if alg == "HS256":
        signer, keys = Key("s1", "HS256", SECRET), KEYS
    else:
        private = (
            ec.generate_private_key(ec.SECP256R1())
            if alg == "ES256"
            else rsa.generate_private_key(65537, 2048)
        )
        algorithm = ECAlgorithm if alg == "ES256" else RSAAlgorithm
        jwk = json.loads(algorithm.to_jwk(private.public_key())) | {"kid": "x"}
        signer, keys = Key("x", alg, private), Keys(keys_from_jwks({"keys": [jwk]}), {})
    token = sign(CLAIMS, Family.EDGE, signer).encode()
    assert accepted(token, keys=keys) == CLAIMS
    assert accepted(token[:-6] + b"AAAAAA", keys=keys) is None


# --- What an attacker tries ----------------------------------------------------------------------


@calm
@given(st.integers(0, len(GOOD) * 8 - 1))
def test_no_bit_can_be_flipped(bit):
    """Not one of the bits of a token is spare: any flip and it is refused."""
    bad = bytearray(GOOD)
    bad[bit // 8] ^= 1 << bit % 8
    assert accepted(bytes(bad)) is None


def test_every_spelling_of_the_last_characters_is_refused():
    """Base64 leaves spare bits in the last character; only the canonical spelling counts."""
    alphabet = (string.ascii_letters + string.digits + "-_+/=.! \n\0").encode()
    spellings = [GOOD[:-1] + bytes([character]) for character in alphabet]
    assert [token for token in spellings if accepted(token) is not None] == [GOOD]
    # Most are refused before the signature is looked at: the last character has two bits that count.
    assert sum(peek(token, Family.EDGE, KEYS, EXPECT) is not None for token in spellings) == 4


@calm
@given(st.integers(0, len(GOOD)), st.binary(min_size=1, max_size=3))
def test_nothing_can_be_inserted(at, noise):
    """No byte can be added anywhere, not even one that lenient base64 decoders skip."""
    assert accepted(GOOD[:at] + noise + GOOD[at:]) is None


@calm
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 8))
def test_nothing_can_be_left_out(at, length):
    """No part of a token can be missing."""
    assert accepted(GOOD[:at] + GOOD[at + length :]) is None


@calm
@given(
    st.binary(max_size=200)
    | st.lists(st.binary(max_size=40), min_size=3, max_size=3).map(b".".join)
)
def test_noise(token):
    """Noise is refused without an exception."""
    assert accepted(token) is None


@calm
@given(*[st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)] * 2)  # fmt: skip
def test_any_json(header, payload):
    """Headers and payloads of any JSON, correctly signed, are refused without an exception."""
    assert accepted(forge(header, payload)) is None
    assert accepted(forge(HEADER, payload)) is None


@calm
@given(
    st.sampled_from(sorted(HEADER)),
    st.sampled_from(sorted(PAYLOAD)),
    st.none() | st.booleans() | st.integers() | st.lists(st.text(max_size=3), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)  # fmt: skip
def test_any_value_of_any_field(name, claim, value):
    """One field of another type never raises; what is believed is what was signed."""
    assert accepted(forge(HEADER | {name: value})) is None
    claims = accepted(forge(payload=PAYLOAD | {claim: value}))
    if claims is not None:
        assert claim in ("port", "iat", "exp")
        assert type(value) is int
        # Times are floats, so that one far beyond our time is rounded.
        assert getattr(claims, claim) == (value if claim == "port" else float(value))


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", None, "HS256", "ES256", "EdDSA "]
)
def test_alg_chooses_nothing(alg):
    """Another ``alg`` than the key's is refused, with the genuine signature, none, or an HMAC."""
    header = b64(json.dumps(HEADER | {"alg": alg}).encode())
    body = header + b"." + b64(json.dumps(PAYLOAD).encode())
    for signature in (b"", b64(PRIVATE.sign(body)), b64(b"\0" * 64)):
        assert accepted(body + b"." + signature) is None
        assert peek(body + b"." + signature, Family.EDGE, KEYS, EXPECT) is None


@pytest.mark.parametrize("kid", ["k1", "s1"])
def test_the_public_key_is_no_secret(kid):
    """HS256 keyed with the public key, in every shape it can be had, opens nothing."""
    shapes = [
        PUBLIC.public_bytes(Encoding.Raw, PublicFormat.Raw),
        PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        PUBLIC.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        OKPAlgorithm.to_jwk(PUBLIC).encode(),
        b"",
    ]
    header = {"alg": "HS256", "kid": kid, "typ": "ns-edge+jwt"}
    body = b".".join(b64(json.dumps(part).encode()) for part in (header, PAYLOAD))
    hmac = HMACAlgorithm(HMACAlgorithm.SHA256)
    for shape in shapes:
        assert accepted(body + b"." + b64(hmac.sign(body, shape))) is None
    genuine = b64(hmac.sign(body, SECRET.encode()))
    assert (accepted(body + b"." + genuine) == CLAIMS) is (kid == "s1")


@pytest.mark.parametrize(
    "change",
    [
        {"typ": "JWT"},
        {"typ": "jwt"},
        {"typ": "NS-EDGE+JWT"},
        {"typ": "application/ns-edge+jwt"},
        {"typ": ["ns-edge+jwt"]},
        {"kid": "k2"},
        {"kid": ""},
        {"kid": None},
        {"kid": ["k1"]},
        {"kid": {"k1": 1}},
        {"kid": "s1"},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": False},
        {"b64": False, "crit": ["b64"]},
    ],
)
def test_headers_that_are_refused(change):
    """Wrong type or key, and extensions we do not know (RFC 7515 section 4.1.11), fail the token."""
    token = forge(HEADER | change)
    assert accepted(token) is None
    if change != {"b64": False}:  # PyJWT's to refuse: without "crit" it is only malformed
        assert not isinstance(peek(token, Family.EDGE, KEYS, EXPECT), Peeked)


def test_keys_in_the_header_are_ignored():
    """A token cannot bring its own key, nor say where to fetch one."""
    jwk = json.loads(OKPAlgorithm.to_jwk(OTHER.public_key()))
    header = HEADER | {"jwk": jwk, "jku": "https://evil.example/jwks.json", "x5u": "https://evil"}
    assert accepted(forge(header, key=OTHER)) is None
    assert accepted(forge(header)) == CLAIMS


@pytest.mark.parametrize("missing", sorted(PAYLOAD))
def test_every_claim_is_required(missing):
    """A token without one of its claims, or with an empty one, is no token."""
    rest = {name: value for name, value in PAYLOAD.items() if name != missing}
    assert accepted(forge(payload=rest)) is None
    assert accepted(forge(payload=rest | {missing: None})) is None
    assert accepted(forge(payload=rest | {missing: ""})) is None


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "Nullspace"},
        {"iss": "nullspace "},
        {"iss": ["nullspace"]},
        {"aud": "other.example"},
        {"aud": "PREVIEW.example"},
        {"aud": "x.preview.example"},
        {"aud": ["preview.example"]},
        {"aud": ["preview.example", "other.example"]},
        {"port": True},
        {"port": "3000"},
        {"port": 3000.0},
        {"port": [3000]},
        {"kind": "HTTP_PORT"},
        {"kind": "ftp_port"},
        {"kind": ["http_port"]},
        {"kind": {}},
        {"iat": True},
        {"exp": True},
        {"exp": "1900"},
        {"exp": [1900]},
        {"grant": 1},
        {"jti": ["x"]},
        {"sub": {"id": "sb_aaaaaaaa"}},
        {"exp": 10**400},
    ],
)
def test_claims_that_are_refused(change):
    """Claims of another issuer, audience or type fail the token although it is signed."""
    assert accepted(forge(payload=PAYLOAD | change)) is None


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 1500])
@pytest.mark.parametrize("claim", ["iat", "exp"])
def test_times_that_are_no_times(claim, number):
    """Neither NaN nor infinity, however spelled, becomes a token without end."""
    text = json.dumps(PAYLOAD | {claim: 77777}).replace("77777", number)
    assert accepted(forge(payload=text.encode())) is None


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(PAYLOAD).encode("utf-16"),
        json.dumps(PAYLOAD).encode("utf-32-le"),
        b"\xef\xbb\xbf" + json.dumps(PAYLOAD).encode(),
        json.dumps(PAYLOAD).encode().replace(b"user_1", b"user_\xff"),
        json.dumps(PAYLOAD).encode() + b"{}",
        json.dumps(PAYLOAD).encode()[:-1],
        json.dumps(json.dumps(PAYLOAD)).encode(),
        json.dumps([PAYLOAD]).encode(),
        b"[" * 2000,
        b'{"a":' * 500,
        b"",
    ],
)
def test_payloads_that_are_no_json_object(text):
    """UTF-8, one object, bounded depth: anything else is refused although it is signed."""
    assert accepted(forge(payload=text)) is None
    assert accepted(forge(header=text)) is None


def test_repeated_names_mean_the_last():
    """RFC 7519 section 4 allows to take the last of repeated names; header and claims agree on it."""
    payload = json.dumps(PAYLOAD)[:-1].encode() + b', "sub": "sb_bbbbbbbb"}'
    claims = accepted(forge(payload=payload))
    assert claims is not None
    assert claims.sub == "sb_bbbbbbbb"
    twice = json.dumps(HEADER)[:-1].encode()
    assert accepted(forge(header=twice + b', "typ": "ns-proxy+jwt"}')) is None
    assert accepted(forge(header=twice + b', "alg": "none"}')) is None


def test_deep_nesting_is_refused_whatever_the_size():
    """With a generous size limit, nesting that exhausts the parser is still only a bad token."""
    token = forge(payload=b"[" * 200_000)
    assert peek(token, Family.EDGE, KEYS, replace(EXPECT, max_bytes=1 << 20)) is None


def test_size_limit_is_exact():
    """One byte over the limit is not looked at; the limit itself is."""
    assert peek(GOOD, Family.EDGE, KEYS, replace(EXPECT, max_bytes=len(GOOD))) is not None
    assert peek(GOOD, Family.EDGE, KEYS, replace(EXPECT, max_bytes=len(GOOD) - 1)) is None


@pytest.mark.parametrize(
    "token", [b"", b".", b"..", b"...", b"a.b", GOOD + b".", b"." + GOOD, b"=.=.="]
)
def test_wrong_number_of_parts(token):
    """Three parts, no more and no less (a JWE has five)."""
    assert accepted(token) is None


def test_another_key_of_the_same_name():
    """A signature by a key we do not hold is refused, and so is one transplanted from another token."""
    assert accepted(forge(key=OTHER)) is None
    head, _, signature = GOOD.split(b".")
    moved = (
        head + b"." + b64(json.dumps(PAYLOAD | {"sub": "sb_bbbbbbbb"}).encode()) + b"." + signature
    )
    assert accepted(moved) is None


def test_peek_costs_no_signature(monkeypatch):
    """A stranger's token is refused before any cryptography."""
    monkeypatch.setattr(credentials.jwt.api_jws, "decode", None)
    assert peek(forge(HEADER | {"kid": 7}), Family.EDGE, KEYS, EXPECT) is None
    assert peek(GOOD, Family.EDGE, KEYS, EXPECT) is not None


def test_an_unknown_key_is_told_apart_only_when_all_else_fits():
    """Newer keys are worth a look for a token that lacks nothing else; never for a cookie, nor HS256."""
    header = HEADER | {"kid": "k9"}
    assert peek(forge(header), Family.EDGE, KEYS, EXPECT) == UnknownKey(CLAIMS)
    for alg in ("ES256", "RS256"):
        assert peek(forge(header | {"alg": alg}), Family.EDGE, KEYS, EXPECT) == UnknownKey(CLAIMS)
    proxy = header | {"typ": "ns-proxy+jwt"}
    assert peek(forge(proxy), Family.PROXY, KEYS, EXPECT) == UnknownKey(CLAIMS)
    cookie = header | {"typ": "ns-cont+jwt"}
    assert peek(forge(cookie), Family.CONTINUATION, KEYS, EXPECT) is None
    for changes in ({"alg": "HS256"}, {"alg": "none"}, {"kid": ""}, {"crit": []}, {"alg": None}):
        assert peek(forge(header | changes), Family.EDGE, KEYS, EXPECT) is None, changes
    for changes in ({"iss": "evil"}, {"aud": "evil"}, {"jti": ""}):
        assert peek(forge(header, PAYLOAD | changes), Family.EDGE, KEYS, EXPECT) is None, changes
    assert peek(forge(header), Family.EDGE, KEYS, replace(EXPECT, max_bytes=100)) is None


def test_verify_survives_a_key_of_the_wrong_kind():
    """Key material that does not fit its algorithm refuses the token instead of raising."""
    peeked = peek(GOOD, Family.EDGE, KEYS, EXPECT)
    assert peeked is not None
    for material in ("text", b"bytes", rsa.generate_private_key(65537, 2048).public_key(), None):
        assert not verify(GOOD, replace(peeked, key=Key("k1", "EdDSA", material)))


# --- Scope ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [DIRECT, PROXY])
def test_scope(names):
    """Expiry first and exact, five seconds of leeway for iat only, then sandbox, port, transport."""
    here = (names, "sb_aaaaaaaa", 3000, Transport.HTTP)

    def problem(claims=CLAIMS, where=here, now=1500.0):
        return scope_problem(claims, *where, now)

    assert problem() is None
    assert problem(now=1899.999) is None
    assert problem(now=1900.0) is names.expired
    assert problem(now=995.0) is None
    assert problem(now=994.9) is names.invalid
    assert problem(where=(names, "sb_bbbbbbbb", 3000, Transport.HTTP)) is names.scope
    assert problem(where=(names, "sb_aaaaaaaa", 3001, Transport.HTTP)) is names.scope
    assert problem(where=(names, "sb_aaaaaaaa", 3000, Transport.WEBSOCKET)) is names.scope
    assert problem(where=(names, "sb_bbbbbbbb", 1, Transport.WEBSOCKET), now=2e9) is names.expired


def test_families_report_in_their_own_words():
    """No problem of direct previews is told in proxy mode, nor the other way."""
    for names, prefix in (
        (DIRECT, ("edge_token_", "preview_grant_")),
        (PROXY, "preview_proxy_token_"),
    ):
        for slot in names.__slots__:
            assert getattr(names, slot).code.startswith(prefix)


# --- Key sets ------------------------------------------------------------------------------------


def jwk(**changes: object) -> dict[str, object]:
    """The public key as a JWK, with changes; None removes a member."""
    whole = json.loads(OKPAlgorithm.to_jwk(PUBLIC)) | {"kid": "k1", "use": "sig"} | changes
    return {name: value for name, value in whole.items() if value is not None}


def test_a_key_set_is_read():
    """A good key among useless ones is found, with the algorithm its type says."""
    keys = keys_from_jwks({"keys": [7, {}, {"kty": "new"}, jwk(kid=None), jwk()], "more": 1})
    assert keys == {"k1": Key("k1", "EdDSA", PUBLIC)}
    assert accepted(GOOD, keys=Keys(keys, {})) == CLAIMS


def _public(private, algorithm, **more):
    return json.loads(algorithm.to_jwk(private.public_key())) | {"kid": "x"} | more


USELESS = {
    "no kid": jwk(kid=None),
    "empty kid": jwk(kid=""),
    "kid a list": jwk(kid=["k1"]),
    "for encryption": jwk(use="enc"),
    "private": json.loads(OKPAlgorithm.to_jwk(PRIVATE)) | {"kid": "k1"},
    "shared secret": {"kty": "oct", "k": b64(SECRET.encode()).decode(), "kid": "s", "alg": "HS256"},
    "secret called EdDSA": {"kty": "oct", "k": "AAAA", "kid": "s", "alg": "EdDSA"},
    "Ed25519 called HS256": jwk(alg="HS256"),
    "Ed25519 called ES256": jwk(alg="ES256"),
    "Ed25519 called none": jwk(alg="none"),
    "alg a list": jwk(alg=["EdDSA"]),
    "alg a number": jwk(alg=5),
    "x a number": jwk(x=5),
    "x too short": jwk(x="AAAA"),
    "x not base64": jwk(x="*" * 43),
    "no x": jwk(x=None),
    "crv unknown": jwk(crv="Ed1"),
    "crv a list": jwk(crv=[]),
    "Ed448": _public(ed448.Ed448PrivateKey.generate(), OKPAlgorithm, alg="EdDSA"),
    "P-384 called ES256": _public(
        ec.generate_private_key(ec.SECP384R1()), ECAlgorithm, alg="ES256"
    ),
    "P-384": _public(ec.generate_private_key(ec.SECP384R1()), ECAlgorithm),
    "RSA of 1024 bits": _public(rsa.generate_private_key(65537, 1024), RSAAlgorithm),
    "RS512": _public(rsa.generate_private_key(65537, 2048), RSAAlgorithm, alg="RS512"),
}


@pytest.mark.parametrize("entry", USELESS.values(), ids=USELESS)
def test_keys_that_are_passed_over(entry):
    """A key that cannot be used, or must not be, is passed over; alone it is an error."""
    with pytest.raises(ValueError, match="no usable signing key"):
        keys_from_jwks({"keys": [entry]})
    assert set(keys_from_jwks({"keys": [entry, jwk(kid="good")]})) == {"good"}


@pytest.mark.parametrize(
    "document", [None, [], "keys", 7, {}, {"keys": None}, {"keys": {}}, {"keys": "x"}]
)
def test_documents_that_are_no_key_set(document):
    """Anything but an object with a list of keys is an error with a plain sentence."""
    with pytest.raises(ValueError, match="not a JWK set"):
        keys_from_jwks(document)


@calm
@given(
    st.sampled_from(["kty", "crv", "x", "kid", "alg", "use", "y", "n", "e", "key_ops"]),
    st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.lists(st.text(max_size=5))
    | st.sampled_from(["EC", "RSA", "OKP", "oct", "P-256", "Ed448", "X25519", "RS256", "ES256K"]),
    st.sampled_from(["OKP", "EC", "RSA", "oct"]),
)  # fmt: skip
def test_broken_keys_never_raise_anything_else(name, value, kty):
    """Whatever a key says in whatever place, the answer is keys or a ValueError."""
    entry = jwk(kty=kty, y="AAAA", n="AQAB", e="AQAB") | {name: value}
    try:
        keys = keys_from_jwks({"keys": [entry]})
    except ValueError:
        return
    assert all(key.alg in credentials.ALGORITHMS for key in keys.values())


def test_keys_do_not_show_their_material():
    """A key in a log or a traceback shows its name only."""
    shown = repr(Key("s1", "HS256", SECRET)) + str(KEYS)
    assert SECRET not in shown
    assert "s1" in shown


def test_tokens_are_what_other_libraries_read():
    """Our tokens are plain JWTs: PyJWT's own decoder agrees on the claims."""
    decoded = jwt.decode(
        GOOD, PUBLIC, ["EdDSA"], audience="preview.example",
        options={"verify_exp": False, "verify_iat": False},
    )  # fmt: skip
    assert decoded == PAYLOAD
