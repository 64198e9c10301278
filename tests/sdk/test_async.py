"""nullspace-sdk 0.1.9, unchanged and asynchronous, against a real control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nullspace import AsyncSandbox
from nullspace.errors import NotFoundError, SandboxError
from nullspace.errors import NotImplementedError as NotOffered
from nullspace.types import SandboxStatus

Login = dict[str, Any]
PAUSES = {"on_timeout": "pause", "auto_resume": True}


async def _until(sandbox: AsyncSandbox, status: SandboxStatus) -> None:
    # Asked again and again, because that is what the test is about: what a client reads.
    while (await sandbox.get_info()).status is not status:  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.05)


async def test_a_life(login: Login) -> None:
    """Create, inspect, pause, connect, resume, kill."""
    sandbox = await AsyncSandbox.create(metadata={"n": 1}, **PAUSES, **login)
    info = await sandbox.get_info()
    assert (info.status, info.metadata) == (SandboxStatus.RUNNING, {"n": 1})
    snapshot = await sandbox.hibernate()
    assert not await sandbox.is_running()
    again = await AsyncSandbox.connect(sandbox.id, timeout=60, **login)
    assert (await again.get_info()).timeout_ms == 60_000
    resumed = await AsyncSandbox.resume(snapshot.id, **login)
    assert resumed.id == sandbox.id
    async for found in await AsyncSandbox.list(state="running", **login):
        assert found.status is SandboxStatus.RUNNING
    page = await sandbox.list_lifecycle(order_asc=True)
    assert page.events[0].metadata == {"timeout_action": "hibernate"}
    await again.kill()
    with pytest.raises(NotFoundError):
        await resumed.get_info()
    for handle in (sandbox, resumed):
        await handle.close()


async def test_many_at_once_wake_one_sandbox_once(login: Login) -> None:
    """Thirty commands on a paused sandbox: all run, one resume."""
    async with await AsyncSandbox.create(**PAUSES, **login) as sandbox:
        await sandbox.pause()
        runs = await asyncio.gather(
            *(sandbox.commands.run("echo", [str(number)]) for number in range(30))
        )
        assert [ran.stdout for ran in runs] == [f"{number}\n" for number in range(30)]
        page = await sandbox.list_lifecycle(operation="resume_from_snapshot")
        assert len(page.events) == 1


async def test_commands_and_files(login: Login) -> None:
    """Both directions of both, and the errors in between."""
    async with await AsyncSandbox.create(**login) as sandbox:
        started = await sandbox.commands.run("sleep 600", shell=True, background=True)
        assert [p.pid for p in await sandbox.commands.list()] == [started.pid]
        await sandbox.commands.kill(started.pid)
        # Killed is not yet reaped, and asking again is all there is.
        while (code := (await sandbox.commands.get_logs(started.pid)).exit_code) is None:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
        assert code == 137
        with pytest.raises(SandboxError) as refused:
            await sandbox.commands.run("sleep", ["60"], timeout=1)
        assert refused.value.code == "exec_timeout"
        await sandbox.files.write("a.txt", "text")
        assert await sandbox.files.read("a.txt") == "text"
        await sandbox.files.write("raw", b"\x00\xff")
        assert await sandbox.files.read("raw", format="bytes") == b"\x00\xff"
        assert sorted(entry.name for entry in await sandbox.files.list()) == ["a.txt", "raw"]
        (sample,) = await sandbox.get_metrics()
        assert sample.disk_used_bytes > 0
        with pytest.raises(NotOffered):
            await sandbox.create_ssh_access()


async def test_previews(
    login: Login, unused_tcp_port: int, app_command: Callable[[int], list[str]]
) -> None:
    """URLs, readiness, grants, revocation."""
    port = unused_tcp_port
    async with await AsyncSandbox.create(**login) as sandbox:
        assert (await sandbox.get_host(port)).endswith(".edge.test:3001")
        assert "edge_token=" in await sandbox.get_url(port)
        preview = await sandbox.create_signed_preview_url(port, expires_in_seconds=1)
        lifetime = preview.access_token_expires_at - preview.grant.issued_at
        assert lifetime.total_seconds() == 60
        await sandbox.commands.run("python3", app_command(port), background=True)
        assert (await sandbox.wait_for_preview(port, timeout_secs=30)).ready
        assert len(await sandbox.list_preview_urls()) == 3
        assert (await sandbox.revoke_preview_url(preview.grant.id)).grant.status == "revoked"


async def test_a_target_for_a_proxy(login: Login) -> None:
    """Both transports, one transport, the hint about private traffic, revocation."""
    network = {"allow_public_traffic": False}
    async with await AsyncSandbox.create(network=network, **login) as sandbox:
        assert sandbox.traffic_access_token
        target = await sandbox.create_preview_proxy_target(8080, expires_in_seconds=600)
        assert (target.expires_at - target.grant.issued_at).total_seconds() == 600
        assert target.http_url.endswith("/?__ns_preview_transport=header")
        assert target.http_token != target.websocket_token
        assert target.traffic_access_required is True and len(target.warnings) == 1
        one = await sandbox.create_preview_proxy_target(
            8080, transports=("websocket",), include_traffic_token_hint=False
        )
        assert (one.http_url, one.http_token, one.traffic_access_required) == (None, None, None)
        assert [grant.auth_mode for grant in await sandbox.list_preview_urls()] == ["proxy"] * 2
        assert (await sandbox.revoke_preview_url(one.grant.id)).grant.status == "revoked"


async def test_timeouts_pause_and_destroy(login: Login) -> None:
    """``timeout`` does what was asked for, and the list of events says why."""
    async with (
        await AsyncSandbox.create(timeout=1, **PAUSES, **login) as pausing,
        await AsyncSandbox.create(timeout=1, **login) as ending,
    ):
        await _until(pausing, SandboxStatus.PAUSED)
        with pytest.raises(NotFoundError):
            await _until(ending, SandboxStatus.DESTROYED)
        for sandbox, last in ((pausing, "snapshot_created"), (ending, "destroy")):
            events = (await sandbox.list_lifecycle()).events
            assert events[0].operation.value == last
            expired = [e for e in events if e.operation.value == "timeout_expired"]
            assert len(expired) == 1
            assert {event.reason for event in events[:2]} == {"timeout"}
