"""Pages: text of others stays text, whatever it is."""

from __future__ import annotations

import pytest
from service import Service

from edge.appliance.console.pages import FILES, page
from edge.appliance.events import Actor, Operation, Status
from tests.appliance.console.desk import Desk

HOSTILE = [
    "<script>alert(1)</script>",
    "</title></pre><img src=x onerror=alert(1)>",
    '" autofocus onfocus="alert(1)',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% include 'login.html' %}",
    "javascript:alert(1)",
    "\u202e\u2066abc",
    "\x00\x1b[31m\r\n",
    "&lt;script&gt;",
    "<!--",
    "]]>",
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_is_shown_as_text(service: Service, desk: Desk, text: str) -> None:
    """Templates' names, metadata, reasons of edges: no element and no attribute comes of them."""
    plain = {"template": "base", "metadata": {"key": "value"}}
    pages = []
    for body in (plain, {"template": text, "metadata": {text: [text, {"a": text}]}}):
        sandbox = await service.create(
            **body, timeout_action="hibernate", auto_resume=True, timeout_ms=3_600_000
        )
        await desk.post(f"/sandboxes/{sandbox}/pause")
        reason = "preview" if body is plain else text
        call = {"paused_incarnation": 1, "reason": reason, "timeout_ms": 5000}
        assert (await service.edge("POST", f"sandboxes/{sandbox}/resume", call))[0] == 200
        where = ("", "/events", f"/sandboxes/{sandbox}", f"/sandboxes/{sandbox}/kill")
        pages.append([await desk.get(path) for path in where])
        await desk.post(f"/sandboxes/{sandbox}/kill")
        where = ("/events", f"/sandboxes/{sandbox}")
        pages[-1] += [await desk.get(path) for path in where]
    for tame, wild in zip(*pages, strict=True):
        assert tame.status == wild.status == 200
        assert {tag for tag, _ in wild.elements} <= {tag for tag, _ in tame.elements}
        names = {name for _, attributes in tame.elements for name in attributes}
        assert {name for _, attributes in wild.elements for name in attributes} <= names
        assert len(wild.all("script")) == len(tame.all("script"))
        assert "49" not in wild.text.replace(text, "").split()
    shown = "".join(wild.text for wild in pages[1])
    visible = "".join(char for char in text if char.isprintable())
    assert visible in shown or text in ("\u202e\u2066abc", "\x00\x1b[31m\r\n")


async def test_lone_surrogates_are_shown_somehow(service: Service, desk: Desk) -> None:
    """JSON may hold what UTF-8 cannot; the page is still one."""
    body = b'{"metadata": {"\\udfff": "\\ud800"}}'
    status, made = await service.api("POST", "/v1/sandboxes", body)
    assert status == 201
    for path in ("", f"/sandboxes/{made['id']}", f"/sandboxes/{made['id']}/kill"):
        assert (await desk.get(path)).status == 200


async def test_a_large_metadata_does_not_make_a_large_page(service: Service, desk: Desk) -> None:
    """It is cut where it is shown."""
    sandbox = await service.create(metadata={"x": "y" * 900_000})
    assert len((await desk.get(f"/sandboxes/{sandbox}")).html) < 20_000


async def test_failures_say_which(service: Service, desk: Desk) -> None:
    """An event that failed shows its code and sentence, escaped like all else."""
    sandbox = await service.create()
    service.plane.parts.events.emit(
        Operation.RESUME_FROM_SNAPSHOT,
        Status.FAILED,
        sandbox_id=sandbox,
        actor=Actor.SYSTEM,
        reason="preview",
        error=("resume_failed", "<i>It broke.</i>"),
    )
    for path in ("", "/events", f"/sandboxes/{sandbox}"):
        shown = await desk.get(path)
        assert "Could not be woken" in shown.text and "resume_failed" in shown.text
        assert not shown.all("i")
    assert "<i>It broke.</i>" in shown.text


@pytest.mark.parametrize("name", FILES)
async def test_files_are_served_as_what_they_are(service: Service, name: str) -> None:
    """Before the login, too, which needs them; with a type of their own."""
    answer, body = await service.raw("GET", f"/console/{name}")
    assert answer.status == 200 and answer.content_type == FILES[name]
    assert len(body) > 1000 and b"http://" not in body and b"https://" not in body


def test_a_template_that_lacks_a_value_fails() -> None:
    """A name that is mistyped is a crash in a test, not a gap on a page."""
    with pytest.raises(Exception, match="complaint"):
        page("login", {"prefix": "/console"})
