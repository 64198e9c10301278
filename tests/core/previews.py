"""Previews for tests: one sandbox, its grant, keys, and tokens good and bad for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge.core.credentials import Claims, Expectation, Family, Key, Keys, sign
from edge.core.decision import Access, Forward
from edge.core.records import (
    GrantRecord,
    GrantStatus,
    SandboxRecord,
    State,
    Transport,
    Upstream,
)
from edge.core.target import Target

NOW = 1_700_000_000.0
SITE = "preview.example"
TARGET = Target("sb_aaaaaaaa", 3000)

# Shared secrets, because the tables here sign by the thousand; test_credentials tries every algorithm.
ISSUED = Key("k1", "HS256", "a key of the control plane, long enough")
COOKIES = Key("c1", "HS256", "a key of the fleet's own, long enough")
FORGED = Key("k1", "HS256", "a key that somebody else made up himself")
KEYS = Keys({"k1": ISSUED}, {"c1": COOKIES})
EXPECT = Expectation("nullspace", SITE, 4096)

CLAIMS = Claims(
    iss="nullspace",
    aud=SITE,
    sub=TARGET.sandbox_id,
    port=TARGET.port,
    kind=Transport.HTTP,
    grant="pvg_1",
    principal="user_1",
    iat=NOW - 10,
    exp=NOW + 900,
    jti="jti-1",
)
SANDBOX = SandboxRecord(
    id=TARGET.sandbox_id,
    state=State.RUNNING,
    version=7,
    incarnation=3,
    running_since=NOW - 100,
    upstream=Upstream("127.0.0.1"),
)
GRANT = GrantRecord(
    id="pvg_1",
    sandbox_id=TARGET.sandbox_id,
    port=TARGET.port,
    kinds=frozenset(Transport),
    status=GrantStatus.ACTIVE,
    expires_at=NOW + 900,
    version=1,
)


def token(family: Family = Family.EDGE, key: Key | None = None, **claims: Any) -> bytes:
    """A token of this family, with changes to its claims."""
    if key is None:
        key = COOKIES if family is Family.CONTINUATION else ISSUED
    return sign(replace(CLAIMS, **claims), family, key).encode()


def way(family: Family = Family.EDGE, kind: Transport = Transport.HTTP, **record: Any) -> Forward:
    """A decision to forward, with changes to the sandbox's record."""
    access = Access(TARGET, replace(CLAIMS, kind=kind), family, kind, continues=False)
    return Forward(access, replace(SANDBOX, **record), GRANT)
