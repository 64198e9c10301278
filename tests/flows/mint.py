"""Tokens, good ones and forgeries: the control plane's key and the fleet's, both made up for the test."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from edge.core.credentials import Claims, Family
from edge.core.records import Transport

SITE = "preview.example"
ISSUER = "nullspace"
LIFETIME = 900.0


class Mint:
    """Signs. Every part of a token can be replaced, to see it refused."""

    def __init__(self, kid: str = "k1", site: str = SITE) -> None:
        self.kid = kid
        self.site = site
        self.private = Ed25519PrivateKey.generate()
        self.fleet = secrets.token_hex(32)

    @property
    def jwks(self) -> dict[str, Any]:
        """The public half, as a JWK set."""
        public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {"keys": [public | {"kid": self.kid, "alg": "EdDSA", "use": "sig"}]}

    def claims(self, sandbox_id: str, port: int, grant: str, /, **changes: Any) -> dict[str, Any]:
        """The claims of a good token, with changes; a change to None takes the claim away."""
        now = float(int(time.time()))
        good = Claims(
            iss=ISSUER,
            aud=self.site,
            sub=sandbox_id,
            port=port,
            kind=Transport.HTTP,
            grant=grant,
            principal="user_1",
            iat=now,
            exp=now + LIFETIME,
            jti=secrets.token_hex(8),
        )
        claims = asdict(good) | changes
        claims["kind"] = str(claims["kind"])
        return {name: value for name, value in claims.items() if value is not None}

    def sign(
        self,
        claims: dict[str, Any],
        family: Family | str = Family.EDGE,
        *,
        key: Any = None,
        alg: str | None = None,
        headers: dict[str, Any] | None = None,
    ) -> str:
        """A token. Cookies are signed by the fleet's key, everything else by the control plane's."""
        cookie = family == Family.CONTINUATION
        if key is None:
            key = self.fleet if cookie else self.private
        kid = "fleet" if cookie else self.kid
        # The layer below jwt.encode, which has opinions about claims that are wrong on purpose.
        return jwt.api_jws.encode(
            json.dumps(claims).encode(),
            key,
            alg or ("HS256" if cookie else "EdDSA"),
            headers={"kid": kid, "typ": str(family)} | (headers or {}),
        )
