"""README.md: its commands exist, its snippet runs, its first screen is what ``dev`` prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from edge.commands.screen import Addresses, banner, wake_line
from tests.development import development

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_first_screen_is_the_one_dev_prints() -> None:
    """The rows of the quick start, in their order, with the addresses of the defaults."""
    addresses = Addresses(
        api="http://127.0.0.1:3000",
        edges=[("http://127.0.0.1:3001", "http://127.0.0.1:3002")],
        api_key="nsk_...",
        data_dir=".preview-edge",
    )
    url = "http://8000-sb-1a2b3c4d5e6f7a8b.localhost:3001/?edge_token=..."
    demo = {"sandbox_id": "sb_1a2b3c4d5e6f7a8b", "url": url, "link": f"{url}#ws=..."}
    shown = next(block for block in _blocks("") if block.startswith("  preview"))
    assert shown in banner(addresses, demo)
    assert "Three commands to try" in banner(addresses, demo)


def test_the_line_about_a_wake_is_the_one_dev_prints() -> None:
    """The example in step 3."""
    event = {
        "time": "2026-01-31T12:34:56.789Z",
        "sandbox": "sb_1a2b3c4d5e6f7a8b",
        "woken_by": "GET /",
        "waiters": 1,
        "outcome": "ok",
        "resume_ms": 7.4,
        "listen_ms": 0.6,
        "first_byte_ms": 2.1,
    }
    assert f"`{wake_line(event)}`" in README


def test_the_snippet_runs(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Create, write, start, preview, pause; opening the link wakes; Enter ends the sandbox."""
    (snippet,) = _blocks("python")
    assert snippet.count("8000") == 3
    script = tmp_path / "snippet.py"
    script.write_text(snippet.replace("8000", str(unused_tcp_port)))
    with development(tmp_path, "--no-demo") as said:
        login = {"NULLSPACE_API_URL": said["API"], "NULLSPACE_API_KEY": said["API key"]}
        for name, value in login.items():
            monkeypatch.setenv(name, value)
        with subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdin is not None and child.stdout is not None
            url = urlsplit(child.stdout.readline().strip())
            assert child.stdout.readline().strip() == "False"
            # Not every resolver knows *.localhost; the edge goes by the Host field.
            answer = httpx.get(
                f"{said['edge']}{url.path}?{url.query}", headers={"Host": url.netloc}, timeout=30
            )
            assert (answer.status_code, answer.text) == (200, "<h1>Hello from a sandbox</h1>")
            child.communicate("\n", timeout=30)
        assert child.returncode == 0
        key = {"Authorization": f"Bearer {login['NULLSPACE_API_KEY']}"}
        assert httpx.get(f"{said['API']}/v1/sandboxes", headers=key).json() == []


def test_what_is_said_to_be_missing_is_missing(tmp_path: Path) -> None:
    """The 501s of "Status and limits", asked for one by one."""
    with development(tmp_path, "--no-demo") as said:
        key = {"Authorization": f"Bearer {said['API key']}"}
        with httpx.Client(base_url=said["API"], headers=key, timeout=30) as api:
            sandbox = f"/v1/sandboxes/{api.post('/v1/sandboxes', json={}).json()['id']}"
            for method, path in (
                ("GET", f"{sandbox}/ws?channel=pty"),
                ("GET", "/v1/lifecycle/webhooks"),
            ):
                answer = api.request(method, path, json={} if method == "POST" else None)
                assert (answer.status_code, answer.json()["code"]) == (501, "not_implemented"), path


def _blocks(language: str) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
