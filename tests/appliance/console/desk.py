"""Somebody at the console: a browser as far as HTTP goes, with its one cookie."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

from service import KEY, Service

CONSOLE = "/console"


class Page(HTMLParser):
    """A page as a browser understands it: its elements, and the text outside of them."""

    def __init__(self, answer: Any, body: bytes) -> None:
        super().__init__()
        self.status: int = answer.status
        self.headers = answer.headers
        self.html = body.decode()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of this name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def value(self, element_id: str) -> str:
        """What an input of this id holds."""
        found = [a for _, a in self.elements if a.get("id") == element_id]
        return str(found[0]["value"])

    @property
    def token(self) -> str:
        """What makes a form of this page one of the session."""
        return next(str(a["value"]) for a in self.all("input") if a.get("name") == "token")

    @property
    def location(self) -> str:
        """Where it leads on to."""
        return str(self.headers["Location"])


class Desk:
    """One browser. ``token`` is that of the newest page with a form."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.cookie = ""
        self.token = ""

    @property
    def origin(self) -> str:
        """The console's own."""
        return f"http://127.0.0.1:{self.service.plane.port}"

    async def get(self, path: str = "", **headers: str) -> Page:
        """A page below the console's path."""
        return await self._ask("GET", path, headers={"Sec-Fetch-Site": "none"} | headers)

    async def post(self, path: str, form: dict[str, str] | None = None, **headers: str) -> Page:
        """A form of the newest page, sent as a browser does it. An empty header is not sent."""
        own = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"} | headers
        own["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode({"token": self.token} | (form or {}))
        return await self._ask("POST", path, data=body, headers=own)

    async def log_in(self, key: str = KEY) -> Page:
        """Give the key; then look at the first page."""
        answer = await self.post("/login", {"key": key})
        if answer.status == 303:
            await self.get()
        return answer

    async def _ask(self, method: str, path: str, headers: dict[str, str], **more: Any) -> Page:
        if self.cookie:
            headers = {"Cookie": self.cookie} | headers
        sent = {name: value for name, value in headers.items() if value}
        answer, body = await self.service.raw(method, CONSOLE + path, headers=sent, **more)
        for line in answer.headers.getall("Set-Cookie", []):
            (morsel,) = SimpleCookie(line).values()
            self.cookie = f"{morsel.key}={morsel.value}" if morsel.value else ""
        page = Page(answer, body)
        if any(a.get("name") == "token" for a in page.all("input")):
            self.token = page.token
        return page


def ids(html: str) -> set[str]:
    """Every sandbox a page names."""
    return set(re.findall(r"sb_[a-z0-9]{8,40}", html))
