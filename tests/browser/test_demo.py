"""The demo page in a real browser: what a newcomer sees of a sandbox that sleeps and wakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.ports import free_port
from edge.appliance import demo
from tests.browser.visit import Page, World

pytestmark = pytest.mark.needs_tool("chromium", "chromedriver")


def test_the_link_shows_the_counter_and_a_ticking_clock(world: World, page: Page) -> None:
    """One click is enough: the page by the token, its clock by a WebSocket, a cookie for the rest."""
    page.open(world.link)
    assert (page.status, page.text("h1")) == (200, "A sandbox that sleeps")
    assert page.count >= 1
    page.until_state("awake")
    assert page.text("#state") == "Awake"
    shown = page.until("/^\\d\\d:\\d\\d:\\d\\d$/.exec($('clock').textContent)")[0]
    page.until(f"$('clock').textContent !== '{shown}'")
    (cookie,) = page.driver.get_cookies()
    assert (cookie["name"], cookie["path"], cookie["sameSite"]) == ("ns_preview", "/", "Lax")
    assert cookie["httpOnly"] and page.js("document.cookie") == ""


def test_a_pause_closes_the_socket_and_the_next_visit_goes_on(world: World, page: Page) -> None:
    """The page says that the sandbox sleeps and lets it; a reload, or the bare address, wakes it."""
    page.open(world.link)
    page.until_state("awake")
    count = page.count
    world.pause()
    page.until_state("asleep")
    assert page.text("#state") == "Asleep; press the button to wake it"
    assert (world.state(), page.js("window.opened")) == ("paused", 1)
    page.driver.refresh()
    assert page.count == count + 1
    page.until_state("awake")
    assert world.state() == "running"
    world.pause()
    page.until_state("asleep")
    # Without the token, which the cookie stands for; without the fragment, which the tab remembers.
    page.open(world.link.partition("?")[0])
    assert page.count == count + 2
    page.until_state("awake")


def test_the_button_wakes(world: World, page: Page) -> None:
    """A POST by script, authorised by the cookie, wakes the sandbox and brings the clock back."""
    page.open(world.link)
    page.until_state("awake")
    count = page.count
    world.pause()
    page.until_state("asleep")
    page.press()
    page.until(f"$('count').textContent === '{count + 1}'")
    page.until_state("awake")
    assert (world.state(), page.js("window.opened")) == ("running", 2)


def test_a_hidden_page_lets_the_sandbox_sleep(world: World, page: Page) -> None:
    """A forgotten tab opens no socket and so wakes nothing; coming back to it does."""
    page.open(world.link)
    page.until_state("awake")
    page.driver.minimize_window()
    page.until("document.visibilityState === 'hidden'")
    world.pause()
    page.until_state("asleep")
    page.js("document.dispatchEvent(new Event('visibilitychange'))")
    assert (world.state(), page.js("window.opened")) == ("paused", 1)
    page.driver.maximize_window()
    page.until_state("awake")
    assert (world.state(), page.js("window.opened")) == ("running", 2)


def test_a_page_opened_in_the_background_waits_for_its_visitor(world: World, page: Page) -> None:
    """The page is loaded, and its socket opened only when somebody looks at it."""
    page.driver.minimize_window()
    page.open(world.link)
    assert page.js("[document.visibilityState, window.opened]") == ["hidden", 0]
    page.driver.maximize_window()
    page.until_state("awake")
    assert page.js("window.opened") == 1


def test_the_clock_falls_silent_and_goes_on(world: World, page: Page) -> None:
    """Quiet shows, with the time that is left; a press goes on with the same socket."""
    with quick_app(world) as (sandbox, port):
        page.open(world.new_link(sandbox, port)[0])
        page.until_state("quiet")
        assert page.text("#state").startswith("Silent; asleep in about ")
        page.js("window.states.length = 0")
        page.press()
        page.until("$('count').textContent === '2'")
        page.until("window.states.includes('awake')")
        assert page.js("window.opened") == 1


def test_silence_pauses_the_sandbox_by_itself(world: World, page: Page) -> None:
    """Nobody asks for the pause, the socket closes all the same, and the counter survives."""
    with quick_app(world, inactivity_timeout_ms=1000) as (sandbox, port):
        page.open(world.new_link(sandbox, port)[0])
        page.until_state("asleep")
        events = world.call("GET", f"/v1/sandboxes/{sandbox}/lifecycle")["events"]
        expired = next(event for event in events if event["operation"] == "timeout_expired")
        assert expired["metadata"]["timeout"] == "inactivity_timeout_ms"
        assert page.count == 1
        page.press()
        page.until("$('count').textContent === '2'")


def test_a_garbage_link_shows_a_page_to_people_and_json_to_scripts(
    world: World, page: Page
) -> None:
    """Same refusal, two shapes. A good cookie does not help: a token in the address decides alone."""
    bad = world.link.partition("?")[0] + "?edge_token=garbage"
    page.open(bad)
    assert (page.status, page.js("document.contentType")) == (401, "text/html")
    assert page.text("h1") == page.driver.title == "This link does not work"
    assert page.text("dd") == "edge_token_invalid"
    page.open(world.link)
    page.until_state("awake")
    answer = page.js(
        "fetch('/?edge_token=garbage').then(async (answer) => "
        "[answer.status, answer.headers.get('content-type'), await answer.text()])"
    )
    assert answer[:2] == [401, "application/json"]
    assert json.loads(answer[2])["code"] == "edge_token_invalid"
    ended = "new Promise((done) => { new WebSocket('ws://' + location.host + '/').onclose = (e) => done(e.code); })"
    assert page.js(ended) == 1006, "a cookie must not open a WebSocket"


def test_a_revoked_link_ends_at_once(world: World, page: Page) -> None:
    """Its open socket is closed, its scripts are told why, its next visitor sees the error page."""
    link, grant = world.new_link()
    page.open(link)
    page.until_state("awake")
    world.call("DELETE", f"/v1/sandboxes/{world.sandbox}/preview-urls/{grant}")
    page.until_state("asleep")
    page.press()
    page.until("$('state').textContent.startsWith('That did not work')")
    assert page.text("#state").endswith("The grant behind this preview credential was revoked.")
    for again in (page.driver.refresh, lambda: page.open(link.partition("?")[0])):
        again()
        assert (page.status, page.js("document.contentType")) == (401, "text/html")
        assert page.text("dd") == "preview_grant_revoked"


@pytest.mark.parametrize("width", [320, 360, 1000])
def test_pages_fit_their_screen_in_both_colour_schemes(
    world: World, page: Page, width: int
) -> None:
    """No sideways scrolling, equal margins, and dark is dark: the demo page and the error page."""
    for url in (world.link, world.link.partition("?")[0] + "?edge_token=garbage"):
        backgrounds = []
        for scheme in ("light", "dark"):
            page.look(width=width, scheme=scheme)
            page.open(url)
            seen, whole = page.js(
                "['clientWidth', 'scrollWidth'].map((name) => document.documentElement[name])"
            )
            box = page.js("document.querySelector('main').getBoundingClientRect().toJSON()")
            assert whole <= seen <= width
            assert box["left"] >= 16 and abs(box["left"] - (seen - box["right"])) <= 1
            channels = page.js("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
            backgrounds.append(sum(map(int, channels)))
        assert backgrounds[0] > 700 and backgrounds[1] < 100


@contextmanager
def quick_app(world: World, **more: int) -> Iterator[tuple[str, int]]:
    """The demo's own app with a clock of one tick, in a sandbox of its own: the sandbox and the port."""
    body = {"auto_resume": True, "timeout_action": "hibernate", **more}
    sandbox = world.call("POST", "/v1/sandboxes", body)["id"]
    port = free_port()
    script = (
        f"import sys; sys.path.insert(0, {str(demo.APP.parent)!r}); import app; app.TICKING = 1; "
        f"app.web.run_app(app.build_app(), host='127.0.0.1', port={port}, print=None)"
    )
    command = {"command": sys.executable, "args": ["-c", script], "background": True}
    world.call("POST", f"/v1/sandboxes/{sandbox}/exec", command)
    yield sandbox, port
    world.call("DELETE", f"/v1/sandboxes/{sandbox}")
