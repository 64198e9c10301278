"""Where files are: in a sandbox, or in a volume. The calls for them are the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from aiohttp import web

from edge.appliance.api.faults import told
from edge.appliance.api.http import parts, sandbox_id
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.paths import WORKSPACE

T = TypeVar("T")

FOR_SANDBOXES = "/v1/sandboxes/{sandbox}/"
FOR_VOLUMES = "/v1/volumes/{volume}/"


class Place(Protocol):
    """One of both, while it is used."""

    async def __call__(self, call: Callable[[WorkTree], T]) -> T:
        """Run the call in a thread. Raises what it raises."""


@asynccontextmanager
async def used(request: web.Request, *, reading: bool = False) -> AsyncIterator[Place]:
    """What the path names, kept as it is while in here: a sandbox running, a volume there.

    ``reading``: see `Sandboxes.use`. Raises `ApiError`.
    """
    the_parts = parts(request)
    volume = volume_id(request)
    if volume is None:
        async with the_parts.sandboxes.use(sandbox_id(request), reading=reading) as sandbox:

            async def in_sandbox(call: Callable[[WorkTree], T]) -> T:
                return await the_parts.runtime.files(sandbox.id, call)

            yield in_sandbox
        return
    with the_parts.volumes.used(volume) as tree:

        async def in_volume(call: Callable[[WorkTree], T]) -> T:
            return await asyncio.to_thread(call, tree)

        yield in_volume


async def files(request: web.Request, call: Callable[[WorkTree], T], *, reading: bool = False) -> T:
    """What ``call`` does with the files of what the path names. Raises `ApiError`."""
    async with used(request, reading=reading) as place:
        with told():
            return await place(call)


async def search(
    request: web.Request, call: Callable[[WorkTree], T], *, reading: bool = False
) -> T:
    """The same for calls that may take long."""
    the_parts = parts(request)
    async with used(request, reading=reading) as place:
        with told():
            if volume_id(request) is None:
                return await the_parts.runtime.search(sandbox_id(request), call)
            async with the_parts.volumes.searches:
                return await place(call)


def place_id(request: web.Request) -> str:
    """The sandbox, or volume, that there is. Raises `ApiError` (sandbox_not_found, not_found)."""
    volume = volume_id(request)
    if volume is None:
        return parts(request).sandboxes.get(sandbox_id(request)).id
    return parts(request).volumes.get(volume).id


def volume_id(request: web.Request) -> str | None:
    """The volume the path names, if it names one."""
    return request.match_info.get("volume")


def shown_root(request: web.Request, path: str) -> str:
    """Of a sandbox's root, the client's default, there is nothing to show but the work tree."""
    return WORKSPACE if path == "/" and volume_id(request) is None else path
