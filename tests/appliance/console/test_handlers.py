"""What can be seen and done at the console is what the API shows and does."""

from __future__ import annotations

import pytest
from service import PAUSES, Service

from edge import redact_preview_url
from edge.appliance.console import handlers
from tests.appliance.console.desk import Desk, ids


async def events_of(service: Service, sandbox: str) -> list[tuple[str, str, str]]:
    """Its lifecycle, oldest first: operation, status, reason."""
    _, answer = await service.api("GET", f"/v1/sandboxes/{sandbox}/lifecycle?order=asc")
    return [(e["operation"], e["status"], e["reason"]) for e in answer["events"]]


async def test_pause_resume_and_kill(service: Service, desk: Desk) -> None:
    """Each by a form of the page, with the way back to it; the events say who did it."""
    sandbox = await service.create(**PAUSES)
    here = f"/sandboxes/{sandbox}"
    for action, state, next_form in (("pause", "paused", "resume"), ("resume", "running", "pause")):
        answer = await desk.post(f"{here}/{action}")
        assert (answer.status, answer.location) == (303, f"/console{here}")
        _, told = await service.api("GET", f"/v1/sandboxes/{sandbox}")
        assert told["status"] == state
        actions = [form["action"] for form in (await desk.get(here)).all("form")]
        assert f"/console{here}/{next_form}" in actions
    answer = await desk.post(f"{here}/kill")
    assert (answer.status, answer.location) == (303, "/console")
    assert (await service.api("GET", f"/v1/sandboxes/{sandbox}"))[0] == 404
    done = [event for event in await events_of(service, sandbox) if event[1] == "succeeded"]
    assert [(operation, reason) for operation, _, reason in done] == [
        ("create", "api"),
        ("hibernate", "console"),
        ("snapshot_created", "console"),
        ("resume_from_snapshot", "console"),
        ("destroy", "console"),
    ]


async def test_what_is_so_already_is_no_error(service: Service, desk: Desk) -> None:
    """Two people press the same button: the second finds it done."""
    sandbox = await service.create(**PAUSES)
    here = f"/sandboxes/{sandbox}"
    for action in ("resume", "pause", "pause", "resume", "resume"):
        assert (await desk.post(f"{here}/{action}")).status == 303
    assert len([e for e in await events_of(service, sandbox) if e[0] == "hibernate"]) == 2
    assert (await desk.post(f"{here}/kill")).status == 303
    for action in ("pause", "resume", "kill"):
        page = await desk.post(f"{here}/{action}")
        assert page.status == 404 and "sandbox_not_found" in page.text


async def test_kill_asks_first(service: Service, desk: Desk) -> None:
    """The page of a sandbox has no form that kills, only a link to the question."""
    sandbox = await service.create()
    page = await desk.get(f"/sandboxes/{sandbox}")
    assert not [f for f in page.all("form") if str(f["action"]).endswith("/kill")]
    (link,) = [a["href"] for a in page.all("a") if str(a["href"]).endswith("/kill")]
    question = await desk.get(str(link).removeprefix("/console"))
    assert question.status == 200 and "Kill this sandbox?" in question.text
    assert (await service.api("GET", f"/v1/sandboxes/{sandbox}"))[0] == 200
    assert question.all("form")[-1]["action"] == link


async def test_nothing_that_is_only_looked_at_wakes(service: Service, desk: Desk) -> None:
    """Pages, and a new link, leave a paused sandbox that resumes by itself paused."""
    sandbox = await service.create(**PAUSES)
    await desk.post(f"/sandboxes/{sandbox}/pause")
    for path in ("", "/events", f"/sandboxes/{sandbox}", f"/sandboxes/{sandbox}/kill"):
        assert (await desk.get(path)).status == 200
    form = {"port": "8000", "seconds": "900"}
    assert (await desk.post(f"/sandboxes/{sandbox}/links", form)).status == 200
    _, told = await service.api("GET", f"/v1/sandboxes/{sandbox}")
    assert told["status"] == "paused"


async def test_a_new_link_is_shown_once_and_redacted(service: Service, desk: Desk) -> None:
    """The token is in the answer to the form, where somebody asks to see it, and nowhere else."""
    sandbox = await service.create()
    form = {"port": " 8000 ", "seconds": "3600"}
    page = await desk.post(f"/sandboxes/{sandbox}/links", form)
    url, socket = page.value("url"), page.value("websocket-url")
    assert url.startswith(f"https://8000-{sandbox.replace('_', '-')}.edge.test:8443/?edge_token=ey")
    assert socket.startswith("wss://") and socket.partition("=")[2] != url.partition("=")[2]
    assert str(redact_preview_url(url)) in page.text and url not in page.text
    (link,) = [a for a in page.all("a") if a["href"] == url]
    assert (link["target"], link["rel"]) == ("_blank", "noopener noreferrer")
    _, listed = await service.api("GET", f"/v1/sandboxes/{sandbox}/preview-urls")
    (grant,) = listed["items"]
    assert (grant["port"], grant["auth_mode"], grant["status"]) == (8000, "direct", "active")
    for path in ("", "/events", f"/sandboxes/{sandbox}"):
        later = await desk.get(path)
        assert "eyJ" not in later.html
    assert str(redact_preview_url(url)) in later.text


@pytest.mark.parametrize(
    ("port", "seconds", "code"),
    [
        ("22", "900", "unsupported_preview_port"),
        ("5900", "900", "unsupported_preview_port"),
        ("3002", "900", "unsupported_preview_port"),
        ("{own}", "900", "unsupported_preview_port"),
        ("0", "900", "unsupported_preview_port"),
        ("-1", "900", "unsupported_preview_port"),
        ("", "900", "unsupported_preview_port"),
        ("<script>", "900", "unsupported_preview_port"),
        ("8000", "901", "invalid_request"),
        ("8000", "", "invalid_request"),
        ("8000", "x", "invalid_request"),
    ],
)
async def test_links_that_are_not_made(
    service: Service, desk: Desk, port: str, seconds: str, code: str
) -> None:
    """Reserved ports, our own among them, what is none, and lifetimes that are not offered."""
    sandbox = await service.create()
    form = {"port": port.format(own=service.plane.port), "seconds": seconds}
    page = await desk.post(f"/sandboxes/{sandbox}/links", form)
    assert page.status == 400 and code in page.text
    _, listed = await service.api("GET", f"/v1/sandboxes/{sandbox}/preview-urls")
    assert listed["items"] == []


async def test_grants_can_be_revoked(service: Service, desk: Desk) -> None:
    """One of them, with both of its URLs; then there is nothing left to press."""
    sandbox = await service.create()
    where = f"/v1/sandboxes/{sandbox}/ports/80"
    grants = [
        (await service.api("POST", f"{where}/{kind}", {}))[1]["grant"]["id"]
        for kind in ("signed-preview-url", "preview-proxy-target")
    ]
    page = await desk.get(f"/sandboxes/{sandbox}")
    # A proxy's link carries no token.
    assert page.text.count("edge_token=<redacted>") == 1 and "proxy" in page.text
    revoke = f"/console/sandboxes/{sandbox}/links/{grants[0]}/revoke"
    assert revoke in [form["action"] for form in page.all("form")]
    assert (await desk.post(revoke.removeprefix("/console"))).status == 303
    _, listed = await service.api("GET", f"/v1/sandboxes/{sandbox}/preview-urls")
    assert [item["status"] for item in listed["items"]] == ["revoked", "active"]
    page = await desk.get(f"/sandboxes/{sandbox}")
    assert revoke not in [form["action"] for form in page.all("form")]
    other = await service.create()
    missed = await desk.post(f"/sandboxes/{other}/links/{grants[1]}/revoke")
    assert missed.status == 404 and "preview_grant_not_found" in missed.text


async def test_the_list_is_newest_first_and_bounded(
    service: Service, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sandboxes, events and links beyond the bound are told of, not shown."""
    for name in ("MAX_SANDBOXES", "MAX_EVENTS", "MAX_GRANTS"):
        monkeypatch.setattr(handlers, name, 2)
    made = [await service.create() for _ in range(3)]
    page = await desk.get()
    assert ids(page.html) == set(made[1:]) and page.html.index(made[2]) < page.html.index(made[1])
    assert "1 older ones are not shown" in page.text
    for _ in range(3):
        form = {"port": "80", "seconds": "900"}
        page = await desk.post(f"/sandboxes/{made[2]}/links", form)
    assert len([a for _, a in page.elements if (a.get("class") or "").startswith("link")]) == 2
    page = await desk.get("/events")
    assert len(page.all("li")) == 2 and "GET /v1/lifecycle/events" in page.text


async def test_a_sandbox_that_has_ended_shows_its_past(service: Service, desk: Desk) -> None:
    """Its events, and nothing that could be done with it."""
    sandbox = await service.create()
    await desk.post(f"/sandboxes/{sandbox}/kill")
    page = await desk.get(f"/sandboxes/{sandbox}")
    assert page.status == 200 and "This sandbox has ended" in page.text
    assert [form["action"] for form in page.all("form")] == ["/console/logout"]
    assert "Created" in page.text and "from the console" in page.text
    assert sandbox not in (await desk.get()).html


async def test_wakes_are_told(service: Service, desk: Desk) -> None:
    """A request's wake and a resume, newest first, on the first page."""
    sandbox = await service.create(**PAUSES)
    assert "None yet." in (await desk.get()).text
    await desk.post(f"/sandboxes/{sandbox}/pause")
    body = {"paused_incarnation": 1, "reason": "preview", "timeout_ms": 5000}
    status, _ = await service.edge("POST", f"sandboxes/{sandbox}/resume", body)
    assert status == 200
    await desk.post(f"/sandboxes/{sandbox}/pause")
    await desk.post(f"/sandboxes/{sandbox}/resume")
    text = " ".join((await desk.get()).text.split())
    assert text.index("Resumed from the console") < text.index("Woken for a request")
