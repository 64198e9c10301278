"""The operator's client: where it finds the control plane, what it asks, and every way that can fail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.appliance.server import ControlPlane
from edge.commands.operator import (
    FILE_NAME,
    TOKEN_VARIABLE,
    URL_VARIABLE,
    Door,
    Operator,
    OperatorError,
    find,
    kept,
)
from edge.commands.screen import base_url
from tests.commands.operated import TOKEN, control_plane, in_thread
from tests.commands.operated import door as door_of
from tests.commands.operated import grant as grant_of


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """A real control plane."""
    async with control_plane(tmp_path) as one:
        yield one


async def test_switches_and_the_trail(plane: ControlPlane) -> None:
    """Each call does what it says at the control plane, and the trail tells of it, filtered."""
    sandbox, grant = await grant_of(plane)
    operator = Operator(door_of(plane))
    view = await in_thread(operator.switch_grant, grant, enable=False, reason="why")
    assert (view["id"], view["status"]) == (grant, "disabled")
    view = await in_thread(operator.switch_grant, grant, enable=True, reason=None)
    assert view["status"] == "active"
    for enable in (False, True):
        view = await in_thread(operator.switch_previews, sandbox, enable=enable, reason=None)
        assert view == {"sandbox_id": sandbox, "previews_disabled": not enable}
    events = await in_thread(operator.audit, grant_id=grant, actor="operator", limit=10)
    assert [(event["event"], event.get("reason")) for event in events] == [
        ("enabled", None),
        ("disabled", "why"),
    ]
    assert await in_thread(operator.audit, from_="2999-01-01T00:00:00Z") == []


async def test_what_the_control_plane_refuses(plane: ControlPlane) -> None:
    """Its words come through, and a name cannot reach another address."""
    operator = Operator(door_of(plane))
    for name in ("pvg_unknown", "../x", "a?b#c", "\u2603"):
        with pytest.raises(OperatorError, match="preview_grant_not_found: There is no"):
            await in_thread(operator.switch_grant, name, enable=True, reason=None)
    with pytest.raises(OperatorError, match=r"^invalid_request: to: .*Z\. Correct the request"):
        await in_thread(operator.audit, to="yesterday")
    with pytest.raises(OperatorError, match="token is not accepted") as refused:
        await in_thread(Operator(door_of(plane, "wrong-secret")).audit)
    assert "wrong-secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x", "http://x:port", "http://[::1"])
def test_addresses_that_are_none(url: str) -> None:
    """One line, no traceback."""
    with pytest.raises(OperatorError, match="not an address such as"):
        Operator(Door(url, TOKEN)).audit()


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"SSH-2.0\r\n"]
)
async def test_something_else_listens_there(said: bytes) -> None:
    """Neither another web server nor another protocol is taken for a control plane."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OperatorError, match="is no control plane"):
            await in_thread(Operator(Door(f"http://127.0.0.1:{port}", TOKEN)).audit)


def test_nobody_listens_there() -> None:
    """A control plane that has ended."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        door = Door(base_url("127.0.0.1", held.getsockname()[1]), TOKEN)
        with pytest.raises(OperatorError, match="no answer from the control plane at"):
            Operator(door).audit()


def test_where_the_control_plane_is(tmp_path: Path) -> None:
    """The environment goes before the file; the file is private and is gone afterwards."""
    named = {URL_VARIABLE: "http://a", TOKEN_VARIABLE: "t"}
    assert find(named, tmp_path) == Door("http://a", "t")
    assert "secret" not in repr(Door("http://a", "secret"))
    for one in named:
        with pytest.raises(OperatorError, match="or neither"):
            find({one: "x"}, tmp_path)
    with kept(tmp_path, Door("http://b", "u")):
        assert find({}, tmp_path) == Door("http://b", "u")
        assert find(named, tmp_path).url == "http://a"
        assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
        with kept(tmp_path, Door("http://c", "v")):
            assert find({}, tmp_path) == Door("http://c", "v")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OperatorError, match="no `preview-edge dev` runs there"):
        find({}, tmp_path)
    for text in ("", "[]", '{"url": "x"}'):
        (tmp_path / FILE_NAME).write_text(text)
        with pytest.raises(OperatorError, match="cannot be read"):
            find({}, tmp_path)
