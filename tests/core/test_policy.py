"""Wake policy: each kind is recognised by its own marks, and suppresses only where the settings say so."""

from __future__ import annotations

import pytest

from edge.core.policy import WakePolicy
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
