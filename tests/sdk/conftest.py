"""The control plane as a process of its own, for the published client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
KEY = "nsk_sdk_test"


@pytest.fixture(scope="module")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Where the control plane of this module's tests listens, and its process."""
    said = {
        "port": 0,
        "api_key": KEY,
        "service_token": "service-token-of-at-least-32-characters",
        "public_hostname": "edge.test",
        "public_port": 3001,
        "data_dir": str(tmp_path_factory.mktemp("data")),
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "edge.appliance", "--config", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("NULLSPACE_")},
    )
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(json.dumps(said).encode() + b"\n")
    child.stdin.flush()
    listening = json.loads(child.stdout.readline())
    yield f"http://127.0.0.1:{listening['port']}", child.pid
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    child.stdin.close()
    child.stdout.close()


@pytest.fixture(scope="module")
def base_url(_started: tuple[str, int]) -> str:
    """Where the control plane listens."""
    return _started[0]


@pytest.fixture(scope="module")
def control_plane(_started: tuple[str, int]) -> int:
    """The pid of the control plane."""
    return _started[1]


@pytest.fixture(autouse=True)
def _connections_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client forgets its connections when a create fails, which Python warns of; we close them."""
    opened: list[httpx.Client] = []
    make = httpx.Client.__init__

    def remember(self: httpx.Client, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        opened.append(self)

    monkeypatch.setattr(httpx.Client, "__init__", remember)
    yield
    for client in opened:
        client.close()


@pytest.fixture
async def async_connections_closed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The same for the asynchronous client, while its loop still runs."""
    opened: list[httpx.AsyncClient] = []
    make = httpx.AsyncClient.__init__

    def remember(self: httpx.AsyncClient, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        opened.append(self)

    monkeypatch.setattr(httpx.AsyncClient, "__init__", remember)
    yield
    for client in opened:
        await client.aclose()


@pytest.fixture
def login(base_url: str) -> dict[str, Any]:
    """What every call of the client needs to know."""
    return {"base_url": base_url, "api_key": KEY}


@pytest.fixture
def app_command() -> Callable[[int], list[str]]:
    """The arguments of a real little web server on a port."""
    return lambda port: ["-m", "http.server", str(port), "--bind", "127.0.0.1"]
