"""What every test is held to: no loose task, no blocked loop, no silent skip where all tools must be there."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import uvloop

from edge.appliance.runtime.namespace import why_not

BUSY = 2.0
"""Seconds of processor time a loop may spend on one thing before the test fails."""
BLOCKED = 20.0
"""The same by the clock on the wall; lots, because CI machines are shared."""

_HEARTBEAT = 0.1
_ON_UVLOOP = frozenset({"traffic", "flows", "fleet", "sdk", "conformance", "peers", "properties"})


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The production loop where bytes move, plain asyncio elsewhere; EDGE_TEST_LOOP forces one."""
    loops = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
    room = Path(item.path).relative_to(config.rootpath / "tests").parts[0]
    name = os.environ.get("EDGE_TEST_LOOP") or ("uvloop" if room in _ON_UVLOOP else "asyncio")
    return {name: loops[name]}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are cores: most tests wait for others' processes most of the time."""
    return (os.cpu_count() or 1) + 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what lacks its tools; fail instead where CI promises that all of them are there."""
    for marker in item.iter_markers("needs_tool"):
        if "netns" in marker.args and (trouble := _no_namespaces()) is not None:
            # The machine forbids it, which nothing that could be installed would change.
            pytest.skip(f"needs network namespaces: {trouble}")
        missing = [n for n in marker.args if n != "netns" and shutil.which(n) is None]
        if not missing:
            continue
        reason = f"needs {' and '.join(missing)}, which is not installed on this machine"
        if os.environ.get("CI_REQUIRE_ALL") == "1":
            pytest.fail(f"{reason}, and CI_REQUIRE_ALL=1 forbids to skip", pytrace=False)
        pytest.skip(reason)


@cache
def _no_namespaces() -> str | None:
    """Why there are none here; asked once."""
    return why_not()


@pytest.fixture(autouse=True)
def _guarded(request: pytest.FixtureRequest) -> None:
    # A sync test has no loop to watch, and asking for the async fixture would make it one.
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_watched_loop")


@pytest.fixture
async def _watched_loop(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Set up first and torn down last, so that the test's other fixtures are judged too."""
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    crashes: list[str] = []
    loop.set_exception_handler(
        lambda _, context: crashes.append(f"{context['message']}: {context.get('exception')!r}")
    )
    late = busy = 0.0
    last, used = time.monotonic(), time.thread_time()

    def beat() -> None:
        nonlocal late, busy, last, used, timer
        now, spent = time.monotonic(), time.thread_time()
        late, last = max(late, now - last - _HEARTBEAT), now
        busy, used = max(busy, spent - used - _HEARTBEAT), spent
        timer = loop.call_later(_HEARTBEAT, beat)

    timer = loop.call_later(_HEARTBEAT, beat)
    yield
    timer.cancel()
    late = max(late, time.monotonic() - last - _HEARTBEAT)
    busy = max(busy, time.thread_time() - used - _HEARTBEAT)
    # A task that was told to end needs one more turn of the loop to do so; one that does not end is a leak.
    for _ in range(3):
        await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    names = sorted(f"{task.get_name()} ({task.get_coro()!r})" for task in left)
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1)
    assert not names, f"the test left tasks behind: {'; '.join(names)}"
    assert not crashes, f"the loop caught what nobody handled: {'; '.join(crashes)}"
    if request.node.get_closest_marker("may_block") is None:
        assert late < BLOCKED, f"the loop was blocked for {late:.2f} s"
        assert busy < BUSY, f"the loop was busy with one thing for {busy:.2f} s"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the developer's shell exports must not decide what a test sees.
    for name in list(os.environ):
        if name.startswith(("PREVIEW_EDGE_", "NULLSPACE_")):
            monkeypatch.delenv(name)
