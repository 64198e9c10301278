"""A real browser in front of a real ``preview-edge dev``, both started once for all tests of this folder.

The tests of error pages put it in front of a stage (``tests/flows/stage.py``) instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium import webdriver

from tests.browser.driver import browser
from tests.browser.visit import PATIENCE, Page, World
from tests.development import development

# Runs in every page before the page's own scripts, so that nothing it does goes unseen.
SPY = """
    window.opened = 0;
    window.WebSocket = class extends WebSocket {
        constructor(...given) { super(...given); window.opened += 1; }
    };
    window.states = [];
    new MutationObserver(() => {
        const state = document.body?.dataset.state;
        if (state && state !== window.states.at(-1)) window.states.push(state);
    }).observe(document, { subtree: true, childList: true, attributeFilter: ["data-state"] });
"""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """``preview-edge dev`` on free ports, with a data directory of its own."""
    with development(tmp_path_factory.mktemp("dev")) as said:
        key = {"Authorization": f"Bearer {said['API key']}"}
        with httpx.Client(base_url=said["API"], headers=key, timeout=PATIENCE) as api:
            yield World(said, api)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all."""
    with browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def scriptless(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A Chromium whose user has switched JavaScript off."""
    with browser(tmp_path / "chromium", scripts=False) as driver:
        yield driver


@pytest.fixture
def page(chromium: webdriver.Chrome) -> Iterator[Page]:
    """A visitor who was never here: a new tab, and no cookies."""
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    chromium.maximize_window()
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SPY})
    yield Page(chromium)
    chromium.close()
    chromium.switch_to.window(first)
