"""The client's git: commands and files, so it works as far as these do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from nullspace import Sandbox, cli

from edge.appliance.description.calls import CALLS
from tests.sdk import clientwalk as walk
from tests.sdk.agreeing import ID, Agreeing, agreeing


@pytest.fixture
def plane() -> Iterator[Agreeing]:
    """Somebody who says yes. No command is run."""
    with agreeing() as plane:
        yield plane


def test_git_asks_only_what_is_offered(plane: Agreeing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method and command: only calls that the description has. None is run here: some write to a home."""
    sandbox = Sandbox.create(**plane.login)
    for method in walk.methods(type(sandbox.git)):
        call = getattr(sandbox.git, method)
        call(**walk.arguments(call, {}))
    called = len(plane.asked)
    assert called > 17
    monkeypatch.setenv("NULLSPACE_API_URL", plane.login["base_url"])
    monkeypatch.setenv("NULLSPACE_API_KEY", "k")
    known = {"sandbox_id": ID}
    for words, command in walk.commands():
        if words.startswith("sandbox git "):
            ran = CliRunner().invoke(cli.main, [*words.split(" "), *walk.words_for(command, known)])
            assert ran.exit_code == 0, (words, ran.output)
    assert len(plane.asked) > called
    assert plane.calls <= set(CALLS)
    sandbox.close()


@pytest.mark.needs_tool("git")
def test_git_in_a_sandbox(login: dict[str, Any]) -> None:
    """A repository of its own, with real git. Processes see no ``/workspace``, so the path has to be said."""
    with Sandbox.create(**login) as sandbox:
        assert sandbox.commands.run("git", ["init", "-b", "main", "."]).exit_code == 0
        sandbox.files.write("a.txt", "a")
        sandbox.git.add(".", files=["a.txt"])
        sandbox.git.commit("first", path=".", author_name="A", author_email="a@example.test")
        assert sandbox.git.branches(".").current_branch == "main"
        sandbox.git.create_branch(".", "other")
        sandbox.files.write("a.txt", "b")
        assert "a.txt" in sandbox.git.diff(path=".")
        assert "a.txt" in str(sandbox.git.status(path="."))
