"""What a developer sees of the tab in which Vite's page is open."""

from __future__ import annotations

from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser.visit import PATIENCE

# Before the page's own scripts. Vite's client tries `localhost:PORT` when the page's host does not let it in, and
# where sandbox and browser are one machine that works; so it is remembered where its sockets lead.
SPY = """
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(...given) { super(...given); window.sockets.push(this); }
    };
"""
CONNECTED = "window.sockets.some((one) => one.protocol === 'vite-hmr' && one.readyState === 1)"


class Page:
    """The tab."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Go there, and wait until Vite's client is connected."""
        self.driver.get(url)
        self.until(CONNECTED)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.driver.execute_script(f"return {expression}")

    def until(self, expression: str) -> None:
        """Wait until an expression is true in the page, which may be loaded anew meanwhile."""
        wait = WebDriverWait(
            self.driver, PATIENCE, poll_frequency=0.05, ignored_exceptions=[WebDriverException]
        )
        wait.until(lambda _: self.js(expression), f"never came true: {expression}")

    def until_heading(self, text: str) -> None:
        """Wait until that is what the page says."""
        self.until(f"document.querySelector('h1').textContent === '{text}'")

    @property
    def sockets_lead_to(self) -> set[str]:
        """The hosts of all WebSockets since the page was loaded."""
        return set(self.js("window.sockets.map((one) => new URL(one.url).host)"))
