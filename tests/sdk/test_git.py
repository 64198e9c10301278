"""The client's git: commands and files, so it works as far as these do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner
from nullspace import Sandbox, cli

from edge.appliance.description.calls import CALLS
from tests.sdk import clientwalk as walk

SANDBOX = {
    "id": "sb_00000000", "status": "running", "config": {"vcpus": 1, "memory_mb": 1}, "template": "base",
    "metadata": {}, "timeout_ms": 1, "timeout_action": "destroy", "created_at": "2026-01-01T00:00:00Z",
    "cwd": "/workspace",
}  # fmt: skip


class Plane(ThreadingHTTPServer):
    """Says yes to whatever is asked, and keeps what that was. No command is run."""

    asked: list[str]

    @property
    def login(self) -> dict[str, Any]:
        """What a client needs to know."""
        return {"base_url": f"http://127.0.0.1:{self.server_address[1]}", "api_key": "k"}


class Yes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Plane

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0].replace(SANDBOX["id"], "{sandbox}")
        self.server.asked.append(f"{self.command} {path}")
        said: dict[str, Any] = SANDBOX
        if path.endswith("/exec"):
            said = {"exit_code": 0, "stdout": "", "stderr": ""}
        elif "/files/" in path:
            said = {"name": "a", "path": "/a", "is_dir": False, "size": 1}
        data = json.dumps(said).encode()
        self.send_response(201 if path == "/v1/sandboxes" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def plane() -> Iterator[Plane]:
    """Somebody who says yes."""
    with Plane(("127.0.0.1", 0), Yes) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_git_asks_only_what_is_offered(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method and command: only calls that the description has. None is run here: some write to a home."""
    sandbox = Sandbox.create(**plane.login)
    for method in walk.methods(type(sandbox.git)):
        call = getattr(sandbox.git, method)
        call(**walk.arguments(call, {}))
    called = len(plane.asked)
    assert called > 17
    monkeypatch.setenv("NULLSPACE_API_URL", plane.login["base_url"])
    monkeypatch.setenv("NULLSPACE_API_KEY", "k")
    known = {"sandbox_id": SANDBOX["id"]}
    for words, command in walk.commands():
        if words.startswith("sandbox git "):
            ran = CliRunner().invoke(cli.main, [*words.split(" "), *walk.words_for(command, known)])
            assert ran.exit_code == 0, (words, ran.output)
    assert len(plane.asked) > called
    assert set(plane.asked) <= set(CALLS)
    sandbox.close()


@pytest.mark.needs_tool("git")
def test_git_in_a_sandbox(login: dict[str, Any]) -> None:
    """A repository of its own, with real git. Processes see no ``/workspace``, so the path has to be said."""
    with Sandbox.create(**login) as sandbox:
        assert sandbox.commands.run("git", ["init", "-b", "main", "."]).exit_code == 0
        sandbox.files.write("a.txt", "a")
        sandbox.git.add(".", files=["a.txt"])
        sandbox.git.commit("first", path=".", author_name="A", author_email="a@example.test")
        assert sandbox.git.branches(".").current_branch == "main"
        sandbox.git.create_branch(".", "other")
        sandbox.files.write("a.txt", "b")
        assert "a.txt" in sandbox.git.diff(path=".")
        assert "a.txt" in str(sandbox.git.status(path="."))
