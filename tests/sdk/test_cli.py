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
from nullspace import Sandbox

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
