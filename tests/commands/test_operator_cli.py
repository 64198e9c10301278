"""``preview-edge operator``, against a real control plane."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.appliance.server import ControlPlane
from edge.cli import main
from edge.commands.operator import TOKEN_VARIABLE, URL_VARIABLE
from edge.commands.operator_cli import audit_line
from tests.commands.operated import control_plane, in_thread
from tests.commands.operated import door as door_of
from tests.commands.operated import grant as grant_of


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """A real control plane."""
    async with control_plane(tmp_path) as one:
        yield one


async def test_the_command_line(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command says in one line what is so now; the trail reads from top to bottom in time."""
    sandbox, grant = await grant_of(plane)
    door = door_of(plane)
    monkeypatch.setenv(URL_VARIABLE, door.url)
    monkeypatch.setenv(TOKEN_VARIABLE, door.token)

    async def run(*arguments: str) -> str:
        await in_thread(main, ["operator", *arguments])
        return capsys.readouterr().out

    assert await run("disable-grant", grant, "--reason", "a\x1b[31m") == f"{grant}: disabled\n"
    assert await run("enable-grant", grant) == f"{grant}: active\n"
    assert await run("disable-previews", sandbox) == f"{sandbox}: previews disabled\n"
    assert await run("enable-previews", sandbox) == f"{sandbox}: previews enabled\n"
    lines = (await run("audit")).splitlines()
    assert [line.split()[1:3] for line in lines] == [
        ["created", "user"],
        ["disabled", "operator"],
        ["enabled", "operator"],
        ["disabled", "operator"],
        ["enabled", "operator"],
    ]
    assert lines[1].endswith(f"{sandbox}  {grant} direct 8080  (a?[31m)")
    assert lines[3].endswith(f"{sandbox}  all previews")
    wanted = ("--sandbox", sandbox, "--event", "enabled", "--limit", "1", "--json")
    (last,) = (await run("audit", *wanted)).splitlines()
    assert json.loads(last)["event"] == "enabled" and "grant_id" not in json.loads(last)
    with pytest.raises(SystemExit) as ended:
        await run("enable-grant", "pvg_unknown")
    assert ended.value.code == 2
    complaint = capsys.readouterr().err
    assert (
        complaint.startswith("preview-edge: preview_grant_not_found") and complaint.count("\n") == 1
    )


def test_lines_of_the_audit_trail() -> None:
    """About a grant and about a whole sandbox; what a terminal would obey is taken out."""
    event: dict[str, object] = {"occurred_at": "T", "event": "failed", "actor": "visitor"}
    event |= {"sandbox_id": "sb_1", "grant_id": "pvg_1", "auth_mode": "proxy", "port": 80}
    assert audit_line(event) == "T  failed    visitor   sb_1  pvg_1 proxy 80"
    assert audit_line(event | {"code": "c\x1b"}).endswith("sb_1  pvg_1 proxy 80  (c?)")
    whole = {"occurred_at": "T", "event": "disabled", "actor": "operator", "sandbox_id": "sb_1"}
    assert audit_line(whole | {"reason": "r"}).endswith("operator  sb_1  all previews  (r)")
