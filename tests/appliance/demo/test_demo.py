"""The demo sandbox of a real control plane."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest
from service import Service

from edge.appliance import demo
from edge.appliance.demo import DemoFailed, start_demo


async def test_the_demo_is_a_sandbox_like_any_other(service: Service) -> None:
    """It runs, resumes by itself, and its link leads to a port that answers."""
    started = await start_demo(service.plane.parts)
    _, record = await service.edge("GET", f"sandboxes/{started.sandbox_id}")
    assert (record["state"], record["auto_resume"]) == ("running", True)
    port = int(started.url.partition("//")[2].partition("-")[0])
    async with service.session.get(f"http://127.0.0.1:{port}/") as answer:
        assert answer.status == 200
    address, _, fragment = started.link.partition("#ws=")
    assert (address, unquote(fragment)) == (started.url, started.websocket_url)
    assert "edge_token" not in repr(started)


async def test_an_app_that_does_not_come_up_is_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No endless wait, one line."""

    async def never(*_: object) -> dict[str, object]:
        return {"ready": False}

    monkeypatch.setattr(demo, "wait_ready", never)
    with pytest.raises(DemoFailed, match="does not listen"):
        await start_demo(service.plane.parts)


async def test_demos_of_earlier_runs_do_not_pile_up(tmp_path: Path) -> None:
    """They go at the next start, files and all, with or without a new demo; one made to look like it stays."""
    like_it = {"template": "demo", "metadata": {"demo": True}}
    async with Service(tmp_path) as service:
        ours = await service.create(**like_it)
        first = await start_demo(service.plane.parts)
    async with Service(tmp_path) as service:
        assert [one.id for one in service.plane.parts.sandboxes.living()] == [ours]
        assert service.plane.in_error == 1
        assert [path.name for path in (tmp_path / "sandboxes").iterdir()] == [ours]
        second = await start_demo(service.plane.parts)
        assert second.sandbox_id != first.sandbox_id
        assert (await service.api("DELETE", f"/v1/sandboxes/{second.sandbox_id}"))[0] == 204
    async with Service(tmp_path) as service:
        assert [one.id for one in service.plane.parts.sandboxes.living()] == [ours]
        assert service.plane.parts.store.read("SELECT * FROM demos") == []
