"""Starting the processes of a run and ending every one of them, whatever happens in between."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from bench.machine import confined

ROOT = Path(__file__).resolve().parent.parent
START = 20.0
"""Seconds a process may take until it answers."""


class BenchError(Exception):
    """The run cannot go on; the message is one line for a person."""


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this repository with this Python."""
    return [sys.executable, "-m", module, *arguments]


class Started:
    """A process of the run. What it says on standard error is kept in a file, to be shown when it fails."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        cores: frozenset[int] | None,
        directory: Path,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self._errors = directory / f"{name}.stderr"
        with confined(cores), self._errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | (environment or {}),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self) -> dict[str, Any]:
        """The JSON line it prints when it is ready. Raises `BenchError`."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            told = json.loads(line)
        except ValueError:
            raise self.failure("did not start") from None
        return dict(told)

    def answers(self, port: int) -> None:
        """Wait until it answers HTTP on ``port``, whatever the status. Raises `BenchError`."""
        end = time.monotonic() + START
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise self.failure(f"ended with status {self._process.returncode}")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
                return
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
            finally:
                connection.close()
        raise self.failure("does not answer")

    def last_words(self) -> str:
        """The last line it wrote to standard error."""
        lines = self._errors.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def failure(self, what: str) -> BenchError:
        """An error with the last thing the process said."""
        words = self.last_words()
        return BenchError(f"{self.name} {what}" + (f": {words}" if words else ""))

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Crew:
    """All processes of a run; leaving the ``with`` block ends them in reverse order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()
        self._members: list[Started] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str, command: Sequence[str], cores: frozenset[int] | None) -> Started:
        started = Started(name, command, cores=cores, directory=self.directory)
        self._stack.callback(started.stop)
        self._members.append(started)
        return started

    def last_words(self) -> list[str]:
        """What each process said last, for an error that is not its own."""
        said = [(one.name, one.last_words()) for one in self._members]
        return [f"{name}: {words}" for name, words in said if words]
