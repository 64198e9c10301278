"""What commands are started with. That they really are is in test_sandbox.py."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from families import open_descriptors

from edge.appliance.runtime import Command, NotExecutable
from edge.appliance.runtime.launch import argv_of, environment, open_input, open_output


def test_arguments_and_how_lists_show_them() -> None:
    """A list stays a list and is shown quoted; a line goes to a shell and is shown as it is."""
    assert argv_of(Command(argv=["echo", "a b"])) == (["echo", "a b"], "echo 'a b'")
    argv, text = argv_of(Command(shell="echo $A"))
    assert (argv[1:], text) == (["-c", "echo $A"], "echo $A") and os.access(argv[0], os.X_OK)
    for wrong in (
        Command(),
        Command(argv=[]),
        Command(argv=["a\0"]),
        Command(argv=["a"], shell="a"),
    ):
        with pytest.raises(NotExecutable):
            argv_of(wrong)


def test_what_was_asked_for_wins_but_for_the_sandboxs_name() -> None:
    """Variables asked for replace ours; names and values that cannot be are refused."""
    env = environment("sb_1", Path("/x"), {"HOME": "/y", "A": "1", "PREVIEW_SANDBOX_ID": "no"})
    assert env["HOME"] == "/y" and env["A"] == "1" and env["PREVIEW_SANDBOX_ID"] == "sb_1"
    assert environment("sb_1", Path("/x"), {})["HOME"] == "/x"
    for wrong in ({"": "1"}, {"A=": "1"}, {"A": "\0"}):
        with pytest.raises(NotExecutable):
            environment("sb_1", Path("/x"), wrong)


@pytest.mark.parametrize("waited_for", [True, False])
async def test_what_is_opened_is_closed_when_it_is_undone(waited_for: bool) -> None:
    """Nothing stays open of a command that is not started after all; only the unattended have input."""
    before = open_descriptors()
    with ExitStack() as undo:
        stdin, reading = open_input(undo, waited_for=waited_for)
        output = open_output(undo, head=waited_for)
        assert (stdin is None) is waited_for and (output.heads is None) is not waited_for
        if stdin is None:
            assert os.read(reading, 1) == b""
        else:
            stdin.write(b"x")
            assert os.read(reading, 1) == b"x"
    assert open_descriptors() == before
