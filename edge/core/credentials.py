"""Credentials: the families of tokens, what is compared before a signature, and the signature itself.

A token is a JWT (RFC 7519). Its header's ``typ`` names its family and ``kid`` its key; every key has
exactly one algorithm, so the token's ``alg`` chooses nothing (RFC 8725 section 3.1). All claims of
`Claims` are required.

Checking has two halves, because a signature costs as much as four proxied requests:

1. `peek` reads the unsigned text: size, family, key, issuer, audience, shape. `scope_problem` compares
   host, transport and expiry. What they find *wrong* is believed (a forger may have a token refused);
   nothing they find right is.
2. `verify` checks the signature. `TokenCache` (``token_cache.py``) remembers the outcome, so each token
   is verified once; scope and expiry (here) and the grant (in ``decide``) are looked at on every request all the same.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import jwt

from edge.core import errors
from edge.core.errors import Problem
from edge.core.records import Transport

IAT_LEEWAY = 5.0
"""Seconds a token may claim to come from the future (clock skew). ``exp`` has no leeway."""

ALGORITHMS = frozenset({"EdDSA", "ES256", "RS256"})
"""What a key of a JWKS may be for. HS256 exists only for secrets configured as such."""


class Family(StrEnum):
    """Families of tokens by their ``typ``; one never passes for another."""

    EDGE = "ns-edge+jwt"
    PROXY = "ns-proxy+jwt"
    CONTINUATION = "ns-cont+jwt"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. ``sub`` is the sandbox id, ``iat`` and ``exp`` are Unix times in seconds."""

    iss: str
    aud: str
    sub: str
    port: int
    kind: Transport
    grant: str
    principal: str
    iat: float
    exp: float
    jti: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the one algorithm it is for. ``material`` is what PyJWT takes for that algorithm."""

    kid: str
    alg: str
    material: Any

    def __repr__(self) -> str:
        return f"Key(kid={self.kid!r}, alg={self.alg!r})"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that are believed now: the control plane's for what it issues, the fleet's for cookies."""

    issued: Mapping[str, Key]
    continuation: Mapping[str, Key]

    def of(self, family: Family) -> Mapping[str, Key]:
        """The keys that may have signed a token of this family."""
        return self.continuation if family is Family.CONTINUATION else self.issued


def keys_from_jwks(document: object) -> dict[str, Key]:
    """The usable signing keys of a JWK set (RFC 7517), by ``kid``.

    Keys without ``kid``, for encryption, of other algorithms or curves, or too short are passed over,
    as section 5 of the RFC asks, and so are private keys: an edge holds public ones only. Raises
    ValueError when the document is no JWK set or no key of it can be used.
    """
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("not a JWK set: it has no list of keys")  # noqa: TRY004 - bad data, not a bad call
    usable = (_public_key(entry) for entry in entries if isinstance(entry, dict))
    keys = {key.kid: key for key in usable if key is not None}
    if not keys:
        raise ValueError("the JWK set has no usable signing key (with kid; Ed25519, P-256 or RSA)")
    return keys


def _public_key(entry: Mapping[str, Any]) -> Key | None:
    kid, named = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str) or not kid or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    # Before PyJWT sees it: a key that says "none" makes it raise NotImplementedError.
    if named is not None and not (isinstance(named, str) and named in ALGORITHMS):
        return None
    try:
        parsed = jwt.PyJWK.from_dict(dict(entry))
        alg, algorithm = parsed.algorithm_name, parsed.Algorithm
        # PyJWT compares the curve with the algorithm only when a key is put to use.
        material = algorithm.prepare_key(parsed.key)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if alg not in ALGORITHMS or algorithm.check_key_length(material) is not None:
        return None
    if alg == "EdDSA" and entry.get("crv") != "Ed25519":
        return None
    return Key(kid, alg, material)


def sign(claims: Claims, family: Family, key: Key) -> str:
    """A token of this family. ``key.material`` is the private key or the shared secret."""
    payload = asdict(claims) | {"kind": claims.kind.value}
    return jwt.encode(payload, key.material, key.alg, headers={"kid": key.kid, "typ": family.value})


def _json_part(part: bytes) -> Any:
    # Decoded here because json.loads would also guess UTF-16 and UTF-32 (RFC 7519 asks for UTF-8).
    return json.loads(_bytes_of(part).decode("utf-8"), parse_constant=_refuse)


def _bytes_of(part: bytes) -> bytes:
    """Strict base64url (RFC 7515 section 2). Raises ValueError for any but the canonical spelling.

    A lenient decoder skips foreign characters and spare bits, which would give one valid token any
    number of spellings: each a signature check and a place in the cache.
    """
    data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part:
        raise ValueError("not canonical base64url")
    return data


def _refuse(constant: str) -> None:
    # Python's json reads NaN and Infinity; no comparison with NaN is true, so it would never expire.
    raise ValueError(f"{constant} is not JSON (RFC 8259 section 6)")


_TEXT_CLAIMS = ("iss", "aud", "sub", "grant", "principal", "jti")
_NUMBERS = (int, float)


def claims_from(payload: Any) -> Claims | None:
    """Strict: every claim there, of its type; booleans are no numbers; one audience, as a string."""
    if not isinstance(payload, dict):
        return None
    if not all(isinstance(payload.get(name), str) and payload[name] for name in _TEXT_CLAIMS):
        return None
    port = payload.get("port")
    times: list[Any] = [payload.get("iat"), payload.get("exp")]
    if type(port) is not int or not all(type(time) in _NUMBERS for time in times):
        return None
    try:
        kind = Transport(payload.get("kind", ""))
        # float() also refuses integers of thousands of digits, with OverflowError.
        iat, exp = map(float, times)
    except (ValueError, OverflowError):
        return None
    if not (math.isfinite(iat) and math.isfinite(exp)):
        return None  # 1e999 is read as infinity, which would never expire
    text = (payload[name] for name in _TEXT_CLAIMS)
    iss, aud, sub, grant, principal, jti = text
    return Claims(iss, aud, sub, port, kind, grant, principal, iat, exp, jti)


@dataclass(frozen=True, slots=True)
class Peeked:
    """The unsigned text of a token that is worth a signature check."""

    claims: Claims
    key: Key


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """The unsigned text of a token that lacks nothing but a key we know: the keys may be too old."""

    claims: Claims


@dataclass(frozen=True, slots=True)
class Expectation:
    """What every token of this edge must say, whatever the request."""

    issuer: str
    audience: str
    max_bytes: int


def unsigned(token: bytes) -> tuple[Any, Any] | None:
    """Header and payload of a token, as anybody may have written them; None if it has no such parts."""
    if token.count(b".") != 2:
        return None
    head_part, payload_part, signature = token.split(b".")
    try:
        header, payload = _json_part(head_part), _json_part(payload_part)
        _bytes_of(signature)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return header, payload


def peek(
    token: bytes, family: Family, keys: Keys, expect: Expectation
) -> Peeked | UnknownKey | None:
    """Read a token without believing it; None for one that no signature could save."""
    parts = unsigned(token) if len(token) <= expect.max_bytes else None
    if parts is None:
        return None
    header, payload = parts
    if not isinstance(header, dict) or header.get("typ") != family.value or "crit" in header:
        return None
    kid, alg = header.get("kid"), header.get("alg")
    if not isinstance(kid, str) or not isinstance(alg, str):
        return None
    key = keys.of(family).get(kid)
    if key is None:
        # Cookies are signed by keys of the settings, which no refresh changes, and so are HS256 tokens.
        if family is Family.CONTINUATION or not kid or alg not in ALGORITHMS:
            return None
    elif alg != key.alg:
        return None
    claims = claims_from(payload)
    if claims is None or claims.iss != expect.issuer or claims.aud != expect.audience:
        return None
    return Peeked(claims, key) if key is not None else UnknownKey(claims)


def verify(token: bytes, peeked: Peeked) -> bool:
    """Whether the signature is the key's. Times are not looked at here: they have a clock argument."""
    try:
        jwt.api_jws.decode(token, peeked.key.material, algorithms=[peeked.key.alg])
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class FamilyProblems:
    """The names under which a family of credentials reports the same troubles."""

    missing: Problem
    invalid: Problem
    expired: Problem
    scope: Problem
    grant_invalid: Problem
    grant_revoked: Problem
    grant_disabled: Problem


DIRECT = FamilyProblems(
    missing=errors.EDGE_TOKEN_MISSING,
    invalid=errors.EDGE_TOKEN_INVALID,
    expired=errors.EDGE_TOKEN_EXPIRED,
    scope=errors.EDGE_TOKEN_SCOPE_MISMATCH,
    grant_invalid=errors.PREVIEW_GRANT_INVALID,
    grant_revoked=errors.PREVIEW_GRANT_REVOKED,
    grant_disabled=errors.PREVIEW_GRANT_DISABLED,
)
PROXY = FamilyProblems(
    missing=errors.PREVIEW_PROXY_TOKEN_MISSING,
    invalid=errors.PREVIEW_PROXY_TOKEN_INVALID,
    expired=errors.PREVIEW_PROXY_TOKEN_EXPIRED,
    scope=errors.PREVIEW_PROXY_TOKEN_SCOPE_MISMATCH,
    grant_invalid=errors.PREVIEW_PROXY_TOKEN_INVALID,
    grant_revoked=errors.PREVIEW_PROXY_TOKEN_REVOKED,
    grant_disabled=errors.PREVIEW_PROXY_TOKEN_DISABLED,
)


def scope_problem(
    claims: Claims, names: FamilyProblems, sandbox_id: str, port: int, kind: Transport, now: float
) -> Problem | None:
    """What is wrong with using these claims here and now. ``now`` is Unix time in seconds."""
    if claims.exp <= now:
        return names.expired
    if claims.iat > now + IAT_LEEWAY:
        return names.invalid
    if claims.sub != sandbox_id or claims.port != port or claims.kind is not kind:
        return names.scope
    return None
