"""A visitor's view: what ``dev`` printed, and what a tab of the browser shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

PATIENCE = 30.0
"""Seconds until a page that does not come to what is waited for fails its test."""

# For every text that is shown: the contrast to what is behind it (WCAG 2.2, "contrast ratio").
CONTRASTS = """
    const rgb = (said) => said.match(/[\\d.]+/g).map(Number);
    const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = (el) => {
        const color = rgb(getComputedStyle(el).backgroundColor);
        return color.length === 4 && color[3] === 0 ? behind(el.parentElement) : color;
    };
    const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const el = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
        if (!text || !el.checkVisibility()) continue;
        const [one, two] = [rgb(getComputedStyle(el).color), behind(el)].map(light);
        found.push([text, (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05)]);
    }
    return found;
"""


class World:
    """What ``dev`` said at its start, and a client of its control plane."""

    def __init__(self, said: Mapping[str, str], api: httpx.Client) -> None:
        self.link = link = said["preview"]
        self.console, self.key = said["console"], said["API key"]
        self.api = api
        name = urlsplit(link).netloc.partition(".")[0]
        self.port = int(name.partition("-")[0])
        self.sandbox = name.partition("-")[2].replace("-", "_", 1)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the API, which must succeed."""
        answer = self.api.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def state(self, sandbox: str = "") -> str:
        """The state of a sandbox (of the demo, unless named). Asking does not wake it."""
        found = self.call("GET", f"/v1/sandboxes/{sandbox or self.sandbox}")
        return str(found["status"])

    def pause(self) -> None:
        """Pause the demo now, instead of leaving it alone for half a minute."""
        self.call("POST", f"/v1/sandboxes/{self.sandbox}/hibernate")

    def new_link(self, sandbox: str = "", port: int = 0) -> tuple[str, str]:
        """A link like the one ``dev`` prints, under a grant of its own, and the grant's id."""
        where = f"/v1/sandboxes/{sandbox or self.sandbox}/ports/{port or self.port}"
        made = self.call("POST", f"{where}/signed-preview-url", {})
        return f"{made['url']}#ws={quote(made['websocket_url'], safe='')}", made["grant"]["id"]


class Page:
    """What a visitor sees of the tab under test, and may do to it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Go there, by typing or by a click on a link."""
        self.driver.get(url)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.driver.execute_script(f"return {expression}")

    def text(self, selector: str = "body") -> str:
        """What stands there."""
        return self.driver.find_element("css selector", selector).text

    @property
    def count(self) -> int:
        """The counter on the demo page."""
        return int(self.text("#count"))

    @property
    def status(self) -> int:
        """HTTP status of the page itself."""
        return int(self.js("performance.getEntriesByType('navigation')[0].responseStatus"))

    def until(self, expression: str) -> Any:
        """Wait until an expression is true in the page, and return its value."""
        wait = WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05)
        return wait.until(lambda _: self.js(expression), f"never came true: {expression}")

    def until_state(self, state: str) -> None:
        """Wait for the demo page to be awake, quiet, asleep."""
        self.until(f"document.body.dataset.state === '{state}'")

    def press(self) -> None:
        """The demo page's button."""
        self.driver.find_element("id", "add").click()

    def look(self, *, width: int, scheme: str) -> None:
        """Be a screen of that width in CSS pixels, in a ``light`` or ``dark`` colour scheme."""
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        screen = {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def tree(self) -> list[tuple[str, str, dict[str, Any]]]:
        """What a screen reader is told: role, name, properties of each node that it does not ignore."""
        nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        return [
            (
                node["role"]["value"],
                node.get("name", {}).get("value", ""),
                {item["name"]: item["value"].get("value") for item in node.get("properties", ())},
            )
            for node in nodes
            if not node["ignored"]
        ]
