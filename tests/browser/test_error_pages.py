"""The error pages in a real browser: each kind looks right, is alone, and leads back to the app."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from selenium import webdriver

from edge.core.records import GrantStatus, State
from tests.browser.visit import CONTRASTS, PATIENCE, Page
from tests.flows.scriptedapp import AppConnection
from tests.flows.scripts import Call, refusal
from tests.flows.stage import PORT, Preview, Stage

pytestmark = [
    pytest.mark.needs_tool("chromium", "chromedriver"),
    pytest.mark.may_block("a browser starts, and is waited for outside the loop"),
]

PATH = "/a/b?x=1&y=%20z"
FRAGMENT = "#/part?of=app"
STRICTER: dict[str, dict[str, Any]] = {
    "preview_overloaded": {"admission": {"in_flight_per_sandbox": 1}},
    "preview_upstream_timeout": {"deadlines": {"first_byte": 0.2}},
}
WAITING = {"The sandbox is waking up", f"Nothing listens on port {PORT}"}
"""What a page says about an app that does not listen yet: in the window of a wake, and after it."""
STILL = "window.setTimeout = () => 0;"
"""Keeps a page that tries again from doing so while it is looked at."""
AT_ONCE = "window.setTimeout = (then) => then();"
"""Makes its five seconds pass at once."""


async def the_app(connection: AppConnection) -> None:
    """A page that shows what it was asked for."""
    while head := await connection.read_head():
        line = head.split(b"\r\n")[0].decode()
        await connection.answer(
            f"<!doctype html><title>The app</title><h1>{line}</h1>".encode(),
            fields=b"Content-Type: text/html\r\n",
        )


async def hangs_up(connection: AppConnection) -> None:
    """Reads the request and closes."""
    await connection.read_head()


async def talks_nonsense(connection: AppConnection) -> None:
    """Answers what is no HTTP."""
    await connection.read_head()
    await connection.send(b"\x15\x03\x01\x00\x02\x02\x46 not HTTP\r\n\r\n")


async def falls_silent(connection: AppConnection) -> None:
    """Takes the request and never answers."""
    await connection.read_head()
    await connection.read_to_end()


@pytest.fixture
async def stage(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """An edge that is seen by plain HTTP and soon gives up on sandboxes; more so where a kind asks for it."""
    settings: dict[str, Any] = {
        "public_scheme": "http",
        "wake": {"window": 0.5, "refused_retry": 0.01},
    }
    callspec = getattr(request.node, "callspec", None)
    settings |= STRICTER.get(callspec.params.get("code", ""), {}) if callspec else {}
    stage = Stage(tmp_path, **settings)
    # Browsers find that without being told, and trust it as they trust https.
    stage.mint.site = "preview.localhost"
    async with stage:
        yield stage


def address(box: Preview, token: str | None = None, path: str = PATH) -> str:
    """What stands in the browser's address bar; ``token=""`` leaves the token out."""
    token = box.token() if token is None else token
    query = f"&edge_token={token}" if token else ""
    return f"http://{box.host}:{box.stage.edge.port}{path}{query}{FRAGMENT}"


# --- The kinds: how each comes about, and the address that shows it -----------------------------------

Kind = Callable[[Stage], Awaitable[str]]


def link(change: Callable[[Preview], str]) -> Kind:
    """A link to a running sandbox, changed so that it does not let anybody in."""

    async def kind(stage: Stage) -> str:
        box = stage.sandbox(await stage.app(the_app))
        return address(box, change(box))

    return kind


def grant(status: GrantStatus) -> Kind:
    """A good link whose grant came to this."""

    async def kind(stage: Stage) -> str:
        box = stage.sandbox(await stage.app(the_app))
        await stage.heard(stage.plane.change_grant(box.grant, status=status))
        return address(box)

    return kind


def app(handler: Callable[[AppConnection], Awaitable[None]]) -> Kind:
    """A running sandbox whose app misbehaves like this."""

    async def kind(stage: Stage) -> str:
        return address(stage.sandbox(await stage.app(handler)))

    return kind


def sandbox(state: State, *, listening: bool = False, **fields: Any) -> Kind:
    """A sandbox in that state; nobody listens on its port unless ``listening``."""

    async def kind(stage: Stage) -> str:
        silent = await stage.app(the_app, listening=listening)
        return address(stage.sandbox(silent, state, **fields))

    return kind


async def slow_to_wake(stage: Stage) -> str:
    """Paused, and its resume takes longer than anybody waits."""

    async def hangs(_: Call) -> web.StreamResponse:
        return await asyncio.Future()

    stage.plane.on_resume = hangs
    return await sandbox(State.PAUSED)(stage)


async def no_control_plane(stage: Stage) -> str:
    """Whoever knows about sandboxes is out of order."""

    async def broken(_: Call) -> web.StreamResponse:
        return refusal(500, "internal")

    stage.plane.fault = broken
    return address(stage.preview("sb_unknown0000"))


async def overloaded(stage: Stage) -> str:
    """The one request that the sandbox may have under way is under way."""

    async def busy(connection: AppConnection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await connection.read_to_end()

    held = await stage.app(busy)
    box = stage.sandbox(held)
    client = await stage.client()
    stage._cleanup.callback(client.close)
    await client.send(box.get())
    await held.until(lambda: bool(held.requests))
    return address(box)


async def unknown_sandbox(stage: Stage) -> str:
    """A good link to what was never there."""
    return address(stage.preview("sb_gone00000000"))


async def unknown_host(stage: Stage) -> str:
    """The site's name without a sandbox's."""
    return f"http://www.{stage.mint.site}:{stage.edge.port}{PATH}"


async def reserved_port(stage: Stage) -> str:
    """SSH's port."""
    box = stage.sandbox(await stage.app(the_app))
    return address(box).replace(f"//{PORT}-", "//22-")


KINDS: dict[str, tuple[int, Kind]] = {
    "sandbox_resume_timeout": (503, slow_to_wake),
    "control_plane_unavailable": (503, no_control_plane),
    "preview_overloaded": (503, overloaded),
    "sandbox_not_ready": (503, sandbox(State.CREATING)),
    "sandbox_paused_auto_resume_disabled": (503, sandbox(State.PAUSED, auto_resume=False)),
    "sandbox_error": (503, sandbox(State.ERROR)),
    "preview_service_not_ready": (502, sandbox(State.RUNNING)),
    "preview_upstream_closed": (502, app(hangs_up)),
    "preview_upstream_invalid": (502, app(talks_nonsense)),
    "preview_upstream_timeout": (504, app(falls_silent)),
    "edge_token_missing": (401, link(lambda _: "")),
    "edge_token_invalid": (401, link(lambda _: "garbage")),
    "edge_token_expired": (401, link(lambda box: box.token(exp=time.time() - 60))),
    "edge_token_scope_mismatch": (403, link(lambda box: box.token(port=PORT + 1))),
    "preview_grant_revoked": (401, grant(GrantStatus.REVOKED)),
    "preview_grant_disabled": (403, grant(GrantStatus.DISABLED)),
    "preview_sandbox_disabled": (
        403,
        sandbox(State.RUNNING, listening=True, previews_disabled=True),
    ),
    "traffic_access_token_missing": (
        401,
        sandbox(State.RUNNING, listening=True, traffic_token_sha256="0" * 64),
    ),
    "sandbox_not_found": (404, unknown_sandbox),
    "preview_host_unknown": (404, unknown_host),
    "unsupported_preview_port": (400, reserved_port),
}


def asked_for(page: Page) -> set[str]:
    """The addresses, without fragments, that the tab has asked for since the last look."""
    messages = [
        json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")
    ]
    sent = (m["params"] for m in messages if m["method"] == "Network.requestWillBeSent")
    return {params["request"]["url"] for params in sent}


def look_at(page: Page, url: str, code: str, status: int) -> None:
    """One kind of page, on every screen and in both colour schemes."""
    page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": STILL})
    for width, scheme in ((1000, "light"), (1000, "dark"), (360, "light"), (320, "dark")):
        page.look(width=width, scheme=scheme)
        page.driver.get_log("browser"), page.driver.get_log("performance")
        page.open("about:blank")
        page.open(url)
        assert (page.status, page.js("document.contentType")) == (status, "text/html")
        assert code in page.text("dl") and page.driver.current_url == url
        assert {u for u in asked_for(page) if urlsplit(u).scheme in ("http", "https")} == {
            url.partition("#")[0]
        }
        said = [entry["message"] for entry in page.driver.get_log("browser")]
        assert all(f"the server responded with a status of {status}" in line for line in said)
        seen, whole = page.js(
            "['clientWidth', 'scrollWidth'].map((name) => document.documentElement[name])"
        )
        assert whole <= seen <= width
        low = [found for found in page.driver.execute_script(CONTRASTS) if found[1] < 4.5]
        assert not low, (scheme, low)
        assert page.js("document.querySelector('#again')?.offsetHeight ?? 44") >= 40


def listen_to(page: Page) -> None:
    """The page on show, as a screen reader has it."""
    tree = page.tree()
    title = page.driver.title
    headings = [(name, properties["level"]) for role, name, properties in tree if role == "heading"]
    assert headings == [(title, 1)]
    roles = [role for role, _, _ in tree]
    assert roles.count("main") == 1 and "image" not in roles
    assert page.js("document.documentElement.lang") == "en"
    alone = page.js("'seconds' in document.body.dataset")
    assert roles.count("status") == int(alone)
    if "link" in roles:
        (name,) = (name for role, name, _ in tree if role == "link")
        assert name == ("Try again now" if alone else "Try again")


def watch(page: Page) -> None:
    """Nothing moves for whom that disturbs."""
    alone = page.js("'seconds' in document.body.dataset")
    for wish, moving in (("reduce", 0), ("no-preference", int(alone))):
        media = [{"name": "prefers-reduced-motion", "value": wish}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        assert page.js("document.getAnimations().length") == moving


@pytest.mark.parametrize("code", KINDS)
async def test_each_kind_is_a_page_for_everybody(stage: Stage, page: Page, code: str) -> None:
    """Light, dark and narrow; read aloud and without motion; alone, and without a complaint."""
    status, kind = KINDS[code]
    url = await kind(stage)

    def visit() -> None:
        look_at(page, url, code, status)
        listen_to(page)
        watch(page)

    await asyncio.to_thread(visit)


EMBEDS = """
    const [other, done] = arguments;
    const load = (name, attributes) => new Promise((settled) => {
        const element = document.createElement(name);
        element.onload = element.onerror = settled;
        document.head.append(Object.assign(element, attributes));
    });
    Promise.all([
        fetch("/fetch"),
        fetch("/html", { headers: { Accept: "text/html" } }),
        load("script", { src: "/script" }),
        load("script", { src: "/module", type: "module" }),
        load("link", { rel: "stylesheet", href: "/style" }),
        load("img", { src: "/image" }),
        load("img", { src: other + "/far-image" }),
        load("script", { src: other + "/far-script" }),
        load("iframe", { src: "/frame" }),
    ]).then(() => done());
"""
EMBEDDED = "/fetch /html /script /module /style /image /far-image /far-script".split()
"""What pages ask for by themselves, of the preview they belong to and of another, besides a frame."""


async def test_what_a_page_embeds_gets_json(stage: Stage, page: Page) -> None:
    """Fetches, scripts, styles and images, whose link was withdrawn meanwhile; a frame is for people again."""
    box, other = [stage.sandbox(await stage.app(the_app)) for _ in range(2)]
    place = f"http://{box.host}:{stage.edge.port}"

    def visit() -> None:
        page.open(address(box))
        page.until("document.title === 'The app'")

    def embed() -> dict[str, tuple[int, str]]:
        """Status and type of what came for each path, also where the browser keeps it from the page."""
        page.driver.get_log("performance")
        page.driver.execute_async_script(EMBEDS, place.replace(box.host, other.host))
        paths: dict[str, str] = {}
        got: dict[str, tuple[int, str]] = {}
        end = time.monotonic() + PATIENCE
        while len(got) < len(EMBEDDED) + 1 and time.monotonic() < end:
            for entry in page.driver.get_log("performance"):
                message = json.loads(entry["message"])["message"]
                said = message["params"]
                if message["method"] == "Network.requestWillBeSent":
                    paths[said["requestId"]] = urlsplit(said["request"]["url"]).path
                elif message["method"] == "Network.responseReceivedExtraInfo":
                    got[said["requestId"]] = said["statusCode"], said["headers"]["Content-Type"]
        return {paths[number]: answer for number, answer in got.items()}

    await asyncio.to_thread(visit)
    await stage.heard(stage.plane.change_grant(box.grant, status=GrantStatus.REVOKED))
    got = await asyncio.to_thread(embed)
    assert got.pop("/frame") == (401, "text/html; charset=utf-8")
    assert got == dict.fromkeys(EMBEDDED, (401, "application/json"))


# --- The way back to the app --------------------------------------------------------------------------


def until_the_app(driver: webdriver.Chrome) -> None:
    """Wait for the app's own page."""
    Page(driver).until("document.title === 'The app'")


async def test_a_page_that_waits_ends_in_the_app(stage: Stage, page: Page) -> None:
    """By itself, at the very address that was opened, fragment and all, after one wake."""
    late = await stage.app(the_app, listening=False)
    box = stage.sandbox(late, State.PAUSED)
    url = address(box)
    await asyncio.to_thread(page.open, url)
    assert page.driver.title in WAITING
    await late.listen()
    await asyncio.to_thread(until_the_app, page.driver)
    assert page.driver.current_url == url
    assert page.text("h1") == f"GET {PATH} HTTP/1.1"
    assert stage.plane.incarnations[box.id] == 1


async def test_it_does_without_scripts(stage: Stage, scriptless: webdriver.Chrome) -> None:
    """By a refresh. It loses the fragment, because Chromium never refreshes an address that has one."""
    late = await stage.app(the_app, listening=False)
    box = stage.sandbox(late, State.PAUSED)
    url = address(box)
    await asyncio.to_thread(scriptless.get, url)
    assert scriptless.title in WAITING
    assert scriptless.current_url == url
    await late.listen()

    def wait() -> None:
        end = time.monotonic() + PATIENCE
        while scriptless.title != "The app":
            assert time.monotonic() < end, scriptless.title
            time.sleep(0.05)

    await asyncio.to_thread(wait)
    assert scriptless.current_url == url.partition("#")[0]
    assert stage.plane.incarnations[box.id] == 1
    assert late.requests[0].startswith(f"GET {PATH} HTTP/1.1\r\n".encode())


async def test_a_hidden_page_waits_for_its_visitor(stage: Stage, page: Page) -> None:
    """A forgotten tab wakes nothing and keeps nothing awake; whoever comes back to it sees the app."""
    late = await stage.app(the_app, listening=False)
    box = stage.sandbox(late, State.PAUSED)
    page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": AT_ONCE})

    def hidden() -> None:
        page.driver.minimize_window()
        page.until("document.visibilityState === 'hidden'")
        page.open(address(box))
        page.js("document.dispatchEvent(new Event('visibilitychange'))")
        assert page.js("document.visibilityState") == "hidden"
        assert page.text("h1") == "The sandbox is waking up"
        # A page that tries says so before it does.
        assert page.js("document.getElementById('state').textContent").startswith("Tries again")

    await asyncio.to_thread(hidden)
    await late.listen()
    assert late.requests == []

    def back() -> None:
        page.driver.maximize_window()
        until_the_app(page.driver)

    await asyncio.to_thread(back)
    assert stage.plane.incarnations[box.id] == 1


async def test_the_link_keeps_the_address(stage: Stage, page: Page) -> None:
    """Where a page does not try by itself, a press does, once the sandbox has been resumed."""
    box = stage.sandbox(await stage.app(the_app), State.PAUSED, auto_resume=False)
    url = address(box)
    await asyncio.to_thread(page.open, url)
    assert page.text("h1") == "This sandbox is paused"
    await stage.heard(stage.plane.begin_incarnation(box.id))

    def press() -> None:
        page.driver.find_element("id", "again").click()
        until_the_app(page.driver)

    await asyncio.to_thread(press)
    assert page.driver.current_url == url


async def test_a_form_is_not_sent_again(stage: Stage, page: Page) -> None:
    """The answer to a POST neither reloads nor links; a reload by hand is asked for by the browser."""
    box = stage.sandbox(await stage.app(the_app, listening=False))
    form = f'<form method=post action="{address(box)}"><input name=a value=b><button>Go</button></form>'

    def send() -> None:
        page.open("about:blank")
        page.js(f"document.body.innerHTML = {json.dumps(form)}")
        page.driver.find_element("css selector", "button").click()
        page.until("document.querySelector('h1') !== null")
        assert page.text("h1") == f"Nothing listens on port {PORT}"
        assert "has sent a form" in page.text("main")
        assert not page.driver.find_elements("css selector", "a, script, noscript")

    await asyncio.to_thread(send)


@pytest.mark.parametrize("isolated", [b"", b"Cross-Origin-Embedder-Policy: require-corp\r\n"])
async def test_a_page_shows_in_a_frame(stage: Stage, page: Page, isolated: bytes) -> None:
    """Tools frame previews, some of them from pages that embed only what allows it."""
    box = stage.sandbox(await stage.app(the_app), State.PAUSED, auto_resume=False)

    async def tool(connection: AppConnection) -> None:
        while await connection.read_head():
            frame = f'<!doctype html><title>Tool</title><iframe src="{address(box)}"></iframe>'
            await connection.answer(
                frame.encode(), fields=b"Content-Type: text/html\r\n" + isolated
            )

    port = (await stage.app(tool)).port

    def visit() -> None:
        page.open(f"http://127.0.0.1:{port}/")
        page.driver.switch_to.frame(page.driver.find_element("css selector", "iframe"))
        assert page.text("h1") == "This sandbox is paused"
        page.driver.switch_to.default_content()

    await asyncio.to_thread(visit)
