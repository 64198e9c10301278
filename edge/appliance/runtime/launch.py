"""What a command is started with: arguments, environment, and the ends of its three pipes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from edge.appliance.runtime.input import Input
from edge.appliance.runtime.interface import Command, NotExecutable
from edge.appliance.runtime.output import Output

_SHELLS = ("/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh")


def environment(sandbox_id: str, home: Path, envs: Mapping[str, str]) -> dict[str, str]:
    """The variables of a command; ``envs`` are those asked for. Raises `NotExecutable`."""
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        **envs,
        "PREVIEW_SANDBOX_ID": sandbox_id,
    }
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise NotExecutable(f"{name!r} cannot be an environment variable of that value.")
    return env


def open_input(undo: ExitStack, *, waited_for: bool) -> tuple[Input | None, int]:
    """What writes to standard input, if anybody can, and the descriptor that the command reads.

    ``undo`` closes both again.
    """
    if waited_for:
        stdin, reading = None, os.open(os.devnull, os.O_RDONLY)
    else:
        stdin = Input()
        reading = stdin.reading
        undo.callback(stdin.close)
    undo.callback(os.close, reading)
    return stdin, reading


def open_output(undo: ExitStack, *, head: bool) -> Output:
    """What reads both output streams; ``head`` as in `Output`. Raises OSError, as `open_input` does."""
    output = Output(head=head)
    undo.callback(output.close)
    for descriptor in output.writing:
        undo.callback(os.close, descriptor)
    return output


def argv_of(command: Command) -> tuple[list[str], str]:
    """What to execute, and how a list of processes shows it. Raises `NotExecutable`."""
    if (command.argv is None) == (command.shell is None):
        raise NotExecutable("A command is either a list of arguments or a line for the shell.")
    if command.shell is not None:
        shell = next((path for path in _SHELLS if os.access(path, os.X_OK)), _SHELLS[-1])
        argv, text = [shell, "-c", command.shell], command.shell
    else:
        argv = list(command.argv or ())
        text = shlex.join(argv)
    if not argv or not argv[0]:
        raise NotExecutable("The command is empty.")
    if any("\0" in argument for argument in argv):
        raise NotExecutable("A command cannot hold a NUL character.")
    return argv, text
