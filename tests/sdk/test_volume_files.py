"""What ``test_volumes.py`` leaves: links and single files of volumes, and every command about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from nullspace import Sandbox, Volume
from nullspace import cli as program

Login = dict[str, Any]
Run = Callable[..., str]


@pytest.fixture
def run(login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command and gives what it printed; it has to end with ``code``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NULLSPACE_API_URL", login["base_url"])
    monkeypatch.setenv("NULLSPACE_API_KEY", login["api_key"])

    def run(words: str, *more: str, stdin: str = "", code: int = 0) -> str:
        ran = CliRunner().invoke(program.main, [*words.split(" "), *more], input=stdin)
        assert ran.exit_code == code, (words, ran.output)
        return ran.stdout

    return run


@pytest.fixture
def volume(login: Login) -> Iterator[Volume]:
    """A volume with a file."""
    made = Volume.create("v", **login)
    made.files.write("/a.txt", "needle")
    yield made
    made.delete()


def test_the_other_methods(volume: Volume, tmp_path: Path) -> None:
    """Links that need no key, single files up and down, and the other name of ``info``."""
    files = volume.files
    assert files.get_info("/a.txt") == files.info("/a.txt")
    assert httpx.get(files.download_url("/a.txt")).text == "needle"
    assert httpx.put(files.upload_url("/b").url, content=b"up").status_code == 204
    assert files.download_file("/b", tmp_path / "b").bytes_downloaded == 2
    assert (tmp_path / "b").read_bytes() == b"up"
    files.upload_file(tmp_path / "b", "/c")
    assert files.read("/c") == "up"


def test_the_command_line(run: Run, tmp_path: Path) -> None:
    """Every command of ``nullspace volume`` that works."""
    made = json.loads(run("volume create v"))
    assert json.loads(run("volume get v"))["id"] == made["id"] in run("volume list --json")
    assert "/a.txt" in run("volume write v /a.txt", stdin="needle")
    assert "needle" in run("volume read v /a.txt") and "needle" in run("volume cat v /a.txt")
    run("volume write-files v", '[{"path": "/w1", "content": "1"}]')
    run("volume mkdir v /d")
    for words in ("info v /d", "stat v /d"):
        assert json.loads(run(f"volume {words}"))["is_dir"] is True
    assert json.loads(run("volume exists v /w1"))["exists"] is True
    run("volume exists v /none", code=1)
    run("volume mv v /w1 /d/w2")
    run("volume chmod v /d/w2 600")
    assert "w2" in run("volume ls-files v /d")
    assert "/a.txt" in run("volume find v / needle") and "w2" in run("volume search v / w*")
    run("volume replace v needle pin /a.txt")
    assert httpx.get(run("volume download-url v /a.txt").strip()).text == "pin"
    assert "signature=" in run("volume upload-url v /x")
    run("volume download v /a.txt", str(tmp_path / "a"))
    assert (tmp_path / "a").read_text() == "pin"
    run("volume upload v", str(tmp_path / "a"), "/up")
    assert "pin" in run("volume cat v /up")
    run("volume rm v /up")
    run("volume exists v /up", code=1)
    run("volume delete", made["id"])
    run("volume get v", code=3)


def test_snapshots_on_the_command_line(login: Login, run: Run) -> None:
    """Both spellings, and forks."""
    with Sandbox.create(**login) as sandbox:
        fork = json.loads(run("sandbox fork", sandbox.id))["id"]
        assert fork != sandbox.id and Sandbox.kill_by_id(fork, **login) is None
        for words in ("snapshot create", "sandbox snapshot create"):
            made = json.loads(run(words, sandbox.id))
            assert json.loads(run("snapshot get", made["id"])) == made
            assert made in json.loads(run("snapshot list --sandbox-id", sandbox.id))
            assert made in json.loads(run("sandbox snapshot list", sandbox.id))
            run("snapshot delete", made["id"])
            run("snapshot get", made["id"], code=3)
