"""The world the edge of the bench lives in: sandboxes, grants, keys, tokens, and its settings."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from edge.core.credentials import Claims, Family, Key, sign
from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from edge.state import wire

HOSTNAME = "preview.example"
FAST = 8001
"""The sandbox's port behind which nginx plays the app."""
LIVE = 8002
"""The sandbox's port behind which `bench.upstream` plays the app."""
RUNNING = "sb_bench0001"
LIFETIME = 6 * 3600


@dataclass
class World:
    """What exists. ``fast_port`` and ``live_port`` are where the apps really listen."""

    fast_port: int
    live_port: int
    sandboxes: list[SandboxRecord] = field(default_factory=list)
    grants: list[GrantRecord] = field(default_factory=list)
    service_token: str = field(default_factory=lambda: secrets.token_hex(32))
    _private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    _fleet: Key = field(default_factory=lambda: Key("fleet", "HS256", secrets.token_hex(32)))

    def add_sandbox(self, sandbox_id: str, state: State) -> None:
        """A sandbox with both ports; a paused one comes back when it is asked for."""
        upstream = Upstream("127.0.0.1", {FAST: self.fast_port, LIVE: self.live_port})
        self.sandboxes.append(
            SandboxRecord(
                id=sandbox_id,
                state=state,
                version=1,
                incarnation=1,
                auto_resume=True,
                running_since=time.time() if state is State.RUNNING else None,
                upstream=upstream,
            )
        )

    def token(self, sandbox_id: str, port: int, kind: Transport) -> str:
        """An edge token under a grant of its own."""
        return sign(self._claims(sandbox_id, port, kind), Family.EDGE, self._signing_key())

    def cookie(self, sandbox_id: str, port: int) -> str:
        """What the Cookie header of a browser holds that has followed a link before."""
        claims = self._claims(sandbox_id, port, Transport.HTTP)
        return f"__Host-ns_preview={sign(claims, Family.CONTINUATION, self._fleet)}"

    def _claims(self, sandbox_id: str, port: int, kind: Transport) -> Claims:
        now = float(int(time.time()))
        grant = f"grant_{len(self.grants)}"
        self.grants.append(
            GrantRecord(
                id=grant,
                sandbox_id=sandbox_id,
                port=port,
                kinds=frozenset({kind}),
                status=GrantStatus.ACTIVE,
                expires_at=now + LIFETIME,
                version=1,
            )
        )
        return Claims(
            iss="nullspace",
            aud=HOSTNAME,
            sub=sandbox_id,
            port=port,
            kind=kind,
            grant=grant,
            principal="bench",
            iat=now,
            exp=now + LIFETIME,
            jti=secrets.token_hex(8),
        )

    def _signing_key(self) -> Key:
        return Key("bench", "EdDSA", self._private)

    def for_control_plane(self) -> str:
        """What `bench.control_plane` reads."""
        public = OKPAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return json.dumps(
            {
                "service_token": self.service_token,
                "jwks": {"keys": [public | {"kid": "bench", "alg": "EdDSA", "use": "sig"}]},
                "sandboxes": [json.loads(wire.sandbox_to_json(one)) for one in self.sandboxes],
                "grants": [json.loads(wire.grant_to_json(one)) for one in self.grants],
            }
        )

    def edge_settings(self, control_plane_port: int, access_log: Path) -> str:
        """The edge's settings: production's, but for free ports and room for all wakes of the bench."""
        base = f"http://127.0.0.1:{control_plane_port}"
        secret = self._fleet.material
        return f"""
public_hostname = "{HOSTNAME}"
public_scheme = "https"
[listen]
port = 0
admin_port = 0
[control_plane]
url = "{base}"
token = "{self.service_token}"
[tokens]
jwks_url = "{base}/.well-known/jwks.json"
[cookie]
keys = [{{ kid = "fleet", secret = "{secret}" }}]
[log]
access = {json.dumps(str(access_log))}
"""


def host_of(sandbox_id: str, port: int) -> str:
    """The preview host of a sandbox's port."""
    return f"{port}-{sandbox_id.replace('_', '-')}.{HOSTNAME}"
