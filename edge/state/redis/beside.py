"""Tasks that run beside a block of code and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run each of them while in here.

    Unlike a task group it leaves the block's own exceptions as they are. The works tell of their failures
    themselves; one that ends early ends alone.
    """
    tasks = [asyncio.create_task(work) for work in works]  # noqa: TID251 - ended right below
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
