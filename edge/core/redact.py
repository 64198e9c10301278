"""Redaction: previews without their secrets, for logs and screens (contract: redaction)."""

from __future__ import annotations

import re

REDACTED = "<redacted>"
_PAIR = re.compile(r"(?<![^&])(edge_token=)[^&]*")
_ANYWHERE = re.compile(r"(edge_token(?:=|%3[dD]))[^&#\s]*")
# What a JWT can be part of. Matched whole and judged by `_without_token`: a pattern that looks for the
# token itself starts anew at every "eyJ", and 16 kB of those take a fifth of a second.
_RUN = re.compile(r"[A-Za-z0-9_.-]+")
# "eyJ" in base64: a token that somebody encoded once more. Shorter ones are other words.
_ENCODED, _SHORTEST_ENCODED = "ZXlK", 128


def redact_preview_url(url: str) -> str:
    """``url`` with the value of each query key ``edge_token`` replaced; all else stays as it is."""
    front, hash_, fragment = url.partition("#")
    path, question, query = front.partition("?")
    if not question:
        return url
    return path + question + _PAIR.sub(rf"\g<1>{REDACTED}", query) + hash_ + fragment


def redact_preview_token(token: str | None) -> str | None:
    """``<redacted>`` for any token, None for None."""
    return None if token is None else REDACTED


def redact_text(text: str) -> str:
    """``text`` with everything that looks like one of our tokens replaced: for paths and messages in logs."""
    if "eyJ" not in text and "edge_token" not in text and _ENCODED not in text:
        return text
    return _RUN.sub(_without_token, _ANYWHERE.sub(rf"\g<1>{REDACTED}", text))


def _without_token(run: re.Match[str]) -> str:
    """Cut off what may be a JWT: from ``{"`` in base64 to the end, if it has three parts.

    Or from there to the end, if somebody has encoded the whole token once more.
    """
    text = run[0]
    start = text.find("eyJ")
    if start >= 0 and text.count(".", start) >= 2:
        return text[:start] + REDACTED
    start = text.find(_ENCODED)
    return (
        text[:start] + REDACTED if start >= 0 and len(text) - start >= _SHORTEST_ENCODED else text
    )
