"""docs/client.md tells of every method and every command of the published client, and tells the truth.

The client is walked, not the page: what the page forgets is found, and what it says is not offered is called.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import nullspace
import pytest
from click.testing import CliRunner
from nullspace import AsyncSandbox, Sandbox, Template, cli
from nullspace.client import AsyncNullspaceClient, NullspaceClient
from nullspace.errors import NotImplementedError as NotOffered
from nullspace.template import TemplateBuild, TemplateBuildStatus

from tests.sdk import clientwalk as walk

# What the client does with its WebSocket library is deprecated there.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text()
METHODS, COMMANDS = (
    {name: (here, shown) for name, here, shown in re.findall(pattern, PAGE, re.MULTILINE)}
    for pattern in (
        r"^\| `([A-Z]\w+\.\w+)` \| (works|local|501) \|(.*)\|$",
        r"^\| `nullspace ([a-z][a-z \-]*)` \| (works|local|501) \|(.*)\|$",
    )
)
EVERYTHING = walk.everything()
NOT_OFFERED = [name for name, (here, _) in METHODS.items() if here == "501"]
LOCAL = [name for name, (here, _) in METHODS.items() if here == "local"]
NO_COMMANDS = [words for words, (here, _) in COMMANDS.items() if here == "501"]

THROUGH = {"PtySession": "Pty.create_session", "MonitorSubscription": "Monitor.subscribe"}
"""Handles that there are only once something has succeeded that is not offered: that is called instead."""


def test_no_method_and_no_command_is_forgotten() -> None:
    """The page has what the client has: no more, no less, and nothing twice."""
    assert set(METHODS) == set(EVERYTHING)
    assert set(COMMANDS) == {words for words, _ in walk.commands()}
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(METHODS) + len(COMMANDS)


@cache
def functions(file: str) -> dict[str, str]:
    """The functions of a file of tests, by name, with their text."""
    text = (ROOT / file).read_text()
    found = [
        one
        for one in ast.walk(ast.parse(text))
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {one.name: ast.get_source_segment(text, one) or "" for one in found}


def test_what_works_names_its_test() -> None:
    """There is a test of that name, and it mentions the method or command."""
    named = METHODS | {f"nullspace {words}": row for words, row in COMMANDS.items()}
    wrong = [name for name, (here, shown) in named.items() if not _shown(name, here, shown)]
    assert not wrong


def _shown(name: str, here: str, shown: str) -> bool:
    if here == "501":
        return not shown.strip()
    found = re.fullmatch(r" `(tests/[\w/]+\.py)::(test_\w+)` ", shown)
    test = functions(found[1]).get(found[2]) if found else None
    if here == "local" or "git" in name.lower():  # All of these are walked there.
        return test is not None
    word = re.escape(name.replace(".", " ").rpartition(" ")[2])
    return test is not None and re.search(rf"\b{word}\b", test) is not None


# --- What is not offered -----------------------------------------------------------------------------


def _objects(sandbox: Any, client: Any) -> dict[str, Any]:
    now = nullspace.types.datetime.now()
    found = walk.instances(sandbox, client)
    first = next(iter(TemplateBuildStatus))
    build = TemplateBuild(
        build_id="b",
        template_id="t",
        name="n",
        tags=[],
        status=first,
        created_at=now,
        updated_at=now,
    )
    build._client = client
    return found | {"TemplateBuild": build, "Template": Template.from_base_image()}


def _known(login: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "file").write_text("x")
    (folder / "main.py").write_text("")
    (folder / "nullspace.agent.toml").write_text(
        'name = "x"\nmode = "job"\nentrypoint = "main.py"\n'
    )
    return login | {"timeout": 1, "timeout_secs": 1}


def _special(name: str, folder: Path) -> dict[str, Any]:
    """Arguments that cannot be made up."""
    text = "x"
    builder = Template.from_base_image()
    return {
        "AgentDeployment.create_version": {
            "bundle_manifest": {"bundle_digest": text, "config_digest": text},
            "config": {},
        },
        "AgentDeployment.deploy": {"path": str(folder)},
        "Pty.connect": {"session_id": text},
        "Template.build": {"builder": builder, "name": text},
        "Template.build_in_background": {"builder": builder, "name": text},
        "Template.validate": {"builder": builder, "name": text},
        "Template.set_visibility": {"visibility": "private"},
        "Lifecycle.create_webhook": {"operations": ["create"]},
        "VolumeFiles.upload_dir": {"source": str(folder), "local_path": str(folder)},
    }.get(name, {})


def _bound(
    name: str, owner: str, objects: dict[str, Any], login: dict[str, Any], folder: Path
) -> Callable[[], Any]:
    """The call, ready to be made."""
    of, method = walk.classes()[owner], name.partition(".")[2]
    kind = inspect.getattr_static(of, method)
    if owner.removeprefix("Async") in ("Lifecycle", "Monitor"):
        objects[owner] = of(**login)
    on = of if isinstance(kind, classmethod | staticmethod) else objects[owner]
    call = getattr(on, method)
    special = {
        key: value
        for key, value in _special(name, folder).items()
        if key in inspect.signature(call).parameters
    }
    made = walk.arguments(call, _known(login, folder)) | special
    return lambda: call(**made)


@pytest.fixture(scope="module")
def handle(base_url: str) -> Any:
    """A sandbox that all calls of this module are made on."""
    made = Sandbox.create(base_url=base_url, api_key="nsk_sdk_test")
    yield made
    made.kill()


async def _refused(name: str, call: Callable[[], Any], *, twin: bool) -> str | None:
    """What was wrong with the refusal of a call; None for one as it should be."""
    try:
        async with asyncio.timeout(20):
            result = call() if twin else await asyncio.to_thread(_finished, call)
            if inspect.isawaitable(result):
                await result
            elif hasattr(result, "__anext__"):
                await anext(result)
    except NotOffered as e:
        told = e.code in ("not_implemented", "websocket_upgrade_error")
        return None if told else f"{name}: {e.code}"
    except Exception as e:  # noqa: BLE001 - whatever it is, it is not what is asked for
        return f"{name}: {e!r}"
    return f"{name}: succeeded"


@pytest.mark.parametrize("twin", [False, True], ids=["Sandbox", "AsyncSandbox"])
async def test_what_is_not_offered(
    twin: bool,
    handle: Sandbox,
    login: dict[str, Any],
    tmp_path: Path,
    async_connections_closed: None,
) -> None:
    """Each of them, called: the control plane says 501 ``not_implemented``, and the client raises it as its own."""
    sandbox = await AsyncSandbox.connect(handle.id, **login) if twin else handle
    client = AsyncNullspaceClient(**login) if twin else NullspaceClient(**login)
    wrong: list[str | None] = []
    for row in NOT_OFFERED:
        name = THROUGH.get(row.partition(".")[0], row)
        for owner in EVERYTHING[name]:
            if owner.startswith("Async") is twin:
                call = _bound(name, owner, _objects(sandbox, client), login, tmp_path)
                wrong.append(await _refused(name, call, twin=twin))
    assert len(wrong) > 100 and not any(wrong), "\n".join(filter(None, wrong))


def _finished(call: Callable[[], Any]) -> Any:
    result = call()
    return next(result) if hasattr(result, "__next__") else result


COMMAND_LINES = {
    "agent deploy": "agent deploy --name x",
    "agent logs": "agent logs x --run x",
    "lifecycle webhooks create": "lifecycle webhooks create --url https://example.test/x --signing-secret x --operation create",
    "lifecycle webhooks update": "lifecycle webhooks update x --enabled",
    "sandbox pty connect": "sandbox pty connect SANDBOX 1",
    "template build": "template build --name x --from-base-image x",
    "template validate": "template validate --name x --from-base-image x",
}
"""Command lines that cannot be made up."""


@pytest.fixture(scope="module")
def volume(base_url: str) -> Iterator[str]:
    """The name of a volume, which the command line looks for before it asks for anything else."""
    made = nullspace.Volume.create("v", base_url=base_url, api_key="nsk_sdk_test")
    yield made.name
    made.delete()
    made._client.close()


@pytest.mark.parametrize("words", NO_COMMANDS)
def test_commands_that_are_not_offered(
    words: str,
    handle: Sandbox,
    volume: str,
    login: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command ends with exit code 1 and says what the control plane said."""
    _known(login, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NULLSPACE_API_URL", login["base_url"])
    monkeypatch.setenv("NULLSPACE_API_KEY", login["api_key"])
    known = {"sandbox_id": handle.id, "volume_ref": volume}
    if words in COMMAND_LINES:
        line = COMMAND_LINES[words].replace("SANDBOX", handle.id).split(" ")
    else:
        line = [*words.split(" "), *walk.words_for(dict(walk.commands())[words], known)]
    ran = CliRunner().invoke(cli.main, line)
    said = ran.output + ran.stderr
    # The client calls a deployment that it cannot make a mistake of its caller.
    assert ran.exit_code == (2 if words == "agent deploy" else 1), said
    assert "does not offer this" in said or "HTTP 501" in said, said


# --- What asks nobody --------------------------------------------------------------------------------


def test_what_is_local_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page calls local opens no connection, whether or not it likes its arguments."""
    asked: list[str] = []
    monkeypatch.setattr(
        httpx.Client, "send", lambda _, request, **__: asked.append(str(request.url))
    )
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(str(address)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    login = {"base_url": "http://127.0.0.1:1", "api_key": "k"}
    client = NullspaceClient(**login)
    for name in LOCAL:
        [owner, *_] = [one for one in EVERYTHING[name] if not one.startswith("Async")]
        objects = {owner: object.__new__(walk.classes()[owner])}
        info = Sandbox.__new__(Sandbox)
        info._client = client
        if owner in ("Template", "TemplateBuild"):
            objects |= {"Template": Template.from_base_image()}
        with suppress(Exception):
            _bound(name, owner, objects, login, tmp_path)()
        assert not asked, f"{name} asked {asked}"
    client.close()


def test_commands_that_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that the page calls local ask no control plane, but perhaps whether it is there."""
    asked: list[str] = []
    monkeypatch.setattr(
        httpx.Client, "send", lambda _, request, **__: asked.append(request.url.path)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NULLSPACE_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("NULLSPACE_API_KEY", "k")
    known = dict(walk.commands())
    for words, (here, _) in COMMANDS.items():
        if here == "local" and words not in ("auth login", "doctor"):
            CliRunner().invoke(cli.main, [*words.split(" "), *walk.words_for(known[words], {})])
            assert not asked, f"{words} asked {asked}"


def test_a_deployment_connects_to_a_sandbox(handle: Sandbox, login: dict[str, Any]) -> None:
    """``connect_sandbox`` needs no deployment, only the id of a sandbox."""
    client = NullspaceClient(**login)
    deployment = walk.instances(handle, client)["AgentDeployment"]
    connected = deployment.connect_sandbox(handle.id)
    assert connected.id == handle.id and connected.is_running()
    connected.close()
    client.close()
