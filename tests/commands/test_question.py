"""Questions: a token as it is, or what a URL says about itself, read as the edge reads it."""

from __future__ import annotations

import pytest

from edge.commands.question import Question, question
from edge.core.records import Transport

HTTP, WEBSOCKET = Transport.HTTP, Transport.WEBSOCKET
HOST = "3000-sb-a.preview.example"


def url(
    *tokens: bytes, host: str | None = HOST, kind: Transport = HTTP, marker: bool = False
) -> Question:
    """What a URL asks."""
    return Question(frozenset(tokens), host, kind, in_url=True, marker=marker)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b.c", Question(frozenset({b"a.b.c"}))),
        (f"https://{HOST}/p?edge_token=t", url(b"t")),
        (f"wss://{HOST}/?edge_token=t", url(b"t", kind=WEBSOCKET)),
        (f"WS://{HOST}?edge_token=t", url(b"t", kind=WEBSOCKET)),
        (f"https://me:pw@{HOST}/?edge_token=t", url(b"t")),
        (f"{HOST}:3001/?edge_token=t", url(b"t", host=f"{HOST}:3001")),
        ("?edge_token=t&next=http://x/", url(b"t", host=None)),
        (f"https://{HOST}/?edge_token=a%2Eb&x=1", url(b"a.b")),
        (f"https://{HOST}/?edge_token=a&edge_token=b", url(b"a", b"b")),
        (f"https://{HOST}/?edge_token=a&edge_token=a", url(b"a")),
        (f"https://{HOST}/?edge_token=", url(b"")),
        (f"https://{HOST}/#edge_token=t", url()),
        (f"https://{HOST}/?edge_token&x_edge_token=t", url()),
        (f"https://{HOST}/?__ns_preview_transport=header", url(marker=True)),
        (f"https://{HOST}/?__ns_preview_transport=query&edge_token=t", url(b"t")),
    ],
)  # fmt: skip
def test_what_is_asked(text: str, expected: Question) -> None:
    """Tokens are the query's, percent-encoding undone, repeats once; the rest is host and transport."""
    assert question(text, None, websocket=False) == expected


def test_what_is_said_beside_it_wins() -> None:
    """The options of the command line over what the URL says; with a host, a bare token is for HTTP."""
    assert question(f"https://{HOST}/?edge_token=t", "other", websocket=True) == url(
        b"t", host="other", kind=WEBSOCKET
    )
    assert question("t", HOST, websocket=False) == Question(frozenset({b"t"}), HOST, HTTP)
    assert question("t", None, websocket=True) == Question(frozenset({b"t"}), None, WEBSOCKET)


def test_an_argument_that_is_no_text_is_no_token() -> None:
    """A shell hands over any bytes; Python makes surrogates of those that are not UTF-8."""
    assert question("\udcff", None, websocket=False).tokens == {b"?"}
