"""Hot reload of a Vite in a sandbox: behind a customer's nginx, and in a direct preview by the page's own cookie."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.examples.proxies import PATIENCE, nginx
from tests.examples.world import Sandbox
from tests.vite.page import CONNECTED, Page

pytestmark = pytest.mark.needs_tool("chromium", "chromedriver", "nginx", "envsubst", "node", "npm")


def test_hot_reload_behind_a_customers_proxy(page: Page, sandbox: Sandbox, tmp_path: Path) -> None:
    """On the customer's host, in proxy mode, before and after a pause."""
    with nginx(tmp_path / "proxy", sandbox.environ()) as proxy:
        page.open(f"http://{proxy.host}/")
        hot_reload(page, sandbox)
        assert page.driver.get_cookies() == []


def test_hot_reload_in_a_direct_preview(page: Page, sandbox: Sandbox) -> None:
    """By a link, whose cookie opens the page's own WebSocket where ``same_origin`` is set; before and after a pause."""
    page.open(sandbox.link())
    hot_reload(page, sandbox)
    (cookie,) = page.driver.get_cookies()
    assert cookie["name"] == "ns_preview"


def hot_reload(page: Page, sandbox: Sandbox) -> None:
    """A file that is edited is replaced in the page that is open; after a pause again."""
    page.until_heading("first")
    edited(page, sandbox, "second")
    wakes = sandbox.wakes
    # Vite's client misses its server, asks for it until it is there again, and then loads the page anew.
    sandbox.call("POST", "/hibernate")
    page.until(f"window.marker === undefined && {CONNECTED}")
    page.until_heading("second")
    assert (sandbox.state, sandbox.wakes) == ("running", wakes + 1)
    edited(page, sandbox, "third")


def edited(page: Page, sandbox: Sandbox, text: str) -> None:
    """The new text comes over the page's WebSocket, and the page is still the same one."""
    page.js("void (window.marker = 'kept')")
    sandbox.write("part.js", f'export const text = "{text}";')
    page.until_heading(text)
    assert page.js("window.marker") == "kept"
    assert page.sockets_lead_to == {page.js("location.host")}


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://{host}", 101),
        (None, 401),
        ("null", 401),
        ("https://{host}", 401),
        ("http://evil.test", 401),
        ("http://{sibling}", 401),
    ],
)
def test_the_cookie_opens_sockets_of_its_own_origin_alone(
    sandbox: Sandbox, origin: str | None, status: int
) -> None:
    """Vite lets its own page in; a page of anywhere else gets the edge's refusal, though its cookie is good."""
    link = urlsplit(sandbox.link())
    host, port = link.netloc, urlsplit(sandbox.world.edge).port
    with httpx.Client(headers={"Host": host}, timeout=PATIENCE) as browser:
        first = browser.get(f"{sandbox.world.edge}/?{link.query}")
    cookie = first.headers["set-cookie"].partition(";")[0]
    fields: dict[str, Any] = {"Cookie": cookie}
    if origin is not None:
        fields["Origin"] = origin.format(host=host, sibling=f"1{host}")
    with closing(socket.create_connection(("127.0.0.1", port), PATIENCE)) as plain:
        how: dict[str, Any] = {"sock": plain, "proxy": None, "additional_headers": fields}
        if status == 101:
            with connect(f"ws://{host}/", subprotocols=["vite-ping"], **how) as opened:
                assert opened.subprotocol == "vite-ping"
            return
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{host}/", subprotocols=["vite-ping"], **how)
        response = refused.value.response
        assert response.status_code == status
        assert json.loads(response.body)["code"] == "edge_token_missing"
