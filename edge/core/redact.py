"""Redaction: previews without their secrets, for logs and screens (contract: redaction)."""

from __future__ import annotations

import re
from typing import overload
from urllib.parse import unquote

REDACTED = "<redacted>"
TRAFFIC_PREFIX = "nst_"
"""What a traffic access token begins with, so that it can be told from other words where it does not belong."""
_PAIR = re.compile(r"(?<![^&])(edge_token=)[^&]*")
_ANYWHERE = re.compile(r"(edge_token(?:=|%3[dD]))[^&#\s]*")
# What a JWT can be part of. Matched whole and judged by `_without_token`: a pattern that looks for the
# token itself starts anew at every "eyJ", and 16 kB of those take a fifth of a second.
_RUN = re.compile(r"[A-Za-z0-9_.-]+")
# "eyJ" in base64, by where it stands among threes of bytes: a token that somebody encoded once more, alone or
# with the URL around it. Shorter ones are other words.
_ENCODED, _SHORTEST_ENCODED = re.compile("ZXlK|V5S[g-n]|leU[op]"), 128
# A traffic access token, or "nst_" in base64 with enough behind it; a path of fewer characters holds neither.
_TRAFFIC = re.compile(r"nst_[A-Za-z0-9_-]{32,}|(?:bnN0X|[GWm2]5zdF|uc3Rf)[A-Za-z0-9]{40,}")
_REST = re.compile(REDACTED + r"[A-Za-z0-9_.%-]*")
SHORTEST_SECRET = 36
"""Characters of the shortest text that may hold a credential."""

_DECODINGS = 3
"""Layers of percent-encoding that are looked through."""


@overload
def redact_preview_url(url: str) -> str: ...
@overload
def redact_preview_url(url: None) -> None: ...
def redact_preview_url(url: str | None) -> str | None:
    """``url`` with the value of each query key ``edge_token`` replaced by ``<redacted>``; None for None.

    All else stays as it is: order, other pairs, encoding, fragment. The key counts as it is spelt
    here, for that is the only spelling that the edge takes a token from.
    """
    if url is None:
        return None
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
    if "eyJ" in text or "edge_token" in text or _ENCODED.search(text):
        text = _RUN.sub(_without_token, _ANYWHERE.sub(rf"\g<1>{REDACTED}", text))
    # Last: what looks like one of these in the middle of a JWT would hide that it is one.
    return without_traffic_token(text)


def without_traffic_token(text: str) -> str:
    """``text`` with every traffic access token replaced, as it is or in base64; for short texts, as JWTs are long."""
    # Every request's path is looked at, and four searches for a word cost less than one for a pattern.
    if "nst_" in text or "bnN0X" in text or "5zdF" in text or "uc3Rf" in text:
        return _TRAFFIC.sub(REDACTED, text)
    return text


def redact_encoded(text: str) -> str:
    """As `redact_text`, in every percent-encoding that a server would undo. What holds no token stays as it is.

    A token is found by its two dots: cut a text after this, not before.
    """
    decoded = text
    redacted = clean = redact_text(text)
    for _ in range(_DECODINGS):
        if "%" not in decoded:
            break
        # What was found is gone before more is decoded: "%2" in front of a token would take its first letter, and it
        # would not be recognised any more. So is what follows it, which may be its rest in another encoding.
        before, decoded = decoded, unquote(_REST.sub(REDACTED, clean), errors="surrogateescape")
        if decoded == before:
            break
        clean = redact_text(decoded)
        # The deepest layer, once one was found, because those of the layers above are gone from it, too.
        if redacted != text or clean != decoded:
            redacted = clean
    return redacted


def _without_token(run: re.Match[str]) -> str:
    """Cut off what may be a JWT: from ``{"`` in base64 to the end, if it has three parts.

    Or from there to the end, if somebody has encoded the whole token once more.
    """
    text = run[0]
    start = text.find("eyJ")
    if start < 0 or text.count(".", start) < 2:
        encoded = _ENCODED.search(text)
        if encoded is None or len(text) - encoded.start() < _SHORTEST_ENCODED:
            return text
        start = encoded.start()
    # A traffic access token that is cut here would not be recognised any more.
    traffic = _TRAFFIC.search(text)
    return text[: start if traffic is None else min(start, traffic.start())] + REDACTED
