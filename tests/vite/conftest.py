"""A real Vite in a sandbox, a real browser, and an edge that lets pages' own cookies open WebSockets."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from tests.browser.driver import browser
from tests.examples import world as worlds
from tests.examples.world import Sandbox, World
from tests.npm import installed
from tests.vite.page import SPY, Page

HERE = Path(__file__).parent
FILES = {
    "index.html": """<!doctype html>
        <title>Hot</title><h1></h1><script type="module" src="/main.js"></script>""",
    "main.js": """
        import { text } from "./part.js";
        const show = (text) => { document.querySelector("h1").textContent = text; };
        show(text);
        import.meta.hot.accept("./part.js", (part) => show(part.text));
    """,
    "part.js": 'export const text = "first";',
}


@pytest.fixture(scope="session")
def vite() -> str:
    """The program of the version that ``package-lock.json`` fixes."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is missing")  # which the marker has seen to, where none may be
    try:
        return str(installed(HERE) / "vite" / "bin" / "vite.js")
    except subprocess.CalledProcessError as e:
        reason = f"npm could not install Vite: {e.stderr.decode(errors='replace')}"
        if os.environ.get("CI_REQUIRE_ALL") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Edge and control plane."""
    allowed = {"PREVIEW_EDGE_WEBSOCKET_CONTINUATION": "same_origin"}
    with worlds.world(tmp_path_factory.mktemp("world"), **allowed) as running:
        yield running


@pytest.fixture
def sandbox(world: World, vite: str) -> Iterator[Sandbox]:
    """With a page whose heading comes from ``part.js``, served by Vite, which hears of its own name in ``Host``."""
    command = ("node", vite, "--host", "127.0.0.1", "--port", "{port}", "--strictPort")
    mask = {"mask_request_host": "localhost:${PORT}"}
    with world.sandbox(*command, files=FILES, network=mask) as made:
        yield made


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """For which every host of these tests is this machine."""
    everything_here = "--host-resolver-rules=MAP *.test 127.0.0.1"
    with browser(tmp_path_factory.mktemp("chromium"), everything_here) as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SPY})
        yield driver


@pytest.fixture
def page(chromium: webdriver.Chrome) -> Iterator[Page]:
    """A visitor who was never here."""
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    yield Page(chromium)
    chromium.get("about:blank")  # or Vite's page would go on looking for its server
