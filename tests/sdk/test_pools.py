"""nullspace-sdk 0.1.9, unchanged, and warm pools: synchronous, asynchronous, and its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nullspace import (
    AsyncSandbox,
    AsyncTemplateWarmPool,
    Sandbox,
    Template,
    TemplateWarmPool,
)
from nullspace.errors import NotFoundError, QuotaExceededError, SandboxError
from nullspace.errors import TimeoutError as NotInTime
from nullspace.types import (
    TemplateWarmPoolDegradedReason,
    TemplateWarmPoolInfo,
    TemplateWarmPoolState,
    WarmPoolCheckoutMode,
    WarmPoolCheckoutResult,
    WarmPoolCheckoutSource,
)

Login = dict[str, Any]
QUICK = {"timeout_secs": 60.0, "interval_secs": 0.05}


@pytest.fixture
def pool(login: Login) -> Iterator[TemplateWarmPool]:
    """A pool of two, deleted after the test."""
    made = TemplateWarmPool.create("base", name="two", min_ready=2, max_ready=4, **login)
    made.wait_until_ready(**QUICK)
    yield made
    try:
        made.delete()
    except NotFoundError:
        pass
    made.close()


def _checkout(sandbox: Sandbox) -> WarmPoolCheckoutResult:
    found = sandbox.get_info().warm_pool_checkout
    assert found is not None
    return found


def test_a_life(login: Login) -> None:
    """Create with everything that can be said, find, update, switch, drain, delete."""
    said: dict[str, Any] = {
        "idle_timeout_seconds": 600,
        "stale_after_seconds": 900,
        "checkout_policy": WarmPoolCheckoutMode.REQUIRE,
        "version_policy": "track_tag",
        "track_tag": "stable",
        "labels": {"team": "a", "tier": "x"},
        "metadata": {"n": [1]},
    }
    resources = {"vcpus": 4, "memory_mb": 1024, "disk_mb": 2048}
    made = Template.create_warm_pool(
        "team/reviewer:stable", name="life", min_ready=1, max_ready=3, **resources, **said, **login
    )
    info = made.wait_until_ready(**QUICK)
    assert isinstance(info, TemplateWarmPoolInfo)
    for field, value in (said | resources).items():
        assert getattr(info, field) == value, field
    assert (info.template_ref, info.name, info.state) == (
        "team/reviewer:stable",
        "life",
        TemplateWarmPoolState.ENABLED,
    )
    assert (info.status.target, info.status.ready, info.degraded_reason) == (1, 1, None)
    assert info.created_at is not None and info.created_at == info.enabled_at
    assert info.disabled_at is None and info.deleted_at is None

    again = TemplateWarmPool.from_id(made.id, **login)
    assert again.get_info() == info
    updated = again.update(min_ready=2, vcpus=2, labels={"team": "b"})
    assert (updated.min_ready, updated.vcpus, updated.memory_mb, updated.disk_mb) == (
        *(2, 2, 1024, 2048),
    )
    assert (updated.labels, updated.rollout_generation) == ({"team": "b"}, 2)
    assert again.wait_until_ready(min_ready=2, **QUICK).status.ready == 2

    assert again.disable().state is TemplateWarmPoolState.DISABLED
    assert again.enable().state is TemplateWarmPoolState.ENABLED
    assert again.reconcile().last_reconciled_at is not None
    again.wait_until_ready(**QUICK)
    drained = again.drain()
    assert drained.state is TemplateWarmPoolState.DRAINING
    assert drained.degraded_reason is TemplateWarmPoolDegradedReason.DRAIN_ACTIVE
    with pytest.raises(NotInTime):
        again.wait_until_ready(timeout_secs=0.0, min_ready=1)
    again.delete()
    with pytest.raises(NotFoundError) as gone:
        made.get_info()
    assert gone.value.code == "warm_pool_not_found"
    again.close()
    made.close()


def test_lists(login: Login, pool: TemplateWarmPool) -> None:
    """By template, state, labels in all their spellings, status, and at most so many."""
    other = TemplateWarmPool.create(
        "listed", name="o", min_ready=0, max_ready=1, labels={"a": "1", "b": "2"}, **login
    )

    def found(**asked: Any) -> list[str]:
        return [info.id for info in TemplateWarmPool.list(**asked, **login)]

    try:
        assert {pool.id, other.id} <= set(found())
        assert found(template="listed") == [other.id]
        assert found(label="a=1") == found(label=["a=1", "b=2"]) == found(label=("b=2",))
        assert found(label="a=1") == [other.id] and found(label=["a=1", "b=1"]) == []
        assert pool.id in found(state=TemplateWarmPoolState.ENABLED, status="ready")
        assert found(state="disabled") == [] and len(found(limit=1)) == 1
        with pytest.raises(SandboxError) as refused:
            found(status="good")
        assert refused.value.code == "invalid_request"
    finally:
        other.delete()
        other.close()


def test_checkouts(login: Login, pool: TemplateWarmPool) -> None:
    """By id or by the pool itself, in every mode, with and without waiting; one sandbox each."""
    hits = [
        Sandbox.create(warm_pool=pool.id, warm_pool_mode="prefer", **login),
        Sandbox.create(warm_pool=pool, warm_pool_mode="require", warm_pool_wait_ms=60_000, **login),
        Sandbox.create(warm_pool=pool, warm_pool_wait_ms=60_000, metadata={"n": 1}, **login),
    ]
    assert len({hit.id for hit in hits}) == 3
    for hit, (mode, wait) in zip(
        hits, [("prefer", None), ("require", 60_000), ("prefer", 60_000)], strict=True
    ):
        seen = _checkout(hit)
        assert (seen.source, seen.hit) == (WarmPoolCheckoutSource.READY_INSTANCE, True)
        assert (seen.pool_id, seen.mode, seen.wait_ms) == (pool.id, mode, wait)
        assert hit.commands.run("pwd").exit_code == 0
    assert hits[2].get_info().metadata == {"n": 1}
    assert pool.get_info().status.claimed == 3
    colds = [
        (Sandbox.create(warm_pool=pool, envs={"A": "1"}, **login), "cold_create"),
        (Sandbox.create(warm_pool="twp_unknown", warm_pool_wait_ms=60_000, **login), "cold_create"),
        (Sandbox.create(warm_pool=pool, warm_pool_mode="bypass", **login), "bypassed"),
        (Sandbox.create(warm_pool_mode="bypass", **login), "bypassed"),
    ]
    for cold, source in colds:
        assert (_checkout(cold).source.value, _checkout(cold).hit) == (source, False)
    for sandbox in [*hits, *(cold for cold, _ in colds)]:
        sandbox.kill()


def test_refusals(login: Login, pool: TemplateWarmPool) -> None:
    """Of a required instance: the client raises at once, and does not try again by itself."""
    pool.drain()
    for asked in ({"warm_pool": pool}, {"warm_pool": "twp_unknown"}):
        with pytest.raises(SandboxError) as refused:
            Sandbox.create(warm_pool_mode="require", warm_pool_wait_ms=60_000, **asked, **login)
        assert refused.value.code == "warm_pool_unavailable"
        assert refused.value.details == {"reason": "no_ready_instance"}
    with pytest.raises(SandboxError) as refused:
        Sandbox.create(warm_pool=pool, warm_pool_mode="require", cwd="/workspace", **login)
    assert refused.value.details == {"reason": "not_poolable", "fields": ["cwd"]}
    with pytest.raises(SandboxError, match="max_ready") as refused:
        TemplateWarmPool.create("base", name="x", min_ready=2, max_ready=1, **login)
    assert refused.value.code == "invalid_request"
    with pytest.raises(QuotaExceededError):
        TemplateWarmPool.create("base", name="x", min_ready=0, max_ready=99, **login)


async def test_asynchronous(login: Login) -> None:
    """The same calls of the asynchronous client."""
    made = await AsyncTemplateWarmPool.create("base", name="a", min_ready=1, max_ready=2, **login)
    await made.wait_until_ready(**QUICK)
    again = await AsyncTemplateWarmPool.from_id(made.id, **login)
    listed = await AsyncTemplateWarmPool.list(template="base", limit=100, **login)
    assert made.id in [info.id for info in listed]
    sandbox = await AsyncSandbox.create(
        warm_pool=again, warm_pool_mode=WarmPoolCheckoutMode.REQUIRE, **login
    )
    checkout = (await sandbox.get_info()).warm_pool_checkout
    assert checkout is not None and checkout.hit and checkout.id == made.id
    assert (await again.update(max_ready=5)).max_ready == 5
    assert (await again.disable()).state is TemplateWarmPoolState.DISABLED
    assert (await again.enable()).state is TemplateWarmPoolState.ENABLED
    assert (await again.reconcile()).last_reconciled_at is not None
    await again.wait_until_ready(**QUICK)
    assert (await again.drain()).state is TemplateWarmPoolState.DRAINING
    await again.delete()
    with pytest.raises(NotFoundError):
        await made.get_info()
    await sandbox.kill()
    for handle in (made, again, sandbox):
        await handle.close()


def test_the_command_line(login: Login) -> None:
    """Every command about pools, and a create from one."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("NULLSPACE_")}
    env |= {"NULLSPACE_API_URL": login["base_url"], "NULLSPACE_API_KEY": login["api_key"]}
    program = Path(sys.executable).with_name("nullspace")

    def run(*arguments: str, status: int = 0) -> Any:
        ran = subprocess.run(
            [program, *arguments, "--json"], env=env, capture_output=True, text=True, check=False
        )
        assert ran.returncode == status, ran.stdout + ran.stderr
        return json.loads(ran.stdout)

    def of_pool(*arguments: str, status: int = 0) -> Any:
        return run("template", "warm-pool", *arguments, status=status)

    sizes = ("--min-ready", "1", "--max-ready", "2")
    more = ("--idle-timeout", "600", "--label", "via=cli", "--metadata", "k=v")
    made = of_pool("create", "base", "--name", "cli", *sizes, *more)
    pool = made["id"]
    assert (made["state"], made["labels"], made["metadata"]) == (
        *("enabled", {"via": "cli"}, {"k": "v"}),
    )
    assert of_pool("wait", pool, "--interval", "0.05")["status"]["ready"] == 1
    listed = of_pool("list", "--label", "via=cli", "--state", "enabled", "--limit", "5")["items"]
    assert [item["id"] for item in listed] == [pool]
    assert of_pool("get", pool)["name"] == "cli"
    assert of_pool("scale", pool, "--max-ready", "3")["max_ready"] == 3
    # This command answers JSON by itself.
    created = subprocess.run(
        [program, "sandbox", "create", "--warm-pool", pool, "--warm-pool-mode", "require"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(created.stdout)["warm_pool_checkout"]["source"] == "ready_instance"
    assert of_pool("disable", pool)["state"] == "disabled"
    assert of_pool("enable", pool)["state"] == "enabled"
    assert of_pool("reconcile", pool)["last_reconciled_at"] is not None
    assert of_pool("drain", pool)["state"] in ("draining", "disabled")
    assert of_pool("delete", pool)["deleted"] is True
    assert "warm_pool_not_found" in json.dumps(of_pool("get", pool, status=3))
