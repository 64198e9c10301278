"""What strangers send: credentials that are missing, broken, forged, stolen from elsewhere, or too old.

Each entry makes the bytes of one request for a preview, and names the status and code it deserves.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.core.credentials import Family
from edge.core.records import Transport
from tests.flows.stage import PROXY_HEADER, UPGRADE, Preview

WS, HTTP = Transport.WEBSOCKET, Transport.HTTP
SOMEBODY = Ed25519PrivateKey.generate()


@dataclass(frozen=True)
class Forgery:
    """A request and what it deserves."""

    request: Callable[[Preview], bytes]
    status: int
    code: str


def b64(data: bytes) -> str:
    """Base64url as JWS wants it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def words(header: bytes, claims: bytes) -> str:
    """Three words of base64url, as a token has them."""
    return f"{b64(header)}.{b64(claims)}.{b64(b'x')}"


def forged(box: Preview, secret: bytes | None, **header: Any) -> str:
    """A token put together by hand, signed with a shared secret or not at all."""
    said = {"typ": Family.EDGE.value, "kid": box.stage.mint.kid} | header
    claims = box.stage.mint.claims(box.id, box.port, box.grant)
    text = f"{b64(json.dumps(said).encode())}.{b64(json.dumps(claims).encode())}"
    signature = b"" if secret is None else hmac.digest(secret, text.encode(), hashlib.sha256)
    return f"{text}.{b64(signature)}"


def public(box: Preview, encoding: Encoding, shape: PublicFormat) -> bytes:
    """The public key everybody may know, taken for a shared secret."""
    return box.stage.mint.private.public_key().public_bytes(encoding, shape)


def tampered(box: Preview) -> str:
    """A genuine token whose claims were edited afterwards."""
    head, payload, signature = box.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return f"{head}.{b64(json.dumps(claims | {'principal': 'root'}).encode())}.{signature}"


def by_query(
    make: Callable[[Preview], str],
    code: str = "edge_token_invalid",
    status: int = 401,
    *,
    upgrade: bool = False,
) -> Forgery:
    """A token in the query."""
    fields = UPGRADE if upgrade else b""
    return Forgery(lambda box: box.get("/", fields, token=make(box)), status, code)


def by_header(
    make: Callable[[Preview], bytes],
    code: str,
    status: int = 401,
    *,
    path: str = "/",
    upgrade: bool = False,
) -> Forgery:
    """Field lines, and no token in the query."""
    more = UPGRADE if upgrade else b""
    return Forgery(lambda box: box.get(path, more + make(box), token=""), status, code)


def proxy_line(token: str | bytes) -> bytes:
    """The field line of a proxy token."""
    return (
        PROXY_HEADER.encode()
        + b": "
        + (token.encode() if isinstance(token, str) else token)
        + b"\r\n"
    )


def cookie_line(token: str | bytes) -> bytes:
    """The field line of a continuation cookie."""
    value = token.encode() if isinstance(token, str) else token
    return b"Cookie: __Host-ns_preview=" + value + b"\r\n"


MISSING, SCOPE = "edge_token_missing", "edge_token_scope_mismatch"
PROXY_INVALID, PROXY_SCOPE = "preview_proxy_token_invalid", "preview_proxy_token_scope_mismatch"
MARKER = "/?__ns_preview_transport=header"

FORGERIES: dict[str, Forgery] = {
    "nothing": by_query(lambda _: "", MISSING),
    "nothing, websocket": by_query(lambda _: "", MISSING, upgrade=True),
    "empty token": Forgery(
        lambda box: box.get("/?edge_token=", token=""), 401, "edge_token_invalid"
    ),
    "garbage": by_query(lambda _: "garbage"),
    "dots": by_query(lambda _: ".."),
    "three words": by_query(lambda _: "one.two.three"),
    "not base64": by_query(lambda box: box.token().replace(".", ".%21", 1)),
    "not UTF-8": by_query(lambda _: "%FF%FE.%C0%80.%FF"),
    "not UTF-8 inside": by_query(lambda _: words(b"\xff\xfe", b"\xff")),
    "NUL": by_query(lambda box: box.token() + "%00"),
    "not JSON objects": by_query(lambda _: words(b"[1]", b"2")),
    "deep JSON": by_query(lambda _: words(b"[" * 1200, b"{" * 900)),
    "oversized": by_query(lambda _: "a" * 5000),
    "oversized and genuine": by_query(lambda box: box.token(principal="p" * 5000)),
    "longer than a line may be": by_query(lambda _: "a" * 20_000, "request_header_too_large", 431),
    "two tokens": Forgery(
        lambda box: box.get(f"/?edge_token={box.token()}"), 401, "edge_token_invalid"
    ),
    "another sandbox": by_query(lambda box: box.token(sub="sb_somebody1"), SCOPE, 403),
    "another port": by_query(lambda box: box.token(port=box.port + 1), SCOPE, 403),
    "websocket token for http": by_query(lambda box: box.token(kind=WS), SCOPE, 403),
    "http token for websocket": by_query(
        lambda box: box.token(kind=HTTP), SCOPE, 403, upgrade=True
    ),
    "another audience": by_query(lambda box: box.token(aud="preview.other")),
    "list of audiences": by_query(lambda box: box.token(aud=[box.stage.mint.site])),
    "another issuer": by_query(lambda box: box.token(iss="somebody")),
    "another key": by_query(lambda box: box.token(key=SOMEBODY)),
    "unknown key id": by_query(lambda box: box.token(headers={"kid": "k9"})),
    "no key id": by_query(lambda box: forged(box, b"x", alg="EdDSA", kid=None)),
    "own key brought along": by_query(
        lambda box: box.token(key=SOMEBODY, headers={"jwk": {"kty": "OKP"}})
    ),
    "critical extension": by_query(lambda box: box.token(headers={"crit": ["exp"]})),
    "edited claims": by_query(tampered),
    "signature cut off": by_query(lambda box: box.token().rpartition(".")[0] + "."),
    "alg none": by_query(lambda box: forged(box, None, alg="none")),
    "alg none, signed": by_query(lambda box: forged(box, b"x", alg="none")),
    "HS256 with the public key as PEM": by_query(
        lambda box: forged(
            box, public(box, Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), alg="HS256"
        )
    ),
    "HS256 with the public key, raw": by_query(
        lambda box: forged(box, public(box, Encoding.Raw, PublicFormat.Raw), alg="HS256")
    ),
    "EdDSA with an HMAC for a signature": by_query(
        lambda box: forged(box, public(box, Encoding.Raw, PublicFormat.Raw), alg="EdDSA")
    ),
    "expired": by_query(lambda box: box.token(exp=time.time() - 1), "edge_token_expired"),
    "from the future": by_query(lambda box: box.token(iat=time.time() + 60)),
    "never expires": by_query(lambda box: box.token(exp=float("inf"))),
    "proxy token in the query": by_query(lambda box: box.token(Family.PROXY)),
    "cookie in the query": by_query(lambda box: box.token(Family.CONTINUATION)),
    "bad token beside a good cookie": Forgery(
        lambda box: box.get("/", box.cookie(), token="bad"), 401, "edge_token_invalid"
    ),
    "edge token in the cookie": by_header(
        lambda box: cookie_line(box.token()), "edge_token_invalid"
    ),
    "garbage cookie": by_header(lambda _: cookie_line(b"\xff\xfe"), "edge_token_invalid"),
    "cookie of another key": by_header(lambda box: box.cookie(key="x" * 64), "edge_token_invalid"),
    "cookie of another sandbox": by_header(lambda box: box.cookie(sub="sb_somebody1"), SCOPE, 403),
    "cookie of another port": by_header(lambda box: box.cookie(port=1), SCOPE, 403),
    "expired cookie": by_header(lambda box: box.cookie(exp=time.time() - 1), "edge_token_expired"),
    "cookie under the other name": by_header(lambda box: box.cookie("ns_preview"), MISSING),
    "cookie for a websocket": by_header(lambda box: box.cookie(), MISSING, upgrade=True),
    "proxy marker alone": by_header(lambda _: b"", "preview_proxy_token_missing", path=MARKER),
    "proxy marker beside a good edge token": Forgery(
        lambda box: box.get(MARKER), 401, "preview_proxy_token_missing"
    ),
    "empty proxy token": by_header(lambda _: proxy_line(b""), PROXY_INVALID),
    "garbage proxy token": by_header(lambda _: proxy_line(b"\xff\xfe"), PROXY_INVALID),
    "edge token as proxy token": by_header(lambda box: proxy_line(box.token()), PROXY_INVALID),
    "two proxy tokens": by_header(lambda box: box.proxy() + box.proxy(), PROXY_INVALID),
    "proxy token of another sandbox": by_header(
        lambda box: box.proxy(sub="sb_somebody1"), PROXY_SCOPE, 403
    ),
    "proxy token of the other transport": by_header(
        lambda box: box.proxy(kind=HTTP), PROXY_SCOPE, 403, upgrade=True
    ),
    "expired proxy token": by_header(
        lambda box: box.proxy(exp=time.time() - 1), "preview_proxy_token_expired"
    ),
    "proxy token of another key": by_header(lambda box: box.proxy(key=SOMEBODY), PROXY_INVALID),
}
