"""The asynchronous client asks what the synchronous one asks, method by method: what is shown of one is shown of both."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nullspace import (
    AsyncLifecycle,
    AsyncSandbox,
    AsyncTemplateWarmPool,
    Lifecycle,
    Sandbox,
    TemplateWarmPool,
)
from nullspace.client import AsyncNullspaceClient, NullspaceClient

from edge.appliance.description.calls import CALLS
from tests.sdk import clientwalk as walk
from tests.sdk.agreeing import Agreeing, agreeing
from tests.sdk.test_client import EVERYTHING, METHODS

# What the client does with its WebSocket library is deprecated there.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
)

WORKS = [
    name
    for name, (here, _) in METHODS.items()
    if here == "works"
    # A subscription is stopped, not asked; its own test has both.
    and len(EVERYTHING[name]) == 2
    and name != "LifecycleSubscription.stop"
]


GIVEN: dict[str, Any] = {
    "args": ["a"], "archive": False, "author_email": "a@b.test", "author_name": "a", "auth": None, "auto_resume": True,
    "background": True, "branch": "b", "checkout_policy": "prefer", "conflict": "merge",
    "cwd": "c", "depth": 2, "disk_mb": 1, "display": ":1", "dpi": 96, "dry_run": True, "envs": {"A": "1"},
    "expires_in_seconds": 60, "fetch": True, "fields": ["id"], "force": True, "idempotency_key": "k",
    "ignore_patterns": ["x"], "include_traffic_token_hint": False, "internet_access": False, "interval_ms": 100,
    "interval_secs": 0.01, "kind": "http", "labels": {"a": "b"}, "limit": 2, "live_only": True, "max_concurrency": 1,
    "metadata": {"a": 1}, "network": {"allow_out": ["a"]}, "offset": 1, "on_timeout": "pause", "operation": "fork",
    "order_asc": True, "overwrite": True, "path": "c", "port": 8080, "read_only": True, "recursive": True, "resolution": (9, 9),
    "format": "bytes", "request_timeout": 30, "resumable": False, "set_upstream": True, "shell": True, "spool_to_disk": True, "state": "running",
    "status": "succeeded", "timeout": 1, "timeout_action": "hibernate", "timeout_secs": 1, "transports": ["http"],
    "version_policy": "track_tag", "volumes": [{"ref": "v", "mount_path": "/v"}], "warm_pool": "w",
    "warm_pool_mode": "prefer", "warm_pool_wait_ms": 1, "audience": "customer", "template": "desktop",
}  # fmt: skip
"""A value for each option whose name alone does not say what it may be."""

NOT_TOGETHER = {"encoding", "query", "snapshot_id", "files"}
"""Options that leave no room for others."""


def _arguments(
    call: Callable[..., Any], login: dict[str, Any], folder: Path, *, options: bool
) -> dict[str, Any]:
    file = folder / "file"
    file.write_text("x")
    known = login | {"local_path": str(file), "source": str(file), "files": [("a", "b")]}
    if call.__name__ == "upload_dir":
        known |= {"local_path": str(folder), "source": str(folder)}
    if call.__name__ in ("replace_in_files", "add"):
        known |= {"files": ["a"]}
    made = walk.arguments(call, known)
    if call.__name__ == "attach_volume":
        made |= {"mount_path": "/v"}
    return made | _options(call, folder, made) if options else made


def _options(call: Callable[..., Any], folder: Path, made: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, one in inspect.signature(call).parameters.items():
        if one.default is one.empty or name in made or name in NOT_TOGETHER:
            continue
        if name.startswith("on_") or name == "progress":
            found[name] = GIVEN.get(name, lambda *_: None)
        elif name == "destination":
            found[name] = str(folder / "got") if "download" in call.__name__ else "/to"
        else:
            found[name] = GIVEN.get(name, one.default if one.default not in (None, "") else "x")
    return found


async def _all_of(value: Any) -> None:
    if inspect.isawaitable(value):
        value = await value
    if hasattr(value, "__anext__"):
        await anext(value)
    elif hasattr(value, "__next__"):
        await asyncio.to_thread(next, value)


async def _objects(plane: Agreeing, sync: Any, twin: Any) -> dict[str, Any]:
    """What methods are called on."""
    login = plane.login
    return {
        **walk.instances(Sandbox.create(**login), sync),
        **walk.instances(await AsyncSandbox.create(**login), twin),
        "Lifecycle": Lifecycle(**login),
        "AsyncLifecycle": AsyncLifecycle(**login),
        "SandboxPaginator": Sandbox.list(limit=1, **login),
        "AsyncSandboxPaginator": await AsyncSandbox.list(limit=1, **login),
        "TemplateWarmPool": TemplateWarmPool.from_id("x", **login),
        "AsyncTemplateWarmPool": await AsyncTemplateWarmPool.from_id("x", **login),
    }


@dataclass(frozen=True)
class Asked:
    """What was asked for a call, and how that ended."""

    calls: frozenset[str]
    said: list[str]
    end: str


async def _asked(
    name: str,
    owner: str,
    objects: dict[str, Any],
    plane: Agreeing,
    folder: Path,
    *,
    options: bool,
) -> Asked:
    of, method = walk.classes()[owner], name.partition(".")[2]
    kind = inspect.getattr_static(of, method)
    on = of if isinstance(kind, classmethod | staticmethod) else objects[owner]
    call = getattr(on, method)
    given = _arguments(call, plane.login, folder, options=options)
    plane.asked.clear()
    try:
        async with asyncio.timeout(20):
            if owner.startswith("Async"):
                await _all_of(call(**given))
            else:
                await _all_of(await asyncio.to_thread(lambda: call(**given)))
        end = "well"
    except Exception as e:  # noqa: BLE001 - compared with the twin's
        end = type(e).__name__.removeprefix("Async")
    # Names of temporary files are made by chance.
    said = [re.sub(r"[0-9a-f]{12}", "*", repr(one)) for one in plane.asked]
    return Asked(frozenset(plane.calls), said, end)


@pytest.mark.parametrize("options", [False, True], ids=["needed", "options"])
async def test_twins_ask_the_same(
    options: bool, tmp_path: Path, async_connections_closed: None
) -> None:
    """Each method that works, with arguments made up, in both clients: calls of the description, and the same ones.

    Once with what is needed, once with every option beside it.
    """
    wrong = []
    with agreeing() as plane:
        sync, twin = NullspaceClient(**plane.login), AsyncNullspaceClient(**plane.login)
        objects = await _objects(plane, sync, twin)
        for name in WORKS:
            first, second = sorted(EVERYTHING[name], key=len)
            one = await _asked(name, first, objects, plane, tmp_path, options=options)
            two = await _asked(name, second, objects, plane, tmp_path, options=options)
            if one != two:
                wrong.append(f"{name}: {one} is not {two}")
            elif not one.calls or not one.calls <= set(CALLS):
                wrong.append(f"{name}: {one}")
            if name.endswith(".kill"):  # Which also closes its connections.
                objects = await _objects(plane, sync, twin)
    assert len(WORKS) > 120 and not wrong, "\n".join(wrong)
