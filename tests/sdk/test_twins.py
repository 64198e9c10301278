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


def _arguments(call: Callable[..., Any], login: dict[str, Any], folder: Path) -> dict[str, Any]:
    file = folder / "file"
    file.write_text("x")
    known = login | {"local_path": str(file), "source": str(file), "files": [("a", "b")]}
    if call.__name__ == "upload_dir":
        known |= {"local_path": str(folder), "source": str(folder)}
    if call.__name__ in ("replace_in_files", "add"):
        known |= {"files": ["a"]}
    made = walk.arguments(call, known)
    return made | {"mount_path": "/v"} if call.__name__ == "attach_volume" else made


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
    name: str, owner: str, objects: dict[str, Any], plane: Agreeing, folder: Path
) -> Asked:
    of, method = walk.classes()[owner], name.partition(".")[2]
    kind = inspect.getattr_static(of, method)
    on = of if isinstance(kind, classmethod | staticmethod) else objects[owner]
    call = getattr(on, method)
    given = _arguments(call, plane.login, folder)
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


async def test_twins_ask_the_same(tmp_path: Path, async_connections_closed: None) -> None:
    """Each method that works, with arguments made up, in both clients: calls of the description, and the same ones."""
    wrong = []
    with agreeing() as plane:
        sync, twin = NullspaceClient(**plane.login), AsyncNullspaceClient(**plane.login)
        objects = await _objects(plane, sync, twin)
        for name in WORKS:
            first, second = sorted(EVERYTHING[name], key=len)
            one = await _asked(name, first, objects, plane, tmp_path)
            two = await _asked(name, second, objects, plane, tmp_path)
            if one != two:
                wrong.append(f"{name}: {one} is not {two}")
            elif not one.calls or not one.calls <= set(CALLS):
                wrong.append(f"{name}: {one}")
            if name.endswith(".kill"):  # Which also closes its connections.
                objects = await _objects(plane, sync, twin)
    assert len(WORKS) > 120 and not wrong, "\n".join(wrong)
