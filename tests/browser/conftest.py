"""A real browser in front of a real ``preview-edge dev``, both started once for all tests of this folder.

The tests of error pages put it in front of a stage (``tests/flows/stage.py``) instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.browser.visit import PATIENCE, Page, World
from tests.development import development

FLAGS = """
--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update --disable-dev-shm-usage --window-size=1000,800
""".split()

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
            yield World(said["preview"], api)


def start(profile: Path, *, scripts: bool = True) -> webdriver.Chrome:
    """A Chromium with a profile of its own that tells what it asks for and what it complains of."""
    options = webdriver.ChromeOptions()
    # Named, so that nothing is looked for, let alone fetched.
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if not scripts:
        off = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", off)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_script_timeout(PATIENCE)
    driver.set_page_load_timeout(PATIENCE)
    return driver


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all."""
    driver = start(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture
def scriptless(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A Chromium whose user has switched JavaScript off."""
    driver = start(tmp_path / "chromium", scripts=False)
    yield driver
    driver.quit()


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
