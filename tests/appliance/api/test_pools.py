"""Warm pools over HTTP, with real instances."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service import PAUSES, Service, until

PATH = "/v1/template-warm-pools"
POOL = {"template_ref": "base", "name": "n", "min_ready": 1, "max_ready": 3}


async def _call(service: Service, method: str, rest: str = "", body: Any = None) -> Any:
    status, answer = await service.api(method, f"{PATH}{rest}", body)
    assert status < 300, answer
    return answer


async def _pool(service: Service, **more: Any) -> str:
    """The id of a pool that is full."""
    pool = str((await _call(service, "POST", "", POOL | more))["id"])
    await _ready(service, pool)
    return pool


async def _ready(service: Service, pool: str) -> None:
    stock = service.plane.parts.pools.get(pool).stock
    wanted = service.plane.parts.pools.get(pool).target
    await until(lambda: stock.ready >= wanted and not stock.warming and not stock.ending, 30)


def _instances(service: Service, pool: str) -> set[str]:
    return set(service.plane.parts.pools.get(pool).stock._ready)


def _supervisors(service: Service) -> dict[str, int]:
    """The pid of each supervisor there is, by sandbox or instance."""
    places = service.plane._runtime._sandboxes.items()
    return {name: place._link.pid for name, place in places if place._link is not None}


def _gone(pids: set[int]) -> bool:
    """Whether none of these children of ours is left, not even to be reaped."""
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        return False
    return True


async def _create(service: Service, pool: str, mode: str = "require", **more: Any) -> Any:
    body = {"warm_pool": {"id": pool, "mode": mode}} | more
    status, made = await service.api("POST", "/v1/sandboxes", body)
    assert status == 201, made
    return made


async def test_a_life(service: Service) -> None:
    """Define, look, change, switch off and on, drain, delete; then it is unknown."""
    made = await _call(service, "POST", "", POOL | {"labels": {"a": "1"}, "metadata": {"b": [2]}})
    assert made["state"] == "enabled" and made["status"]["target"] == 1
    assert (made["labels"], made["metadata"]) == ({"a": "1"}, {"b": [2]})
    assert made["created_at"] == made["updated_at"] == made["enabled_at"]
    pool = made["id"]
    assert pool.startswith("twp_")
    await _ready(service, pool)
    for rest in (f"/{pool}", f"/{pool}/status"):
        assert (await _call(service, "GET", rest))["status"]["ready"] == 1
    changed = await _call(service, "PATCH", f"/{pool}", {"min_ready": 2, "name": "m"})
    assert (changed["min_ready"], changed["name"], changed["rollout_generation"]) == (2, "m", 1)
    await _ready(service, pool)
    off = await _call(service, "POST", f"/{pool}/disable")
    assert (off["state"], off["status"]["ready"], off["status"]["target"]) == ("disabled", 0, 0)
    assert off["disabled_at"] is not None
    assert (await _call(service, "POST", f"/{pool}/enable"))["state"] == "enabled"
    assert (await _call(service, "POST", f"/{pool}/reconcile"))["last_reconciled_at"] is not None
    await _ready(service, pool)
    drained = await _call(service, "POST", f"/{pool}/drain")
    assert (drained["state"], drained["degraded_reason"]) == ("draining", "drain_active")
    await until(lambda: not _supervisors(service), 30)
    await until(lambda: not service.plane.parts.pools.get(pool).stock.ending, 30)
    seen = await _call(service, "GET", f"/{pool}")
    assert seen["state"] == "disabled" and seen["status"]["draining"] == 0
    gone = await _call(service, "DELETE", f"/{pool}")
    assert gone["state"] == "deleted" and gone["deleted_at"] is not None
    for method, rest in [
        *(("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/status")),
        *(("POST", f"/{switch}") for switch in ("enable", "disable", "drain", "reconcile")),
    ]:
        status, error = await service.api(method, f"{PATH}/{pool}{rest}")
        assert (status, error["code"]) == (404, "warm_pool_not_found")


async def test_lists(service: Service) -> None:
    """Filtered by template, state, status and labels, oldest first, as many as wanted."""
    names = {}
    for name, more in {
        "a": {"labels": {"x": "1", "y": "2"}},
        "b": {"template_ref": "other", "labels": {"x": "1"}},
        "c": {"min_ready": 0},
    }.items():
        names[await _pool(service, name=name, **more)] = name
    off = next(pool for pool, name in names.items() if name == "b")
    await _call(service, "POST", f"/{off}/disable")

    async def found(query: str) -> str:
        items = (await _call(service, "GET", query))["items"]
        return "".join(names[item["id"]] for item in items)

    for query, wanted in {
        "": "abc",
        "?template=base": "ac",
        "?state=enabled": "ac",
        "?state=disabled": "b",
        "?state=deleted": "",
        "?status=ready": "ac",
        "?status=disabled": "b",
        "?label=x=1": "ab",
        "?label=x=1&label=y=2": "a",
        "?label=x=1&label=x=2": "",
        "?limit=2": "ab",
        "?template=base&limit=1": "a",
    }.items():
        assert await found(query) == wanted, query
    for query in ("?state=on", "?status=good", "?label=x", "?limit=0", "?limit=x", "?what=1"):
        status, error = await service.api("GET", PATH + query)
        assert (status, error["code"]) == (400, "invalid_request"), query


@pytest.mark.parametrize(
    ("body", "status", "code", "named"),
    [
        ({"max_ready": 0}, 400, "invalid_request", "max_ready"),
        ({"resources": {"vcpus": "2"}}, 400, "invalid_request", "resources.vcpus"),
        ({"max_ready": 10_000}, 400, "invalid_request", "max_ready"),
        (b"[]", 400, "invalid_request", "object"),
        (b"{", 400, "invalid_request", "JSON"),
    ],
)
async def test_what_cannot_be_defined(
    service: Service, body: Any, status: int, code: str, named: str
) -> None:
    """Neither at create nor by an update; the message names the field, and nothing has changed."""
    pool = await _pool(service, min_ready=1)
    before = await _call(service, "GET", f"/{pool}")
    whole = body if isinstance(body, bytes) else POOL | body
    for method, rest, said in (("POST", "", whole), ("PATCH", f"/{pool}", body)):
        answered, error = await service.api(method, PATH + rest, said)
        assert (answered, error["code"]) == (status, code) and named in error["error"]
    assert await _call(service, "GET", f"/{pool}") == before
    assert len((await _call(service, "GET"))["items"]) == 1


async def test_too_many(service: Service) -> None:
    """A clear refusal that no client retries by itself, with what is left."""
    await _call(service, "POST", "", POOL | {"min_ready": 0, "max_ready": 98})
    status, error = await service.api("POST", PATH, POOL)
    assert (status, error["code"], error["retryable"]) == (409, "quota_exceeded", False)
    assert error["details"] == {"field": "max_ready", "limit": 100, "left": 2}


async def test_an_instance_is_hidden_until_it_is_claimed(service: Service) -> None:
    """From lists, by id, from edges, events and the change log; then it is a sandbox as any other."""
    parts = service.plane.parts
    pool = await _pool(service)
    (instance,) = _instances(service, pool)
    for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/exec")):
        body = {"command": "true"} if rest else None
        status, _ = await service.api(method, f"/v1/sandboxes/{instance}{rest}", body)
        assert status == 404
    assert await service.api("GET", "/v1/sandboxes") == (200, [])
    assert (await service.edge("GET", f"sandboxes/{instance}"))[0] == 404
    assert (await service.api("GET", "/v1/lifecycle/events"))[1]["events"] == []
    cursor, before = parts.feed.cursor, parts.wall()
    assert parts.feed.since(cursor) == []

    made = await _create(service, pool, metadata={"a": 1}, timeout_ms=60_000)
    assert made["id"] == instance and made["status"] == "running"
    assert made["warm_pool_checkout"] == {
        "source": "ready_instance",
        "hit": True,
        "id": pool,
        "mode": "require",
    }
    assert (made["metadata"], made["timeout_ms"]) == ({"a": 1}, 60_000)
    sandbox = parts.sandboxes.get(instance)
    assert before <= sandbox.created_at <= (sandbox.started_at or 0) <= parts.wall()
    assert sandbox.timeout_at is not None and sandbox.timeout_at - before >= 60
    changes = parts.feed.since(cursor) or []
    assert [change.record.state.value for change in changes] == ["creating", "running"]  # type: ignore[union-attr]
    events = (await service.api("GET", f"/v1/sandboxes/{instance}/lifecycle"))[1]["events"]
    assert [(e["operation"], e["status"], e["reason"]) for e in events] == [
        ("create", "succeeded", "api")
    ]
    assert [one["id"] for one in (await service.api("GET", "/v1/sandboxes"))[1]] == [instance]


async def test_a_claimed_one_works_on(service: Service) -> None:
    """Its first command finds its supervisor there; it pauses, resumes and ends like any other."""
    pool = await _pool(service)
    (instance,) = _instances(service, pool)
    supervisor = _supervisors(service)[instance]
    path = f"/v1/sandboxes/{(await _create(service, pool))['id']}"
    call = {"command": "echo $PREVIEW_SANDBOX_ID $PPID; pwd", "shell": True}
    ran = (await service.api("POST", f"{path}/exec", call))[1]
    assert ran["stdout"].split()[:2] == [instance, str(supervisor)]
    status, snapshot = await service.api("POST", f"{path}/hibernate")
    assert status == 200
    status, resumed = await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    assert (status, resumed["id"], resumed["warm_pool_checkout"]["hit"]) == (200, instance, True)
    again = (await service.api("POST", f"{path}/exec", call))[1]
    assert again["stdout"] == ran["stdout"]
    assert (await service.api("DELETE", path))[0] == 204
    await until(lambda: _gone({supervisor}), 30)


async def test_one_that_was_never_used_can_pause(service: Service) -> None:
    """There is a supervisor, but nothing to freeze."""
    pool = await _pool(service)
    path = f"/v1/sandboxes/{(await _create(service, pool))['id']}"
    status, snapshot = await service.api("POST", f"{path}/hibernate")
    assert status == 200
    assert (await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume"))[0] == 200
    status, ran = await service.api("POST", f"{path}/exec", {"command": "true"})
    assert (status, ran["exit_code"]) == (200, 0)


async def test_only_creates_use_a_pool(service: Service) -> None:
    """Pause, resume, wake, fork, restore and a create without its id leave it as it is."""
    pool = await _pool(service)
    instances = _instances(service, pool)
    _, cold = await service.api("POST", "/v1/sandboxes", PAUSES)
    assert cold["warm_pool_checkout"] == {"source": "cold_create", "hit": False}
    path = f"/v1/sandboxes/{cold['id']}"
    _, snapshot = await service.api("POST", f"{path}/hibernate")
    await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    await service.api("POST", f"{path}/hibernate")
    record = (await service.edge("GET", f"sandboxes/{cold['id']}"))[1]
    wake = {"paused_incarnation": record["incarnation"], "reason": "request", "deadline_ms": 5000}
    status, _ = await service.edge("POST", f"sandboxes/{cold['id']}/resume", wake)
    assert status == 200
    await service.api("POST", f"{path}/exec", {"command": "true"})
    status, fork = await service.api("POST", f"{path}/fork")
    assert (status, fork["warm_pool_checkout"]["hit"]) == (201, False)
    _, copy = await service.api("POST", f"{path}/snapshots")
    restore = {"snapshot_id": copy["id"], "warm_pool": {"id": pool, "mode": "prefer"}}
    status, restored = await service.api("POST", "/v1/sandboxes", restore)
    assert (status, restored["warm_pool_checkout"]["source"]) == (201, "cold_create")
    assert _instances(service, pool) == instances
    assert (await _call(service, "GET", f"/{pool}"))["status"]["claimed"] == 0


@pytest.mark.parametrize(
    "more",
    [
        {"envs": {"A": "1"}},
        {"cwd": "/workspace"},
        {"volumes": [{"ref": "x", "mount_path": "/workspace/x"}]},
        {"desktop": {"dpi": 96}},
        {"network": {"allow_public_traffic": False}},
        {"internet_access": False},
        {"snapshot_id": "snap_1"},
        PAUSES,
        {"template": "other"},
        {"vcpus": 1},
    ],
)
async def test_require_refuses_what_no_instance_can_be(
    service: Service, more: dict[str, Any]
) -> None:
    """409, never 429, with the reason; no sandbox, and the instance stays."""
    pool = await _pool(service)
    body = {"warm_pool": {"id": pool, "mode": "require", "wait_ms": 60_000}} | more
    status, error = await service.api("POST", "/v1/sandboxes", body)
    assert (status, error["code"], error["retryable"]) == (409, "warm_pool_unavailable", False)
    assert error["details"]["reason"] in ("not_poolable", "mismatch")
    assert set(more) & {*error["details"]["fields"]}
    assert set(more) & {*error["error"].rstrip(".").replace(",", "").split()}
    assert len(_instances(service, pool)) == 1


@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_fifty_at_once(service: Service, mode: str) -> None:
    """Each instance goes to one create; who gets none is cold, or refused; nobody shares."""
    pool = await _pool(service, min_ready=3)
    instances = _instances(service, pool)
    body = {"warm_pool": {"id": pool, "mode": mode}}
    answers = await asyncio.gather(*(service.api("POST", "/v1/sandboxes", body) for _ in range(50)))
    made = [answer for status, answer in answers if status == 201]
    refused = [answer["code"] for status, answer in answers if status == 409]
    assert len(made) + len(refused) == 50 and set(refused) <= {"warm_pool_unavailable"}
    assert bool(refused) is (mode == "require")
    assert set(Counter(one["id"] for one in made).values()) == {1}
    hits = {one["id"] for one in made if one["warm_pool_checkout"]["hit"]}
    # There may be more hits than three: a refill can be quicker than the last create.
    assert instances <= hits
    assert (await _call(service, "GET", f"/{pool}"))["status"]["claimed"] == len(hits)
    listed = (await service.api("GET", "/v1/sandboxes"))[1]
    assert sorted(one["id"] for one in listed) == sorted(one["id"] for one in made)


async def test_a_repeated_create_claims_once(service: Service) -> None:
    """Ten times with one key, at once and later: one claim, one answer."""
    pool = await _pool(service, min_ready=2)
    body = {"warm_pool": {"id": pool, "mode": "require"}}

    async def once() -> Any:
        return await service.api("POST", "/v1/sandboxes", body, **{"Idempotency-Key": "k"})

    answers = await asyncio.gather(*(once() for _ in range(10)))
    assert all(answer == answers[0] for answer in answers) and answers[0][0] == 201
    assert await once() == answers[0]
    assert (await _call(service, "GET", f"/{pool}"))["status"]["claimed"] == 1


class _Gate:
    """Holds up the making of instances until it is opened."""

    def __init__(self, service: Service) -> None:
        self.open = asyncio.Event()
        self._warm = service.plane._runtime.warm
        service.plane._runtime.warm = self.warm  # type: ignore[method-assign]

    async def warm(self, sandbox_id: str, cooled: Callable[[], None]) -> None:
        await self.open.wait()
        await self._warm(sandbox_id, cooled)


async def test_waiting_in_order(service: Service) -> None:
    """Creates that may wait get what is made meanwhile, the first one first; who may not is cold."""
    gate = _Gate(service)
    pool = str((await _call(service, "POST", "", POOL | {"min_ready": 0, "max_ready": 1}))["id"])
    stock = service.plane.parts.pools.get(pool).stock
    waits = []
    for number in range(3):
        body = {"warm_pool": {"id": pool, "mode": "require", "wait_ms": 60_000}}
        key = {"Idempotency-Key": str(number)}
        waits.append(asyncio.ensure_future(service.api("POST", "/v1/sandboxes", body, **key)))
        await until(lambda number=number: len(stock._line) == number + 1, 30)  # type: ignore[misc]
    cold = await _create(service, pool, "prefer")
    assert cold["warm_pool_checkout"]["source"] == "cold_create"
    gate.open.set()
    answers = await asyncio.gather(*waits)
    assert [status for status, _ in answers] == [201] * 3
    made = [answer["id"] for _, answer in answers]
    listed = [one["id"] for one in (await service.api("GET", "/v1/sandboxes"))[1]]
    assert listed == [cold["id"], *made]


async def test_a_client_that_leaves_while_it_waits(service: Service) -> None:
    """No sandbox is made for it, and the instance is there for the next one."""
    gate = _Gate(service)
    pool = str((await _call(service, "POST", "", POOL | {"min_ready": 0, "max_ready": 1}))["id"])
    stock = service.plane.parts.pools.get(pool).stock
    body = {"warm_pool": {"id": pool, "mode": "prefer", "wait_ms": 60_000}}
    leaver = asyncio.ensure_future(service.api("POST", "/v1/sandboxes", body))
    await until(lambda: len(stock._line) == 1, 30)
    (waiter,) = stock._line._waiters
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    await until(waiter.gone, 30)
    gate.open.set()
    await until(lambda: stock.ready == 1, 30)
    assert await service.api("GET", "/v1/sandboxes") == (200, [])
    (instance,) = _instances(service, pool)
    assert (await _create(service, pool))["id"] == instance


async def test_an_instance_that_dies_is_replaced(service: Service) -> None:
    """Its supervisor is killed: it is not handed out, and another one is made."""
    pool = await _pool(service)
    (victim,) = _instances(service, pool)
    os.kill(_supervisors(service)[victim], 9)
    stock = service.plane.parts.pools.get(pool).stock
    await until(lambda: stock.counts.lost == 1, 30)
    await _ready(service, pool)
    made = await _create(service, pool)
    assert made["id"] != victim
    assert not (service.plane.config.data_dir / "sandboxes" / victim).exists()


async def test_the_end_of_the_control_plane_is_theirs(tmp_path: Path) -> None:
    """No process and no directory of an instance is left, whether ready, under way or being ended."""
    async with Service(tmp_path) as service:
        await _pool(service, min_ready=3)
        ending = await _pool(service, min_ready=2)
        await _call(service, "POST", "", POOL | {"min_ready": 3})
        await _call(service, "DELETE", f"/{ending}")
        pids = set(_supervisors(service).values())
        assert len(pids) >= 3
    await until(lambda: _gone(pids), 30)
    assert list((tmp_path / "sandboxes").iterdir()) == []


async def test_pools_are_there_again_after_a_restart(tmp_path: Path) -> None:
    """As they were, and full again, with instances of their own."""
    async with Service(tmp_path) as service:
        on, off = await _pool(service, labels={"a": "b"}), await _pool(service)
        await _call(service, "POST", f"/{off}/disable")
        before = (await _call(service, "GET"))["items"]
        old = _instances(service, on)
    async with Service(tmp_path) as service:
        await _ready(service, on)
        after = (await _call(service, "GET"))["items"]
        assert [{**pool, "status": None} for pool in after] == [
            {**pool, "status": None} for pool in before
        ]
        assert [pool["status"]["ready"] for pool in after] == [1, 0]
        assert not _instances(service, on) & old
        assert (await _create(service, on))["warm_pool_checkout"]["hit"]
