"""Credentials: the families of tokens, what is compared before a signature, and the signature itself.

A token is a JWT (RFC 7519). Its header's ``typ`` names its family and ``kid`` its key; every key has
exactly one algorithm, so the token's ``alg`` chooses nothing (RFC 8725 section 3.1). All claims of
`Claims` are required.

Checking has two halves, because a signature costs as much as four proxied requests:

1. `peek` reads the unsigned text: size, family, key, issuer, audience, shape. `scope_problem` compares
   host, transport and expiry. What they find *wrong* is believed (a forger may have a token refused);
   nothing they find right is.
2. `verify` checks the signature. `TokenCache` remembers the outcome, so each token is verified once;
   scope and expiry (here) and the grant (in ``decide``) are looked at on every request all the same.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
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


def keys_from_jwks(document: Mapping[str, Any]) -> dict[str, Key]:
    """The usable signing keys of a JWK set (RFC 7517), by ``kid``.

    Keys without ``kid``, for encryption, or of other algorithms are passed over, as section 5 of the
    RFC asks. Raises ValueError when the document is no JWK set or no key of it can be used.
    """
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("not a JWK set: it has no list of keys")
    keys: dict[str, Key] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        try:
            parsed = jwt.PyJWK.from_dict(entry)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        kid, alg = entry.get("kid"), parsed.algorithm_name
        if isinstance(kid, str) and kid and alg in ALGORITHMS:
            keys[kid] = Key(kid, alg, parsed.key)
    if not keys:
        raise ValueError("the JWK set has no usable signing key (with kid; Ed25519, P-256 or RSA)")
    return keys


def sign(claims: Claims, family: Family, key: Key) -> str:
    """A token of this family. ``key.material`` is the private key or the shared secret."""
    payload = asdict(claims) | {"kind": claims.kind.value}
    return jwt.encode(payload, key.material, key.alg, headers={"kid": key.kid, "typ": family.value})


def _json_part(part: bytes) -> Any:
    padded = part + b"=" * (-len(part) % 4)
    return json.loads(base64.b64decode(padded, altchars=b"-_", validate=True), parse_constant=_refuse)


def _refuse(constant: str) -> None:
    # Python's json reads NaN and Infinity; as an expiry they would compare false with every time.
    raise ValueError(f"{constant} is not JSON (RFC 8259 section 6)")


_TEXT_CLAIMS = ("iss", "aud", "sub", "grant", "principal", "jti")
_NUMBERS = (int, float)


def _claims_from(payload: Any) -> Claims | None:
    """Strict: every claim there, of its type; booleans are no numbers; one audience, as a string."""
    if not isinstance(payload, dict):
        return None
    if not all(isinstance(payload.get(name), str) and payload[name] for name in _TEXT_CLAIMS):
        return None
    port, iat, exp = payload.get("port"), payload.get("iat"), payload.get("exp")
    if type(port) is not int or type(iat) not in _NUMBERS or type(exp) not in _NUMBERS:
        return None
    try:
        kind = Transport(payload.get("kind"))
        # float() also refuses integers of thousands of digits, with OverflowError.
        times = float(iat), float(exp)
    except (ValueError, OverflowError):
        return None
    text = (payload[name] for name in _TEXT_CLAIMS)
    iss, aud, sub, grant, principal, jti = text
    return Claims(iss, aud, sub, port, kind, grant, principal, times[0], times[1], jti)


@dataclass(frozen=True, slots=True)
class Peeked:
    """The unsigned text of a token that is worth a signature check."""

    claims: Claims
    key: Key


@dataclass(frozen=True, slots=True)
class Expectation:
    """What every token of this edge must say, whatever the request."""

    issuer: str
    audience: str
    max_bytes: int


def peek(token: bytes, family: Family, keys: Keys, expect: Expectation) -> Peeked | None:
    """Read a token without believing it; None for one that no signature could save."""
    if len(token) > expect.max_bytes or token.count(b".") != 2:
        return None
    head_part, payload_part, _ = token.split(b".")
    try:
        header, payload = _json_part(head_part), _json_part(payload_part)
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or header.get("typ") != family.value or "crit" in header:
        return None
    kid = header.get("kid")
    key = keys.of(family).get(kid) if isinstance(kid, str) else None
    if key is None or header.get("alg") != key.alg:
        return None
    claims = _claims_from(payload)
    if claims is None or claims.iss != expect.issuer or claims.aud != expect.audience:
        return None
    return Peeked(claims, key)


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


class TokenCache:
    """Verified tokens, and (apart, so that forgeries cannot push them out) refuted ones. Bounded.

    Emptied by `forget` whenever the keys change: a token is good only while its key is believed.
    """

    REFUTED_MAX = 1024

    def __init__(self, max_entries: int) -> None:
        self._max = max_entries
        self._verified: dict[tuple[Family, bytes], Claims] = {}
        self._refuted: dict[tuple[Family, bytes], None] = {}

    def claims(self, family: Family, token: bytes) -> Claims | None:
        """The claims of a token whose signature was checked, else None."""
        return self._verified.get((family, token))

    def refuted(self, family: Family, token: bytes) -> bool:
        """Whether this very token failed its signature check lately."""
        return (family, token) in self._refuted

    def remember(self, family: Family, token: bytes, claims: Claims | None) -> None:
        """Keep the outcome of a signature check; None = it failed."""
        if claims is not None:
            _bounded_put(self._verified, (family, token), claims, self._max)
        else:
            _bounded_put(self._refuted, (family, token), None, self.REFUTED_MAX)

    def forget(self) -> None:
        """Drop everything."""
        self._verified.clear()
        self._refuted.clear()


def _bounded_put(table: dict[Any, Any], key: Any, value: Any, limit: int) -> None:
    if len(table) >= limit:
        # The oldest eighth at once: dropping one at a time would cost every insertion its share.
        for old in list(_first(table, max(1, limit // 8))):
            del table[old]
    table[key] = value


def _first(table: Iterable[Any], count: int) -> Iterable[Any]:
    for _, key in zip(range(count), table, strict=False):
        yield key
