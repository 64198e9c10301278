"""Works beside a block: they run, end with it, and its exceptions stay its own."""

from __future__ import annotations

import asyncio

import pytest

from edge.state.redis.beside import beside


async def test_works_end_with_the_block() -> None:
    """They run while the block does; when it ends they are cancelled, and waited for."""
    begun, ended = asyncio.Event(), []

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    async with beside(work(), work()):
        await begun.wait()
    assert ended == [1, 1]
    async with beside():
        pass


async def test_the_blocks_exception_is_not_wrapped() -> None:
    """It arrives as itself; out of a task group it would come in an exception group."""
    with pytest.raises(KeyError):
        async with beside(asyncio.sleep(60)):
            raise KeyError
