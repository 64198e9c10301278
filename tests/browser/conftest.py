"""A real browser in front of a real ``preview-edge dev``, both started once for all tests of this folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.browser.visit import PATIENCE, Page, World

ROOT = Path(__file__).parents[2]
KEY = "nsk_browser_test"
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
    folder = tmp_path_factory.mktemp("dev")
    ports = ("--api-port", "0", "--edge-port", "0", "--admin-port", "0")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NULLSPACE_", "PREVIEW_"))}
    with (folder / "stderr").open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "edge", "dev", *ports, "--data-dir", str(folder / "data")],
            cwd=ROOT,
            env=kept | {"NULLSPACE_API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert child.stdout is not None
    said = ""
    for line in child.stdout:
        said += line
        if line.startswith("Commands in sandboxes run as you"):
            break
    rows = dict(re.findall(r"^  (\w+) +(\S+)$", said, re.MULTILINE))
    assert "preview" in rows, f"dev did not start: {said}{(folder / 'stderr').read_text()}"
    key = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=rows["API"], headers=key, timeout=PATIENCE) as api:
        yield World(rows["preview"], api)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0, (folder / "stderr").read_text()
    child.stdout.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium with a profile of its own."""
    options = webdriver.ChromeOptions()
    # Named, so that nothing is looked for, let alone fetched.
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_script_timeout(PATIENCE)
    driver.set_page_load_timeout(PATIENCE)
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
