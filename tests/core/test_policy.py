"""Policy by kind: each is recognised by its own marks, and suppresses waking only where the settings say so."""

from __future__ import annotations

import pytest

from edge.core.policy import WakePolicy, is_bare_preflight
from edge.core.settings import WakePolicySettings
from tests.core.wires import request, scan

PREFLIGHT = (b"Origin: https://a.example", b"Access-Control-Request-Method: PUT")
KINDS = [
    ("prefetch", b"GET / HTTP/1.1", (b"Sec-Purpose: prefetch",)),
    ("prefetch", b"GET / HTTP/1.1", (b"sec-purpose: prefetch;prerender",)),
    ("prefetch", b"GET / HTTP/1.1", (b"Purpose: Prefetch",)),
    ("prefetch", b"GET / HTTP/1.1", (b"X-Moz: prefetch",)),
    ("preflight", b"OPTIONS /x HTTP/1.1", PREFLIGHT),
    ("head", b"HEAD / HTTP/1.1", ()),
    ("favicon", b"GET /favicon.ico?v=2 HTTP/1.1", ()),
    ("favicon", b"GET /apple-touch-icon-precomposed.png HTTP/1.1", ()),
    ("monitor", b"GET / HTTP/1.1", (b"User-Agent: Mozilla/5.0 (compatible; UptimeRobot/2.0)",)),
    ("monitor", b"GET / HTTP/1.1", (b"User-Agent: kube-probe/1.30",)),
]
SETTING = {"monitor": "monitors"}


@pytest.mark.parametrize(("kind", "line", "fields"), KINDS)
def test_a_kind_is_suppressed_by_its_own_setting(
    kind: str, line: bytes, fields: tuple[bytes, ...]
) -> None:
    """And by no other."""
    head = scan(request(*fields, line=line))
    setting = SETTING.get(kind, kind)
    everything = dict.fromkeys(("prefetch", "preflight", "head", "favicon", "monitors"), True)
    off = WakePolicy(WakePolicySettings(**everything | {setting: False}))
    assert off.sleeps_through(head) == kind
    assert WakePolicy(WakePolicySettings(**everything)).sleeps_through(head) is None


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"GET / HTTP/1.1", ()),
        (b"GET / HTTP/1.1", (b"Sec-Purpose: nothing",)),
        (b"GET / HTTP/1.1", (b"Purpose: navigate prefetch",)),
        (b"OPTIONS / HTTP/1.1", PREFLIGHT[:1]),
        (b"OPTIONS / HTTP/1.1", PREFLIGHT[1:]),
        (b"POST / HTTP/1.1", PREFLIGHT),
        (b"GET /a/favicon.ico HTTP/1.1", ()),
        (b"POST /favicon.ico HTTP/1.1", ()),
        (b"GET / HTTP/1.1", (b"User-Agent: Mozilla/5.0",)),
    ],
)
def test_what_is_of_no_kind_wakes(line: bytes, fields: tuple[bytes, ...]) -> None:
    """With every kind suppressed."""
    nothing = dict.fromkeys(("prefetch", "preflight", "head", "favicon", "monitors"), False)
    policy = WakePolicy(WakePolicySettings(**nothing))
    assert policy.sleeps_through(scan(request(*fields, line=line))) is None


def test_by_default_only_a_prefetch_sleeps_on() -> None:
    """Somebody may wait for all the others."""
    policy = WakePolicy(WakePolicySettings())
    told = {policy.sleeps_through(scan(request(*fields, line=line))) for _, line, fields in KINDS}
    assert told == {"prefetch", None}


@pytest.mark.parametrize(
    ("line", "fields", "bare"),
    [
        (b"OPTIONS /x?y HTTP/1.1", PREFLIGHT, True),
        (b"OPTIONS /x HTTP/1.1", (*PREFLIGHT, b"Content-Length: 0"), True),
        (b"OPTIONS /?__ns_preview_transport=header HTTP/1.1", PREFLIGHT, True),
        (b"OPTIONS /x HTTP/1.1", PREFLIGHT[:1], False),
        (b"GET /x HTTP/1.1", PREFLIGHT, False),
        (b"OPTIONS /x HTTP/1.1", (*PREFLIGHT, b"Content-Length: 1"), False),
        (b"OPTIONS /x HTTP/1.1", (*PREFLIGHT, b"Transfer-Encoding: chunked"), False),
        (b"OPTIONS /?edge_token=x HTTP/1.1", PREFLIGHT, False),
        (b"OPTIONS /x HTTP/1.1", (*PREFLIGHT, b"Cookie: a=b"), False),
        (b"OPTIONS /x HTTP/1.1", (*PREFLIGHT, b"Authorization: Bearer x"), False),
        (b"OPTIONS /x HTTP/1.1", (*PREFLIGHT, b"proxy-authorization: Basic x"), False),
        (b"OPTIONS /x HTTP/1.1", (*PREFLIGHT, b"x-nullspace-traffic-access-token: x"), False),
        (b"OPTIONS /x HTTP/1.1", (*PREFLIGHT, b"x-nullspace-preview-proxy-token: x"), False),
    ],
)
def test_a_bare_preflight(line: bytes, fields: tuple[bytes, ...], bare: bool) -> None:
    """What a browser sends by itself: no body, and nothing that could be a credential."""
    assert is_bare_preflight(scan(request(*fields, line=line))) is bare
