"""Redaction: previews without their secrets, for logs and screens (contract: redaction)."""

from __future__ import annotations

import re

REDACTED = "<redacted>"
_PAIR = re.compile(r"([?&]edge_token=)[^&#]*")
# Three base64url parts, the first of which starts with '{"' in base64: a JWT, wherever it stands.
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")


def redact_preview_url(url: str) -> str:
    """``url`` with the value of each query key ``edge_token`` replaced; all else stays as it is."""
    front, hash_, fragment = url.partition("#")
    path, question, query = front.partition("?")
    if not question:
        return url
    return path + _PAIR.sub(rf"\g<1>{REDACTED}", question + query) + hash_ + fragment


def redact_preview_token(token: str | None) -> str | None:
    """``<redacted>`` for any token, None for None."""
    return None if token is None else REDACTED


def redact_text(text: str) -> str:
    """``text`` with everything that looks like one of our tokens replaced: for paths and messages in logs."""
    if "eyJ" not in text and "edge_token" not in text:
        return text
    return _JWT.sub(
        REDACTED, re.sub(r"(edge_token(?:=|%3[dD]))[^&#\s]*", rf"\g<1>{REDACTED}", text)
    )
