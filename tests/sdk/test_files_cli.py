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
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sandbox(login: Login) -> Iterator[Sandbox]:
    """A sandbox, killed after the test."""
    with Sandbox.create(**login) as made:
        yield made


@pytest.fixture
def cli(login: Login, tmp_path: Path) -> Cli:
    """Runs the program and gives what it printed; it has to succeed unless ``code`` says otherwise."""
    environment = {
        **os.environ,
        "NULLSPACE_API_URL": login["base_url"],
        "NULLSPACE_API_KEY": login["api_key"],
        "HOME": str(tmp_path),
    }

    def run(*words: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        program = [str(Path(sys.executable).with_name("nullspace")), "sandbox", *words]
        ran = subprocess.run(
            program, input=stdin, capture_output=True, text=True, env=environment, timeout=60, check=False
        )  # fmt: skip
        assert ran.returncode == code, (words, ran.stdout, ran.stderr)
        return ran

    return run


def test_file_commands(sandbox: Sandbox, cli: Cli) -> None:
    """Each prints what the client made of the answer."""

    def file(name: str, *words: str, **more: Any) -> str:
        return cli("file", name, sandbox.id, *words, **more).stdout

    assert file("write", "a/b.txt", stdin="one\ntwo\n") == "Wrote /workspace/a/b.txt\n"
    file("write", "raw", "--encoding", "base64", stdin=base64.b64encode(b"\xff\0").decode())
    assert base64.b64decode(file("read", "raw", "--encoding", "base64")) == b"\xff\0"
    assert file("read", "a/b.txt") == "one\ntwo\n"
    assert "b.txt\tfile\t8\t/workspace/a/b.txt" in file("list", "/workspace", "--depth", "2")
    assert json.loads(file("exists", "a/b.txt"))["exists"] is True
    assert json.loads(file("exists", "none", code=1))["exists"] is False
    infos = json.loads(
        file("write-files", '[{"path": "m", "content": "1"}, {"path": "n", "content": "2"}]')
    )
    assert [info["path"] for info in infos] == ["/workspace/m", "/workspace/n"]
    assert file("mkdir", "x/y") == "Created x/y\n"
    assert json.loads(file("mv", "m", "x/y/m"))["path"] == "/workspace/x/y/m"
    assert "Updated" in file("chmod", "x/y/m", "640")
    assert json.loads(file("info", "x/y/m"))["mode"] == "0640"
    assert json.loads(file("find", "/", "two")) == [
        {"file": "/workspace/a/b.txt", "line": 2, "content": "two"}
    ]
    assert json.loads(file("search", "/", "*.txt")) == ["/workspace/a/b.txt"]
    assert json.loads(file("replace", "two", "2", "a/b.txt"))["replacements"] == 1
    assert file("rm", "a") == "Removed a\n"
    assert file("download-url", "n").startswith("http://127.0.0.1:")
    assert json.loads(file("upload-url", "n"))["url"].startswith("http://127.0.0.1:")
    assert "does not exist" in cli("file", "read", sandbox.id, "none", code=4).stderr


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


def test_watching(sandbox: Sandbox, cli: Cli) -> None:
    """Events are lines of JSON, until its time is over."""
    sandbox.commands.run(
        "while sleep 0.05; do date +%N > changing; done", shell=True, background=True
    )
    lines = cli("file", "watch", sandbox.id, "/", "--timeout", "1.5").stdout.splitlines()
    assert {json.loads(line)["path"] for line in lines} == {"/workspace/changing"}
