"""What needs no key."""

from __future__ import annotations

import json

from service import Service

from edge.core.credentials import keys_from_jwks


async def test_health_and_keys_are_open(service: Service) -> None:
    """Both answer without a key; the keys are what the edge takes."""
    answer, body = await service.raw("GET", "/healthz")
    assert answer.status == 200 and json.loads(body)["status"] == "ok"
    answer, body = await service.raw("GET", "/.well-known/jwks.json")
    assert keys_from_jwks(json.loads(body)).keys() == {service.plane.parts.keys.key.kid}
