"""The published client's command line for files, as programs of their own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nullspace import Sandbox

Login = dict[str, Any]
PROGRAM = [str(Path(sys.executable).with_name("nullspace")), "sandbox"]
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sandbox(login: Login) -> Iterator[Sandbox]:
    """A sandbox, killed after the test."""
    with Sandbox.create(**login) as made:
        yield made


@pytest.fixture
def environment(login: Login, tmp_path: Path) -> dict[str, str]:
    """What the program is told by its environment."""
    return {
        **os.environ,
        "NULLSPACE_API_URL": login["base_url"],
        "NULLSPACE_API_KEY": login["api_key"],
        "HOME": str(tmp_path),
    }


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    """Runs the program and gives what it printed; it has to succeed unless ``code`` says otherwise."""

    def run(*words: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [*PROGRAM, *words], input=stdin, capture_output=True, text=True, env=environment, timeout=60, check=False
        )  # fmt: skip
        assert ran.returncode == code, (words, ran.stdout, ran.stderr)
        return ran

    return run


def test_file_commands(sandbox: Sandbox, cli: Cli) -> None:
    """Each prints what the client made of the answer."""

    def file(name: str, *words: str, **more: Any) -> str:
        return cli("file", name, sandbox.id, *words, **more).stdout

    assert file("write", "a/b.txt", stdin="one\ntwo\n") == "Wrote /workspace/a/b.txt\n"
    sandbox.files.write("raw", b"\xff\0")
    assert base64.b64decode(file("read", "raw", "--encoding", "base64")) == b"\xff\0"
    assert "b.txt\tfile\t8\t/workspace/a/b.txt" in file("list", "/workspace", "--depth", "2")
    batch = '[{"path": "m", "content": "1"}, {"path": "n/o", "content": "2"}]'
    assert [info["size"] for info in json.loads(file("write-files", batch))] == [1, 1]
    assert json.loads(file("mv", "m", "n/m"))["path"] == "/workspace/n/m"
    assert "Updated" in file("chmod", "n/m", "640")
    assert json.loads(file("find", "/", "two")) == [
        {"file": "/workspace/a/b.txt", "line": 2, "content": "two"}
    ]
    assert json.loads(file("replace", "two", "2", "a/b.txt"))["replacements"] == 1
    assert file("rm", "a") == "Removed a\n"
    assert json.loads(file("exists", "a", code=1))["exists"] is False


def test_uploads(sandbox: Sandbox, cli: Cli, tmp_path: Path) -> None:
    """A small file, a large one, a directory, and what comes through standard input."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "small").write_bytes(b"small")
    (folder / "large").write_bytes(bytes(9 << 20))
    for source, destination, transport in (
        ("site/small", "s", "direct"),
        ("site/large", "l", "resumable"),
        ("site", "d", "resumable"),
    ):
        ran = cli("upload", sandbox.id, str(tmp_path / source), destination, "--json")
        assert json.loads(ran.stdout)["transport"] == transport
    cli("upload", sandbox.id, "-", "in", stdin="through standard input")
    sizes = {
        entry.path: entry.size for entry in sandbox.files.list("/", depth=2) if not entry.is_dir
    }
    assert sizes == {
        "/workspace/s": 5, "/workspace/l": 9 << 20, "/workspace/in": 22,
        "/workspace/d/small": 5, "/workspace/d/large": 9 << 20,
    }  # fmt: skip


def test_watching(sandbox: Sandbox, environment: dict[str, str]) -> None:
    """Events are lines of JSON, told as they come."""
    sandbox.commands.run(
        "while sleep 0.05; do date +%N > changing; done", shell=True, background=True
    )
    words = ["file", "watch", sandbox.id, "/", "--timeout", "60"]
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, env=environment) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["path"] == "/workspace/changing"
        watching.kill()
