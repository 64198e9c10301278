"""nullspace-sdk 0.1.9, unchanged and synchronous, against a real control plane."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from nullspace import Sandbox, types
from nullspace.errors import (
    AuthError,
    ConflictError,
    NotFoundError,
    SandboxError,
)
from nullspace.errors import NotImplementedError as NotOffered
from nullspace.lifecycle import Lifecycle
from nullspace.types import SandboxMetrics, SandboxQuery, SandboxStatus

Login = dict[str, Any]


@pytest.fixture
def sandbox(login: Login) -> Iterator[Sandbox]:
    """A sandbox that pauses and resumes by itself, killed after the test."""
    made = Sandbox.create(on_timeout="pause", auto_resume=True, metadata={"n": 1}, **login)
    yield made
    try:
        made.kill()
    except NotFoundError:
        pass


def _wait_for_output(sandbox: Sandbox, pid: int, text: str) -> None:
    while sandbox.commands.get_logs(pid).stdout != text:
        time.sleep(0.01)


def test_create_get_list(login: Login, sandbox: Sandbox) -> None:
    """What was asked for comes back, from the handle, by id, in lists."""
    info = sandbox.get_info()
    assert isinstance(info, types.SandboxInfo)
    assert (info.status, info.template, info.metadata) == (SandboxStatus.RUNNING, "base", {"n": 1})
    assert info.config.vcpus == 2 and info.timeout_ms == 300_000
    assert info.expires_at == info.timeout_at and info.started_at >= info.created_at
    assert info.timeout_action is types.SandboxTimeoutAction.HIBERNATE
    assert info.warm_pool_checkout is not None and info.warm_pool_checkout.hit is False
    assert sandbox.is_running()
    assert sandbox.get_info(fields=["id", "status"]) == {"id": sandbox.id, "status": "running"}
    assert Sandbox.get_info_by_id(sandbox.id, **login) == info
    with Sandbox.list(**login) as found:
        assert sandbox.id in [item.id for item in found]
    query = SandboxQuery(state=[SandboxStatus.RUNNING], template="base", metadata={"n": 1})
    assert sandbox.id in [item.id for item in Sandbox.list(query=query, **login)]
    assert {"id": sandbox.id} in Sandbox.list(fields="id", **login)


def test_pages(login: Login) -> None:
    """The paginator walks all pages."""
    made = [Sandbox.create(template="paged", **login) for _ in range(5)]
    try:
        pages = Sandbox.list(query=SandboxQuery(template="paged"), limit=2, **login)
        assert pages.has_next
        assert [item.id for item in pages] == [one.id for one in made]
        assert len(Sandbox.list(limit=2, **login).next_items()) == 2
    finally:
        for one in made:
            one.kill()


def test_create_is_idempotent_and_validated(login: Login) -> None:
    """The same key makes one sandbox; contradictions and missing features have their errors."""
    first = Sandbox.create(idempotency_key="sdk-1", **login)
    assert Sandbox.create(idempotency_key="sdk-1", **login).id == first.id
    with pytest.raises(ConflictError):
        Sandbox.create(idempotency_key="sdk-1", vcpus=4, **login)
    with pytest.raises(SandboxError) as refused:
        Sandbox.create(auto_resume=True, **login)
    assert refused.value.code == "invalid_request"
    with pytest.raises(SandboxError) as refused:
        Sandbox.create(warm_pool="wp_1", warm_pool_mode="require", **login)
    assert refused.value.code == "warm_pool_unavailable"
    cold = Sandbox.create(warm_pool="wp_1", **login)
    assert cold.get_info().warm_pool_checkout.source is types.WarmPoolCheckoutSource.COLD_CREATE
    for one in (first, cold):
        one.kill()


def test_private_traffic(login: Login) -> None:
    """The handle of a create has the traffic access token, no other has."""
    with Sandbox.create(network={"allow_public_traffic": False}, **login) as private:
        assert private.traffic_access_token
        assert not any(info.traffic_access_token for info in Sandbox.list(**login))
        assert Sandbox.connect(private.id, **login).traffic_access_token is None


def test_pause_connect_resume(login: Login, sandbox: Sandbox) -> None:
    """A paused sandbox names its snapshot; connect resumes it with its memory; killed is gone."""
    started = sandbox.commands.run("echo up; sleep 600", shell=True, background=True)
    _wait_for_output(sandbox, started.pid, "up\n")
    snapshot = sandbox.pause()
    assert isinstance(snapshot, types.SnapshotInfo) and snapshot.size_bytes > 0
    info = sandbox.get_info()
    assert (info.status, info.snapshot_id) == (SandboxStatus.PAUSED, snapshot.id)
    again = Sandbox.connect(sandbox.id, timeout=60, **login)
    assert again.get_info().timeout_ms == 60_000
    assert [process.pid for process in again.commands.list() if process.running] == [started.pid]
    assert Sandbox.resume(snapshot.id, **login).id == sandbox.id
    sandbox.hibernate()
    assert sandbox.commands.run("echo", ["woken"]).stdout == "woken\n"
    with pytest.raises(SandboxError, match="auto_resume"):
        sandbox.set_timeout(60, timeout_action="destroy")
    sandbox.set_timeout(120)
    Sandbox.kill_by_id(sandbox.id, **login)
    with pytest.raises(NotFoundError) as gone:
        Sandbox.connect(sandbox.id, **login)
    assert gone.value.code == "sandbox_not_found"


def test_without_auto_resume_nothing_wakes(login: Login) -> None:
    """Commands and files are refused as a conflict while it is paused."""
    with Sandbox.create(on_timeout="pause", **login) as sandbox:
        sandbox.pause()
        for call in (lambda: sandbox.commands.run("true"), lambda: sandbox.files.list()):
            with pytest.raises(ConflictError) as refused:
                call()
            assert refused.value.code == "sandbox_not_ready"


def test_commands(login: Login, sandbox: Sandbox) -> None:
    """Foreground, environment, directory, time limit, background, logs, kill."""
    ran = sandbox.commands.run("echo $A; pwd; echo err >&2; exit 3", shell=True, envs={"A": "1"})
    assert (ran.exit_code, ran.stderr) == (3, "err\n") and ran.stdout.startswith("1\n")
    sandbox.files.write("sub/x", "")
    assert sandbox.commands.run("ls", cwd="sub").stdout == "x\n"
    with pytest.raises(SandboxError) as refused:
        sandbox.commands.run("sleep", ["60"], timeout=1)
    assert refused.value.code == "exec_timeout"
    with pytest.raises(NotFoundError):
        sandbox.commands.run("no-such-program")
    started = sandbox.commands.run("echo out; sleep 600", shell=True, background=True)
    _wait_for_output(sandbox, started.pid, "out\n")
    sandbox.commands.kill(started.pid)
    while (code := sandbox.commands.get_logs(started.pid).exit_code) is None:
        time.sleep(0.01)
    assert code == 137
    with pytest.raises(NotFoundError):
        sandbox.commands.kill(1)
    assert sandbox.process.code_run("print(6 * 7)").stdout == "42\n"
    assert Sandbox.run_once("echo", ["once"], **login).stdout == "once\n"


def test_files(sandbox: Sandbox) -> None:
    """Text, bytes and streams, both ways; lists; what is not there."""
    assert sandbox.files.write("a/b.txt", "h\u00e9").path == "/workspace/a/b.txt"
    assert sandbox.files.read("/workspace/a/b.txt") == "h\u00e9"
    raw = bytes(range(256)) * 1000
    assert sandbox.files.write("raw", raw).size == len(raw)
    assert sandbox.files.read("raw", format="bytes") == raw
    assert sandbox.files.write("streamed", iter([raw, raw])).size == 2 * len(raw)
    assert b"".join(sandbox.files.read("streamed", format="stream")) == raw * 2
    assert sorted(entry.name for entry in sandbox.files.list()) == ["a", "raw", "streamed"]
    deep = sandbox.files.list("/workspace", depth=2)
    assert "/workspace/a/b.txt" in [entry.path for entry in deep]
    with pytest.raises(NotFoundError):
        sandbox.files.read("none")
    with pytest.raises(SandboxError):
        sandbox.files.read("/etc/passwd")


def test_previews(
    sandbox: Sandbox, unused_tcp_port: int, app_command: Callable[[int], list[str]]
) -> None:
    """URLs of a port, readiness of a real app, grants and their revocation; reserved ports."""
    port = unused_tcp_port
    host = f"{port}-{sandbox.id.replace('_', '-')}.edge.test:3001"
    assert sandbox.get_host(port) == host == sandbox.get_host_info(port).host
    assert sandbox.get_url(port).startswith(f"http://{host}/?edge_token=")
    assert sandbox.get_websocket_url(port).startswith(f"ws://{host}/?edge_token=")
    preview = sandbox.get_preview_url(port)
    assert preview.grant.status == "active" and preview.access_token_transport == "query"
    signed = sandbox.create_signed_preview_url(port, expires_in_seconds=120)
    lifetime = signed.access_token_expires_at - signed.grant.issued_at
    assert lifetime.total_seconds() == 120
    assert not sandbox.wait_for_preview(port, timeout_secs=1, interval_ms=100).ready
    sandbox.commands.run("python3", app_command(port), background=True)
    assert sandbox.wait_for_preview(port, kind="http", path="/", timeout_secs=30).ready
    assert len(sandbox.list_preview_urls(port=port)) == 6
    assert sandbox.list_preview_urls(port=port + 1) == []
    revoked = sandbox.revoke_preview_url(signed.grant.id)
    assert revoked.success and revoked.grant.status == "revoked"
    with pytest.raises(NotFoundError) as unknown:
        sandbox.revoke_preview_url("pvg_unknown")
    assert unknown.value.code == "preview_grant_not_found"
    with pytest.raises(SandboxError) as refused:
        sandbox.get_preview_url(22)
    assert (refused.value.code, refused.value.details) == ("unsupported_preview_port", {"port": 22})


def test_a_target_for_a_proxy(login: Login, sandbox: Sandbox) -> None:
    """Marker URLs and tokens for a header, for both transports or for one; a grant like any other."""
    target = sandbox.create_preview_proxy_target(8080)
    assert isinstance(target, types.PreviewProxyTarget)
    host = f"8080-{sandbox.id.replace('_', '-')}.edge.test:3001"
    assert target.http_url == f"http://{host}/?__ns_preview_transport=header"
    assert target.websocket_url == f"ws://{host}/?__ns_preview_transport=header"
    assert target.http_token and target.websocket_token
    assert target.http_token != target.websocket_token
    assert (target.sandbox_id, target.port) == (sandbox.id, 8080)
    assert target.token_header_name == "x-nullspace-preview-proxy-token"
    assert (target.traffic_access_required, target.warnings) == (False, [])
    grant = target.grant
    assert isinstance(grant, types.PreviewGrantInfo)
    assert (grant.auth_mode, grant.bootstrap_transport) == ("proxy", "header")
    assert grant.expires_at == target.expires_at
    assert sandbox.list_preview_urls(port=8080) == [grant]
    one = sandbox.create_preview_proxy_target(8080, expires_in_seconds=1, transports=["http"])
    assert one.http_token and one.websocket_url is None and one.websocket_token is None
    assert (one.expires_at - one.grant.issued_at).total_seconds() == 60
    assert one.grant.token_kinds == ["http_port"] and len(one.warnings) == 1
    assert sandbox.revoke_preview_url(grant.id).grant.status == "revoked"
    with pytest.raises(SandboxError) as refused:
        sandbox.create_preview_proxy_target(8080, transports=["carrier pigeon"])
    assert refused.value.code == "invalid_request"
    with Sandbox.create(network={"allow_public_traffic": False}, **login) as private:
        hinted = private.create_preview_proxy_target(80)
        assert hinted.traffic_access_required is True
        assert hinted.traffic_access_header_name == "x-nullspace-traffic-access-token"
        silent = private.create_preview_proxy_target(80, include_traffic_token_hint=False)
        assert silent.traffic_access_required is silent.traffic_access_header_name is None


def test_lifecycle(login: Login) -> None:
    """Lists by sandbox, by snapshot and over all, also after the end."""
    sandbox = Sandbox.create(on_timeout="pause", **login)
    snapshot = sandbox.pause()
    Sandbox.connect(sandbox.id, **login).kill()
    lifecycle = Lifecycle(**login)
    page = lifecycle.list_sandbox_events(sandbox.id, order_asc=True, limit=200)
    assert [event.operation.value for event in page.events] == [
        "create", "hibernate", "hibernate", "snapshot_created", "resume_from_snapshot",
        "destroy", "destroy",
    ]  # fmt: skip
    assert len(lifecycle.list_snapshot_events(snapshot.id).events) == 4
    found = lifecycle.list_events(sandbox_id=sandbox.id, operation="create", status="succeeded")
    assert found.events == page.events[:1] and not found.has_more
    lifecycle.close()


def test_what_is_not_offered(login: Login, sandbox: Sandbox) -> None:
    """The client sees its own exception for the rest of the API, and for a wrong key."""
    calls: list[Callable[[], object]] = [
        lambda: Lifecycle(**login).list_webhooks(),
        lambda: Sandbox.create(internet_access=False, **login),
    ]
    for call in calls:
        with pytest.raises(NotOffered):
            call()
    with pytest.raises(AuthError):
        Sandbox.create(base_url=login["base_url"], api_key="wrong")


def test_metrics(login: Login, sandbox: Sandbox) -> None:
    """One sample of the client's own class, by handle and by id; network is not known here, and says so."""
    sandbox.commands.run("sleep", ["600"], background=True)
    for (sample,) in (sandbox.get_metrics(), Sandbox.get_metrics_by_id(sandbox.id, **login)):
        assert isinstance(sample, SandboxMetrics)
        assert 0 < sample.mem_used_bytes < sample.mem_total_bytes and sample.cpu_count >= 1
        assert (sample.network_rx_bytes, sample.network_tx_bytes) == (None, None)
