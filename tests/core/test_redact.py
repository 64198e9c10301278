"""Redaction: what it hides, what it leaves alone, and that it is quick about hostile text."""

from __future__ import annotations

import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nullspace.types import redact_preview_token as published_token
from nullspace.types import redact_preview_url as published

from edge.core.redact import (
    REDACTED,
    redact_encoded,
    redact_preview_token,
    redact_preview_url,
    redact_text,
)
from tests.core.wires import calm

TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJzYl8xIn0.c2lnbmF0dXJl-_x"
URL = "https://3000-sb-1a2b3c4d.preview.example"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"{URL}/", f"{URL}/"),
        (f"{URL}/?edge_token={TOKEN}", f"{URL}/?edge_token={REDACTED}"),
        (f"{URL}/p?a=%20&edge_token=x&b=", f"{URL}/p?a=%20&edge_token={REDACTED}&b="),
        (
            f"{URL}/?edge_token=a&edge_token=b",
            f"{URL}/?edge_token={REDACTED}&edge_token={REDACTED}",
        ),
        (f"{URL}/?edge_token=", f"{URL}/?edge_token={REDACTED}"),
        (f"{URL}/?edge_token=a=b#f?edge_token=c", f"{URL}/?edge_token={REDACTED}#f?edge_token=c"),
        (f"{URL}/?edge_token", f"{URL}/?edge_token"),
        (f"{URL}/?xedge_token=a", f"{URL}/?xedge_token=a"),
        (f"{URL}/?x=?edge_token=a", f"{URL}/?x=?edge_token=a"),
        (f"{URL}/?Edge_Token=a", f"{URL}/?Edge_Token=a"),
        (f"{URL}/edge_token=a", f"{URL}/edge_token=a"),
        (f"{URL}/?__ns_preview_transport=header", f"{URL}/?__ns_preview_transport=header"),
        ("", ""),
    ],
)
def test_only_the_values_of_the_key_are_replaced(url: str, expected: str) -> None:
    """Contract, redaction; and the published client does the same."""
    assert redact_preview_url(url) == expected
    assert published(url) == expected


@given(
    st.lists(
        st.sampled_from(["edge_token=s", "edge_token", "a=1", "", "=", "b=?edge_token=q", "%26=c"]),
        min_size=1,
    )
)
@calm
def test_any_query_is_redacted_as_the_published_client_does(pairs: list[str]) -> None:
    """Order and everything else stay."""
    url = f"{URL}/p?{'&'.join(pairs)}"
    if not url.endswith("?"):  # the client also drops a lone question mark
        assert redact_preview_url(url) == published(url)


RESERVED = "?&=#%/;+@:"


@given(
    st.sampled_from(
        ["", "/", "/a%2Fb/", "/p?", "/p?x=1&", "/p?edge_token=", "/p?__ns_preview_transport="]
    ),
    st.lists(
        st.one_of(
            st.sampled_from(
                ["edge_token", "edge_token=", "&edge_token=", "Edge_Token=", "edge%5Ftoken=s"]
            ),
            st.text(st.sampled_from("aé\u2028" + RESERVED), max_size=4),
            st.text(max_size=3),
        ),
        max_size=6,
    ),
)
@calm
def test_any_url_is_redacted_as_the_published_client_does(path: str, parts: list[str]) -> None:
    """Whatever the text, as long as the client does not tidy it up (control characters, empty ``?``)."""
    url = f"{URL}{path}{''.join(parts)}"
    try:
        tidy = urlunsplit(urlsplit(url))
    except ValueError:
        return
    if tidy == url:
        assert redact_preview_url(url) == published(url)


@given(st.text(), st.text(st.characters(exclude_characters="#&"), min_size=1), st.text())
@calm
def test_no_value_is_left(before: str, value: str, after: str) -> None:
    """A value of the key is replaced whatever stands around it, once for all, and nothing else is."""
    before, kept = before.replace("#", ""), f"&{after}"
    url = f"{URL}/?{before}&edge_token={value}{kept}"
    redacted = redact_preview_url(url)
    assert f"&edge_token={REDACTED}&" in redacted
    assert redact_preview_url(redacted) == redacted
    if "edge_token" not in before + after:
        assert redacted == f"{URL}/?{before}&edge_token={REDACTED}{kept}"


def test_tokens_become_one_word() -> None:
    """And None stays None."""
    assert redact_preview_token(TOKEN) == REDACTED
    assert redact_preview_token("") == REDACTED
    assert redact_preview_token(None) is None
    assert redact_preview_url(None) is None
    assert published_token(TOKEN) == REDACTED and published_token(None) is None


@pytest.mark.parametrize(
    "template",
    [
        "{}",
        "/path/{}/more",
        "/path/prefix{}",
        "/?edge_token={}",
        "a.b.{} and more",
        "Set-Cookie: ns_preview={}; Path=/",
        "{{'token': '{}'}}",
        "/?next=%2F%3Fedge_token%3D{}&x",
        "{0}.{0}",
        "eyJ eyJ {} eyJ.",
    ],
)
def test_a_token_is_found_wherever_it_stands(template: str) -> None:
    """No part of the signature or of the claims remains."""
    redacted = redact_text(template.format(TOKEN))
    assert REDACTED in redacted
    assert not any(part in redacted for part in TOKEN.split("."))


@pytest.mark.parametrize("before", ["", "x", "xy", f"{URL}/?edge_token=", f"{URL}/a?edge_token="])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_a_token_in_base64_is_found_whatever_was_before_it(
    before: str, encode: Callable[[bytes], bytes]
) -> None:
    """A page can encode its whole address: where its token begins among threes of bytes is chance."""
    text = encode(f"{before}{TOKEN[:-12]}{'x' * 64}".encode()).decode()
    redacted = redact_text(f"/next/{text}/more")
    assert redacted.partition(REDACTED)[2] in ("/more", "=/more", "==/more")
    assert len(redacted) < len(f"/next//more{REDACTED}=") + 4 * (len(before) + 3) // 3


TRAFFIC = "nst_Qm9-0f1e2d3cKb5a6978_796a5b4c3d2e1f0Zz7_x-8"


@pytest.mark.parametrize("before", ["", "x", "xy", "/", "a-", "token="])
@pytest.mark.parametrize("encode", [bytes, b64encode, urlsafe_b64encode])
def test_a_traffic_token_is_found_as_it_is_and_in_base64(
    before: str, encode: Callable[[bytes], bytes]
) -> None:
    """By what it begins with, wherever that comes to stand; shorter words that begin so are words."""
    redacted = redact_text(f"/x/{encode(f'{before}{TRAFFIC}'.encode()).decode()}/more")
    assert REDACTED in redacted and redacted.rstrip("=").endswith("/more")
    assert len(redacted.partition(REDACTED)[2]) <= len("==/more")
    for word in ("nst_", "/nst_app/main", "nst_" + "x" * 31, "bnN0X" + "x" * 39):
        assert redact_text(word) == word


@pytest.mark.parametrize("mark", [TRAFFIC, b64encode(TRAFFIC.encode()).decode()])
def test_tokens_do_not_hide_one_another(mark: str) -> None:
    """A JWT whose letters happen to look like a traffic access token, and the other way round."""
    mark = mark.rstrip("=")
    head, claims, signature = TOKEN.split(".")
    for made in (
        f"{head}.{claims}.{signature}{mark}{signature}",
        f"{head}.{claims}{mark}.{signature}",
        f"{mark[:24]}eyJ{mark[24:]}.a.b",
        f"{mark}.{TOKEN}",
        b64encode(f"{head}.{claims}{mark}.{'x' * 64}{signature}".encode()).decode(),
    ):
        assert redact_text(f"/{made}/more").removesuffix("/more").rstrip("=") == f"/{REDACTED}"


def test_a_token_is_found_through_three_layers_of_percent_encoding() -> None:
    """As many as servers undo, whether all of it was encoded or its dots alone; other escapes stay as they are."""

    def escaped(text: str) -> str:
        return "".join(f"%{byte:02X}" for byte in text.encode())

    for spelled in (
        TOKEN,
        escaped(TOKEN),
        TOKEN.replace(".", "%2e"),
        quote(escaped(TOKEN)),
        quote(quote(escaped(TOKEN))),
        quote(b64encode(f"{URL}/?edge_token={TOKEN}{'x' * 64}".encode()).decode()),
    ):
        redacted = redact_encoded(f"/a%20b/{spelled}")
        assert REDACTED in redacted and not any(part in redacted for part in TOKEN.split("."))
        assert "%" not in redacted.removeprefix("/a%20b/")
    both = redact_encoded(f"/{TOKEN}/{quote(escaped(TOKEN))}/{escaped(TRAFFIC)}")
    assert both == f"/{REDACTED}/{REDACTED}/{REDACTED}"
    for text in ("/a%20b/%e2%98%83", "/100%", "/%25%32%35"):
        assert redact_encoded(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "/", "/static/app.min.js", "/eyJust/a/path", "/eyJhbGci.one", "/edge_tokens", "a.b.c.d"],
)
def test_ordinary_text_stays(text: str) -> None:
    """A log that hides everything says nothing."""
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "eyJ" * 20_000,
        "eyJ." * 20_000,
        "eyJaaaa." * 8_000,
        "edge_token=" * 6_000,
        "a." * 30_000,
        "nst_" * 16_000,
        "bnN0X" * 12_000,
        "uc3Rf." * 10_000,
        ("nst_" + "x" * 31 + ".") * 1_800,
    ],
)
def test_hostile_paths_cost_no_time(text: str) -> None:
    """A stranger's path is logged: 64 kB of "eyJ" once took seconds, and the loop stood still."""
    began = time.thread_time()
    redact_text(text)
    assert time.thread_time() - began < 0.5


def test_a_broken_escape_does_not_hide_a_token_beside_an_encoded_one() -> None:
    """Two characters before a token make an escape of its first letter; another token is encoded."""
    token = ".".join(("eyJ" + "a" * 40, "eyJ" + "b" * 40, "c" * 43))
    text = redact_encoded(f"/a%2{token}/n%73t_" + "d" * 43)
    assert token[1:] not in text
    assert "c" * 43 not in text
    assert "d" * 43 not in text
