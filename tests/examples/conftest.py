"""One ``preview-edge dev``, one sandbox, and each of the examples in front of it, for all tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.examples import world as worlds
from tests.examples.proxies import STARTERS, Proxy, caddy_binary
from tests.examples.world import Sandbox, World

Start = Callable[[dict[str, str]], AbstractContextManager[Proxy]]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Edge and control plane."""
    with worlds.world(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="session")
def sandbox(world: World) -> Iterator[Sandbox]:
    """With the scripted app; it pauses when told, and wakes by itself."""
    with world.sandbox() as made:
        yield made


@pytest.fixture(scope="session", params=sorted(STARTERS))
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the examples."""
    kind = str(request.param)
    missing = {
        "nginx": not (shutil.which("nginx") and shutil.which("envsubst")),
        "caddy": caddy_binary() is None,
    }
    if missing.get(kind):
        reason = (
            f"{kind} needs a program that is not installed on this machine (`make peers` has Caddy)"
        )
        if os.environ.get("CI_REQUIRE_ALL") == "1":
            pytest.fail(f"{reason}, and CI_REQUIRE_ALL=1 forbids to skip", pytrace=False)
        pytest.skip(reason)
    return kind


@pytest.fixture
def start(kind: str, tmp_path: Path) -> Start:
    """Starts the example with an environment."""
    return partial(STARTERS[kind], tmp_path / "proxy")


@pytest.fixture(scope="session")
def proxy(kind: str, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The example with what it needs for the sandbox."""
    folder = tmp_path_factory.mktemp(kind) / "proxy"
    environ = sandbox.by_sdk() if kind == "fastapi" else sandbox.environ()
    with ExitStack() as stack:
        proxy = stack.enter_context(STARTERS[kind](folder, environ))
        yield proxy
        assert "Traceback" not in proxy.log.read_text()
