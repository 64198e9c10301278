"""What ``preview-edge token inspect`` is asked about: a token, or a preview URL with all that it says."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from edge.core.records import Transport


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about. ``host`` None: nothing to compare with; ``kind`` None: whatever the token says.

    ``tokens`` are all that were given; ``in_url``: they came in a URL, where only edge tokens count;
    ``marker``: that URL says that the token comes in a header.
    """

    tokens: frozenset[bytes]
    host: str | None = None
    kind: Transport | None = None
    in_url: bool = False
    marker: bool = False


def question(text: str, host: str | None, *, websocket: bool) -> Question:
    """What to ask about a token or a whole preview URL. ``host`` and ``websocket`` win over the URL's."""
    # Arguments that are not UTF-8 have surrogates in them; no token and no host has either.
    text = text.encode("utf-8", "replace").decode()
    kind = Transport.WEBSOCKET if websocket else None
    if "://" not in text and "edge_token=" not in text:
        if host is not None and kind is None:
            kind = Transport.HTTP
        return Question(frozenset({text.encode()}), host, kind)
    scheme, found, rest = text.partition("://")
    if not found or "?" in scheme:
        scheme, rest = "", text
    place, _, query = rest.partition("#")[0].partition("?")
    authority = place.partition("/")[0].rpartition("@")[2]
    if kind is None:
        kind = Transport.WEBSOCKET if scheme.lower() in ("ws", "wss") else Transport.HTTP
    pairs = [pair.partition("=") for pair in query.split("&")]
    return Question(
        tokens=frozenset(unquote_to_bytes(v) for k, sign, v in pairs if sign and k == "edge_token"),
        host=host if host is not None else (authority or None),
        kind=kind,
        in_url=True,
        marker=any(k == "__ns_preview_transport" and v == "header" for k, _, v in pairs),
    )
