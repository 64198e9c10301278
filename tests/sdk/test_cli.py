"""The published client's command line, as a process, for what it can do with commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from nullspace import Sandbox
from nullspace import cli as program

Login = dict[str, Any]
PROGRAM = str(Path(sys.executable).with_name("nullspace"))


class Cli:
    """The program, for one sandbox."""

    def __init__(self, login: Login, sandbox: str, home: Path) -> None:
        self._sandbox = sandbox
        self._env = {
            "PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8",
            "NULLSPACE_API_URL": login["base_url"], "NULLSPACE_API_KEY": login["api_key"],
        }  # fmt: skip

    def __call__(self, *words: str, stdin: str = "") -> tuple[int, str, str]:
        """Run ``nullspace sandbox``; where a word is ``ID`` it is the sandbox's."""
        argv = [PROGRAM, "sandbox", *(self._sandbox if word == "ID" else word for word in words)]
        ran = subprocess.run(
            argv,
            env=self._env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return ran.returncode, ran.stdout, ran.stderr


@pytest.fixture
def cli(login: Login, tmp_path: Path) -> Iterator[Cli]:
    """The program and a sandbox."""
    with Sandbox.create(on_timeout="pause", auto_resume=True, **login) as sandbox:
        yield Cli(login, sandbox.id, tmp_path)


def test_commands_in_the_foreground(cli: Cli) -> None:
    """Both streams and the exit code go through, whole or as they come; the limit is told."""
    line = ("ID", "--shell", "--env", "A=1", "echo $A; echo err >&2; exit 3")
    assert cli("exec", *line) == (3, "1\n", "err\n")
    code, out, err = cli("process", "stream", *line)
    assert (code, out) == (3, "1\n") and "err\n" in err
    code, out, _ = cli("process", "stream", "ID", "--json", "--shell", "printf 'h\\303\\251'")
    assert (code, json.loads(out)["stdout"]) == (0, "h\xe9")
    assert cli("process", "code-run", "ID", "print(6 * 7)")[:2] == (0, "42\n")
    code, out, err = cli("exec", "ID", "--timeout", "1", "sleep", "600")
    assert code not in (0, 3) and "within 1 seconds" in out + err


def test_commands_in_the_background(cli: Cli) -> None:
    """Start, list, send, read, follow, kill, and once more after the end."""
    code, out, _ = cli("exec", "ID", "--background", "--json", "--shell", "cat; echo end")
    pid = str(json.loads(out)["pid"])
    assert code == 0
    assert cli("process", "list", "ID")[1].startswith(f"{pid}\trunning\t")
    assert cli("process", "stdin", "ID", pid, stdin="h\xe9\n")[:2] == (
        0, f"Sent 4 bytes to process {pid}\n",
    )  # fmt: skip
    # `cat` has to read before there is something in the log.
    deadline = time.monotonic() + 30
    while not (logs := cli("process", "logs", "ID", pid)[1]) and time.monotonic() < deadline:
        pass
    assert logs == "h\xe9\n"
    assert cli("process", "kill", "ID", pid)[:2] == (0, f"Killed process {pid}\n")
    code, out, _ = cli("process", "attach", "ID", pid)
    assert (code, out) == (137, "h\xe9\n")
    code, out, err = cli("process", "kill", "ID", "1")
    assert code != 0 and "no such process" in out + err


def test_a_life_on_the_command_line(
    login: Login, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Create, look, reach, pause, resume, kill: every command of ``nullspace sandbox`` about a sandbox itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NULLSPACE_API_URL", login["base_url"])
    monkeypatch.setenv("NULLSPACE_API_KEY", login["api_key"])

    def run(*words: str) -> str:
        ran = CliRunner().invoke(program.main, ["sandbox", *words])
        assert ran.exit_code == 0, (words, ran.output)
        return ran.output

    made = json.loads(run("create", "--on-timeout", "pause"))["id"]
    assert json.loads(run("get", made))["status"] == "running"
    assert "running" in run("list")
    assert "edge_token=" in run("url", made, "8080") and ".edge.test" in run("host", made, "8080")
    assert "<redacted>" in run("preview-url", "create", made, "8080")
    assert "<redacted>" in run("preview-url", "get", made, "8080")
    grant = run("preview-url", "list", made).split(" ")[0]
    run("preview-url", "revoke", made, grant)
    assert f"{grant} port=8080 status=revoked" in run("preview-url", "list", made)
    assert "ns_preview_transport=header" in run("preview-proxy-target", "create", made, "8080")
    assert json.loads(run("timeout", "set", made, "--seconds", "60"))["timeout_ms"] == 60_000
    run("file", "mkdir", made, "d")
    assert json.loads(run("file", "info", made, "d"))["is_dir"] is True
    assert json.loads(run("file", "search", made, ".", "d*")) == ["/workspace/d"]
    assert "signature=" in run("file", "download-url", made, "d/x")
    assert "signature=" in run("file", "upload-url", made, "d/x")
    for word in ("hibernate", "pause"):
        snapshot = json.loads(run(word, made))["id"]
        assert json.loads(run("resume", snapshot))["status"] == "running"
    run("desktop", "wait", made, "1")
    run("kill", made)
    assert CliRunner().invoke(program.main, ["sandbox", "get", made]).exit_code == 3
    ran = CliRunner().invoke(program.main, ["quickstart"])
    assert ran.exit_code == 0 and "hello from a sandbox" in ran.output


def test_an_agent_is_tried_out_in_a_sandbox(
    login: Login, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``nullspace agent dev``: the project goes up, and its command runs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NULLSPACE_API_URL", login["base_url"])
    monkeypatch.setenv("NULLSPACE_API_KEY", login["api_key"])
    project = tmp_path / "project"
    project.mkdir()
    (project / "nullspace.agent.toml").write_text(
        'name = "x"\nmode = "job"\nentrypoint = "echo agent"\n'
    )
    line = ["agent", "dev", "--project-dir", str(project), "--json"]
    ran = CliRunner().invoke(program.main, line)
    assert ran.exit_code == 0, ran.output
    assert '"stdout": "agent\\n"' in ran.output


def test_metrics(cli: Cli) -> None:
    """One line for people, and one sample as JSON."""
    code, out, _ = cli("metrics", "ID")
    assert code == 0 and "CPU: 0" in out and "MiB" in out
    code, out, _ = cli("metrics", "ID", "--json")
    (sample,) = json.loads(out)
    assert code == 0 and sample["network_rx_bytes"] is None and sample["cpu_count"] > 0
