"""Processes of ours for tests: started like a user starts them, watched, and none left behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

PREVIEW_EDGE = (str(Path(sys.executable).with_name("preview-edge")),)
MODULE = (sys.executable, "-m", "edge")

PATIENCE = 30.0
"""Seconds for what takes a fraction of one; only broken code waits that long."""


class Program:
    """One process in a session of its own, with ``folder`` as its working directory and TMPDIR inside.

    Its output goes to files, so that it never has to wait for us.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = MODULE,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREVIEW_EDGE_", "NULLSPACE_"))
        }
        own |= {"TMPDIR": str(self.temporary), "PYTHONPATH": str(Path(__file__).parents[2])}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=folder,
                env=own | dict(environ or {}),
                stdin=stdin,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever still lives of it is killed."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        for pid in family(self.folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._err.read_text()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def events(self, name: str) -> list[dict[str, Any]]:
        """What its event log has said under that name."""
        lines = [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def said(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """The first line of standard output, which is JSON where programs talk to each other."""
        self.until(lambda: "\n" in self.out, seconds)
        said: dict[str, Any] = json.loads(self.out.split("\n", 1)[0])
        return said

    def until(self, holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until it has got there; its end before that fails the test with what it said."""
        deadline = time.monotonic() + seconds
        while not holds():
            trouble = "ended" if self.over and not holds() else ""
            trouble = trouble or ("is late" if time.monotonic() > deadline else "")
            assert not trouble, f"it {trouble}: {self.out}\n{self.err}"
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Its exit status, once it has ended by itself."""
        assert eventually(lambda: self.over, seconds), f"it goes on: {self.out}\n{self.err}"
        return self.process.wait()


def family(folder: Path) -> dict[int, str]:
    """Every living process that was started below ``folder``, by id: parents, children, strays.

    Known by their environment (TMPDIR, or what a sandbox's command was given) or working directory,
    which no session, group or reparenting changes.
    """
    needle = os.fsencode(folder)
    found = {}
    for pid, process in _processes():
        try:
            cwd = os.fsencode((process / "cwd").readlink())
            environ = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue  # It has just ended, or is a zombie.
        if needle in environ or cwd.startswith(needle):
            found[pid] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def _processes() -> Iterator[tuple[int, Path]]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            yield int(process.name), process


def eventually(holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether it comes true in time: for what other processes do."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def fetch(
    url: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Ask; any host is taken to be this machine, as browsers do with ``*.localhost``."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=PATIENCE)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, target, data, {"Host": parts.netloc} | headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def toml(groups: Mapping[str, Any]) -> str:
    """Settings as a file: plain values first, then a table for each group."""
    plain = [f"{k} = {_value(v)}" for k, v in groups.items() if not isinstance(v, dict)]
    for name, group in groups.items():
        if isinstance(group, dict):
            plain += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in group.items())]
    return "\n".join(plain) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)
