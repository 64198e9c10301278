"""``preview-edge dev`` with one sandbox: what a customer has behind the proxy."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench.ports import free_port
from tests.development import development
from tests.examples.proxies import PATIENCE

APP = Path(__file__).with_name("sandboxed.py")
PAUSES = {"auto_resume": True, "timeout_action": "hibernate"}
PREVIEW_DOMAIN = "preview.test"


class World:
    """The control plane's API, and where the edge is."""

    def __init__(self, said: dict[str, str], data: Path, api: httpx.Client) -> None:
        self.edge = said["edge"]
        self.login = {"NULLSPACE_API_URL": said["API"], "NULLSPACE_API_KEY": said["API key"]}
        self.data = data
        self._api = api

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the API, which must succeed."""
        answer = self._api.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def access_log(self) -> str:
        """The edge's, as far as it is written."""
        return (self.data / "access.log").read_text()

    @contextmanager
    def sandbox(
        self, *command: str, files: Mapping[str, str] | None = None, **settings: Any
    ) -> Iterator[Sandbox]:
        """One with a command that is told a free port and listens on it; by default the scripted app."""
        made = self.call("POST", "/v1/sandboxes", PAUSES | settings)
        box = Sandbox(self, made["id"], free_port(), made.get("traffic_access_token", ""))
        try:
            for name, text in (files or {}).items():
                box.write(name, text)
            box.run(*(command or (sys.executable, str(APP), "{port}")))
            yield box
        finally:
            self.call("DELETE", box.path)


class Sandbox:
    """A sandbox whose app listens on ``port``."""

    def __init__(self, world: World, sandbox_id: str, port: int, traffic_token: str) -> None:
        self.world = world
        self.id = sandbox_id
        self.port = port
        self.traffic_token = traffic_token
        self.path = f"/v1/sandboxes/{sandbox_id}"

    def run(self, *command: str) -> None:
        """Start it in the background, and wait for its port."""
        program, *args = [word.replace("{port}", str(self.port)) for word in command]
        self.call("POST", "/exec", {"command": program, "args": args, "background": True})
        asked = {"kind": "tcp", "timeout_secs": int(PATIENCE), "interval_ms": 100}
        said = self.call("POST", f"/ports/{self.port}/readiness", asked)
        assert said["ready"], said

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A call about this sandbox."""
        return self.world.call(method, self.path + path, body)

    def write(self, name: str, text: str) -> None:
        """A file of its work tree."""
        self.call("POST", "/files/write", {"path": name, "content": text})

    def link(self) -> str:
        """A direct preview."""
        return str(self.call("POST", f"/ports/{self.port}/signed-preview-url", {})["url"])

    def pause(self) -> None:
        """As the user orders it."""
        self.call("POST", "/hibernate")
        assert self.state == "paused"

    @property
    def state(self) -> str:
        """Asking does not wake it."""
        return str(self.call("GET", "")["status"])

    @property
    def wakes(self) -> int:
        """Incarnations after the first, by the control plane's count."""
        query = "operation=resume_from_snapshot&status=succeeded&limit=200"
        return len(self.call("GET", f"/lifecycle?{query}")["events"])

    def target(self, **asked: Any) -> dict[str, Any]:
        """A preview proxy target."""
        made: dict[str, Any] = self.call("POST", f"/ports/{self.port}/preview-proxy-target", asked)
        return made

    def environ(self, target: dict[str, Any] | None = None, **changes: str) -> dict[str, str]:
        """What the environment of a customer's proxy has for it."""
        target = target or self.target()
        return {
            "PREVIEW_ORIGIN": self.world.edge,
            "PREVIEW_HOST": urlsplit(target["http_url"]).netloc,
            "PREVIEW_HTTP_TOKEN": target["http_token"],
            "PREVIEW_WEBSOCKET_TOKEN": target["websocket_token"],
            "PREVIEW_TRAFFIC_TOKEN": "",
        } | changes

    def by_sdk(self, **changes: str) -> dict[str, str]:
        """The same for a proxy that asks the API itself."""
        return {
            "PREVIEW_ORIGIN": self.world.edge,
            "SANDBOX_ID": self.id,
            "SANDBOX_PORT": str(self.port),
            **self.world.login,
        } | changes


@contextmanager
def world(folder: Path, **settings: str) -> Iterator[World]:
    """Until the end; ``settings`` are the edge's, as environment variables."""
    folder.mkdir(parents=True, exist_ok=True)
    with development(folder, "--no-demo", "--public-hostname", PREVIEW_DOMAIN, **settings) as said:
        key = {"Authorization": f"Bearer {said['API key']}"}
        with httpx.Client(base_url=said["API"], headers=key, timeout=PATIENCE) as api:
            yield World(said, folder / "data", api)
