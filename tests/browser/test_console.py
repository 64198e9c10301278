"""The operator's console in a real browser, in front of a real control plane and its edge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser.test_demo import quick_app
from tests.browser.visit import CONTRASTS, PATIENCE, Page, World

pytestmark = pytest.mark.needs_tool("chromium", "chromedriver")


def log_in(world: World, page: Page) -> None:
    """From the address that ``dev`` prints to the list."""
    page.open(world.console)
    assert page.driver.current_url == f"{world.console}/login"
    page.driver.find_element("id", "key").send_keys(world.key, "\n")
    page.until(f"location.href === '{world.console}' && document.title === 'Sandboxes · Console'")


def press(page: Page, element_id: str) -> None:
    """A button or a link."""
    page.driver.find_element("id", element_id).click()


def detail(world: World, page: Page, sandbox: str) -> None:
    """The page of a sandbox, live."""
    page.open(f"{world.console}/sandboxes/{sandbox}")
    page.until("document.getElementById('live')?.textContent === 'Live'")


def visit_through_the_edge(link: str) -> None:
    """Somebody opens a preview link. Browsers take ``*.localhost`` for this machine; Python does not."""
    url = httpx.URL(link.partition("#")[0])
    host = url.netloc.decode()
    answer = httpx.get(url.copy_with(host="127.0.0.1"), headers={"Host": host}, timeout=30)
    assert answer.status_code == 200


@contextmanager
def sandbox_of(world: World, **body: Any) -> Iterator[str]:
    """A sandbox without an app."""
    made = world.call("POST", "/v1/sandboxes", body)["id"]
    yield made
    if world.api.get(f"/v1/sandboxes/{made}").is_success:
        world.call("DELETE", f"/v1/sandboxes/{made}")


def test_a_wake_shows_while_it_happens(world: World, page: Page) -> None:
    """The list follows a pause and a wake by a request, without a reload; the wake is told."""
    with quick_app(world) as (sandbox, port):
        link, _ = world.new_link(sandbox, port)
        visit_through_the_edge(link)
        log_in(world, page)
        page.js("window.same = true")
        state = f"document.querySelector('#s-{sandbox} .state').textContent"
        assert page.js(state) == "running"
        wakes = "[...document.querySelectorAll('#wake-list li')].map((li) => li.textContent)"
        before = len([text for text in page.js(wakes) if sandbox in text])
        world.call("POST", f"/v1/sandboxes/{sandbox}/hibernate")
        page.until(f"{state} === 'paused'")
        assert "a request wakes it" in page.text(f"#s-{sandbox}")
        visit_through_the_edge(link)
        page.until(f"{state} === 'running'")
        page.until(f"{wakes}[0].includes('Woken') && {wakes}[0].includes('{sandbox}')")
        assert len([text for text in page.js(wakes) if sandbox in text]) == before + 1
        page.until(f"document.getElementById('s-{sandbox}').textContent.includes('2 requests')")
        assert page.js("window.same") is True


def test_pause_and_resume_by_their_buttons(world: World, page: Page) -> None:
    """A press changes the sandbox; a change by somebody else changes the button."""
    with sandbox_of(world, timeout_action="hibernate", auto_resume=True) as sandbox:
        log_in(world, page)
        detail(world, page, sandbox)
        press(page, "pause")
        page.until("document.getElementById('resume') !== null")
        assert world.state(sandbox) == "paused" and page.text("#state") == "paused"
        press(page, "resume")
        page.until("document.getElementById('pause') !== null")
        assert world.state(sandbox) == "running"
        world.call("POST", f"/v1/sandboxes/{sandbox}/hibernate")
        page.until("document.getElementById('resume') !== null")
        assert "Paused by the API" in page.text("#events")


def test_a_link_is_made_shown_and_opened(world: World, page: Page) -> None:
    """Redacted until asked; it opens the app; then it can be revoked, and is used by nobody any more."""
    with quick_app(world) as (sandbox, port):
        log_in(world, page)
        detail(world, page, sandbox)
        page.driver.find_element("id", "port").send_keys(str(port))
        press(page, "new-link")
        page.until("document.getElementById('made') !== null")
        assert "edge_token=<redacted>" in page.text("#made") and "eyJ" not in page.text()
        assert not page.driver.find_element("id", "url").is_displayed()
        page.driver.find_element("css selector", "#reveal summary").click()
        field = page.driver.find_element("id", "url")
        assert field.is_displayed()
        link = str(field.get_property("value"))
        before = set(page.driver.window_handles)
        grant_page = page.driver.current_window_handle
        press(page, "open-link")
        wait = WebDriverWait(page.driver, PATIENCE, 0.05)
        (app,) = wait.until(lambda driver: set(driver.window_handles) - before)
        page.driver.switch_to.window(app)
        page.until("document.querySelector('h1')?.textContent === 'A sandbox that sleeps'")
        assert page.driver.current_url.startswith(link.partition("?")[0])
        assert page.js("[document.referrer, window.opener]") == ["", None]
        page.driver.close()
        page.driver.switch_to.window(grant_page)
        # The list comes up to date behind the link that is shown, which stays.
        page.until("document.getElementById('link-list').textContent.includes('last ')")
        assert page.driver.find_element("id", "url").is_displayed()
        page.driver.find_element("css selector", "#link-list button").click()
        page.until("document.querySelector('#link-list .grant')?.textContent === 'revoked'")
        answer = httpx.get(
            httpx.URL(link).copy_with(host="127.0.0.1"),
            headers={"Host": httpx.URL(link).netloc.decode()},
        )
        assert answer.status_code == 401


def test_kill_asks_and_is_told_elsewhere(world: World, page: Page) -> None:
    """No is no; yes ends it, and a page that shows it says so without a reload."""
    with sandbox_of(world) as sandbox:
        log_in(world, page)
        detail(world, page, sandbox)
        press(page, "ask-kill")
        page.until("document.querySelector('h1').textContent === 'Kill this sandbox?'")
        press(page, "keep")
        page.until("document.getElementById('ask-kill') !== null")
        assert world.state(sandbox) == "running"
        here = page.driver.current_window_handle
        page.driver.switch_to.new_window("window")
        page.open(f"{world.console}/sandboxes/{sandbox}/kill")
        press(page, "kill")
        page.until(f"location.href === '{world.console}'")
        assert sandbox not in page.text("#sandboxes")
        page.driver.close()
        page.driver.switch_to.window(here)
        page.until("document.getElementById('gone') !== null")
        assert page.text("#state") == "destroyed"
        assert not page.driver.find_elements("css selector", "#actions *")


def test_it_works_without_scripts(world: World, scriptless: webdriver.Chrome) -> None:
    """Log in, pause, reload, make a link and see it, kill, log out: forms and links do."""

    def find(selector: str, text: str = "") -> WebElement:
        """The element, once the page that is on its way shows it."""
        wait = WebDriverWait(scriptless, PATIENCE, 0.05, [WebDriverException])
        return wait.until(
            lambda driver: (
                (found := driver.find_element("css selector", selector))
                and text in found.text
                and found
            )
        )

    with sandbox_of(world, timeout_action="hibernate", auto_resume=True) as sandbox:
        scriptless.get(world.console)
        find("#key").send_keys(world.key, "\n")
        find(f"#a-{sandbox}").click()
        find("#pause").click()
        find("#state", "paused")
        assert world.state(sandbox) == "paused"
        world.call("POST", f"/v1/sandboxes/{sandbox}/exec", {"command": "true"})
        scriptless.refresh()
        find("#state", "running")
        find("#port").send_keys("8000")
        find("#new-link").click()
        find("#reveal summary").click()
        assert "edge_token=eyJ" in str(find("#url").get_property("value"))
        assert not find("#copy-link").is_displayed()
        find("#ask-kill").click()
        find("#kill").click()
        find("#sandboxes")
        assert world.api.get(f"/v1/sandboxes/{sandbox}").status_code == 404
        find("header button").click()
        find("#key")
        assert scriptless.current_url == f"{world.console}/login"


def test_logging_out_ends_other_pages(world: World, page: Page) -> None:
    """A page that is live goes to the log-in page by itself, in another window of the same browser."""
    log_in(world, page)
    here = page.driver.current_window_handle
    page.driver.switch_to.new_window("window")
    page.open(f"{world.console}/events")
    page.driver.find_element("css selector", "header button").click()
    page.until(f"location.href === '{world.console}/login'")
    page.driver.close()
    page.driver.switch_to.window(here)
    page.until(f"location.href === '{world.console}/login'")


def test_what_is_being_used_stays(world: World, page: Page) -> None:
    """While the page comes up to date, focus, open details and what was typed are left alone."""
    hostile = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 1'>"
    body = {"timeout_action": "hibernate", "auto_resume": True, "metadata": {"a": hostile}}
    with sandbox_of(world, template=hostile, **body) as sandbox:
        log_in(world, page)
        detail(world, page, sandbox)
        page.driver.find_element("css selector", "#metadata summary").click()
        page.driver.find_element("id", "port").send_keys("80")
        page.js("document.getElementById('ask-kill').focus()")
        world.call("POST", f"/v1/sandboxes/{sandbox}/hibernate")
        page.until("document.getElementById('state').textContent.trim() === 'paused'")
        page.until("document.getElementById('event-list').textContent.includes('Snapshot')")
        assert page.js("document.activeElement.id") == "ask-kill"
        assert page.js("document.getElementById('metadata').open") is True
        assert page.js("document.getElementById('port').value") == "80"
        # Not even after it came in by the live update.
        assert hostile in page.text("#facts") and page.js("window.hit") is None
        assert page.js("document.querySelectorAll('main img, main script').length") == 0


def test_a_hidden_page_is_not_live(world: World, page: Page) -> None:
    """Nobody looks at it: no stream, until somebody comes back."""
    log_in(world, page)
    page.until("document.getElementById('live').textContent === 'Live'")
    page.driver.minimize_window()
    page.until("document.visibilityState === 'hidden' && stream === null")
    page.driver.maximize_window()
    page.until("stream !== null && stream.readyState === EventSource.OPEN")


@pytest.mark.parametrize(("width", "scheme"), [(1000, "light"), (1000, "dark"), (360, "light"), (320, "dark")])  # fmt: skip
def test_pages_are_for_everybody(world: World, page: Page, width: int, scheme: str) -> None:
    """Each page fits, is readable, has names for all that can be used, asks for nothing elsewhere."""
    long = {"template": "t" * 255, "metadata": {"k" * 100: "v" * 500}}
    with sandbox_of(world, timeout_action="hibernate", auto_resume=True, **long) as sandbox:
        for _ in range(2):
            world.call("POST", f"/v1/sandboxes/{sandbox}/ports/8000/signed-preview-url", {})
        page.driver.get_log("browser"), page.driver.get_log("performance")
        page.look(width=width, scheme=scheme)
        page.open(world.console)
        look_at(page, width, title="Console")
        log_in(world, page)
        look_at(page, width, title="Sandboxes")
        page.open(f"{world.console}/events")
        look_at(page, width, title="Events")
        detail(world, page, sandbox)
        page.js("document.getElementById('metadata').open = true")
        look_at(page, width, title=sandbox)
        press(page, "new-link")
        page.until("document.querySelector('#reveal summary') !== null")
        page.driver.find_element("css selector", "#reveal summary").click()
        look_at(page, width, title=sandbox)
        press(page, "ask-kill")
        page.until("document.getElementById('kill') !== null")
        look_at(page, width, title="Kill this sandbox?")
        page.open(f"{world.console}/nothing")
        look_at(page, width, title="There is nothing of this name.")
    origins = {url.split("/")[2] for url in asked_for(page) if url.startswith("http")}
    assert origins == {world.console.split("/")[2]}
    said = [entry["message"] for entry in page.driver.get_log("browser")]
    assert all("/console/nothing" in line for line in said), said


def look_at(page: Page, width: int, *, title: str) -> None:
    """One page, as it is."""
    seen, whole = page.js(
        "['clientWidth', 'scrollWidth'].map((name) => document.documentElement[name])"
    )
    assert whole <= seen <= width, title
    low = [found for found in page.driver.execute_script(CONTRASTS) if found[1] < 4.5]
    assert not low, (title, low)
    tree = page.tree()
    headings = [(name, properties["level"]) for role, name, properties in tree if role == "heading"]
    assert headings[0] == (title, 1) and all(level == 2 for _, level in headings[1:])
    roles = [role for role, _, _ in tree]
    assert roles.count("main") == 1
    usable = ("link", "button", "textbox", "combobox", "region", "navigation", "log", "list")
    nameless = [role for role, name, _ in tree if role in usable[:-1] and not name]
    assert not nameless, (title, nameless)
    small = page.js(
        "[...document.querySelectorAll('button, .button, input:not([type=hidden]), select')]"
        ".filter((el) => el.checkVisibility() && el.offsetHeight < 40).map((el) => el.outerHTML)"
    )
    assert not small, (title, small)


def asked_for(page: Page) -> set[str]:
    """The addresses the tab has asked for since the last look."""
    messages = [
        json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")
    ]
    sent = (m["params"] for m in messages if m["method"] == "Network.requestWillBeSent")
    return {params["request"]["url"] for params in sent}


def test_a_keyboard_is_enough(world: World, page: Page) -> None:
    """Tab reaches everything in the order it stands there, and what has the focus shows it."""
    with sandbox_of(world, timeout_action="hibernate", auto_resume=True) as sandbox:
        log_in(world, page)
        detail(world, page, sandbox)
        # Tabbing begins where the last click was: above everything.
        page.js("document.activeElement.blur()")
        reached = []
        for _ in range(9):
            ActionChains(page.driver).send_keys(Keys.TAB).perform()
            name, line = page.js(
                "[document.activeElement.id || document.activeElement.textContent.trim(), "
                "getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert line != "none", name
            reached.append(name)
        assert reached == [
            *("Skip to the content", "Sandboxes", "Events", "Log out"),
            *("pause", "ask-kill", "port", "seconds", "new-link"),
        ]
