"""``GET /openapi.json``; what it says is tested beside the code that says it."""

from __future__ import annotations

import json

from service import Service


async def test_it_is_open_and_always_the_same(service: Service) -> None:
    """No key is needed, a wrong one is not looked at, and the document is made once."""
    one, first = await service.raw("GET", "/openapi.json")
    _, second = await service.raw("GET", "/openapi.json", headers={"Authorization": "Bearer x"})
    assert one.status == 200 and first == second
    assert json.loads(first)["info"]["title"] == "Embedded control plane"
    assert (await service.raw("POST", "/openapi.json"))[0].status == 405
