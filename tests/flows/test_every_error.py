"""Every error the edge knows, provoked over a socket: status, fields, body, for programs and for people.

The table below is held against the codes there are: one that is added needs a scenario.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge.core.credentials import Family
from edge.core.errors import PROBLEMS
from edge.core.records import GrantStatus, State, Transport, Upstream
from tests.flows.rawclient import Answer
from tests.flows.scriptedapp import AppConnection, Handler, echo
from tests.flows.scripts import Script, hang, refuse, resume
from tests.flows.stage import PORT, PROXY_HEADER, UPGRADE, MakeStage, Preview, Stage, until
from tests.flows.test_late_ports import NOWHERE

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
MEMBERS = {"error", "code", "request_id", "retryable", "suggested_action"}
FIELDS = [
    "date",
    "content-type",
    "content-length",
    "cache-control",
    "x-content-type-options",
    "x-request-id",
]
MORE = {401: "www-authenticate", 503: "retry-after", 405: "allow"}
VALUES = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "www-authenticate": 'NullspacePreview realm="preview"',
    "retry-after": "5",
    "allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    "connection": "close",
}

# --- Who asks -----------------------------------------------------------------------------------------

CORS = b"Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n"  # not even when it asks for HTML
NAVIGATE = b"Sec-Fetch-Mode: navigate\r\n"


@dataclass(frozen=True)
class Asker:
    """Somebody who sends a scenario's request in his own manner. ``page``: an error is shown to him as a page."""

    name: str
    fields: bytes = b""
    method: str = "GET"
    transport: Transport = Transport.HTTP
    proxied: bool = False
    page: bool = False

    def request(
        self,
        box: Preview,
        lines: bytes = b"",
        *,
        method: str = "",
        body: bytes = b"",
        token: str | None = None,
        **claims: Any,
    ) -> bytes:
        """The request with a token for it, ``claims`` changed; ``lines`` come last. ``token=""``: none."""
        claims = {"kind": self.transport} | claims
        fields = self.fields
        if token is None:
            token = box.token(Family.PROXY if self.proxied else Family.EDGE, **claims)
        if self.proxied:
            path = "/?__ns_preview_transport=header"
            fields += f"{PROXY_HEADER}: {token}\r\n".encode() if token else b""
            token = ""
        else:
            path = "/"
        if self.transport is Transport.WEBSOCKET:
            fields += UPGRADE
        return box.request(method or self.method, path, fields + lines, token=token) + body


ASKERS = [
    Asker("a program"),
    Asker("a script of a page", CORS),
    Asker("a person", NAVIGATE, page=True),
    Asker("a person who asks for the head alone", NAVIGATE, method="HEAD", page=True),
    Asker("a WebSocket", NAVIGATE, transport=Transport.WEBSOCKET),
    Asker("a proxy", proxied=True),
    Asker("a person behind a proxy", NAVIGATE, proxied=True),
    Asker("a WebSocket behind a proxy", transport=Transport.WEBSOCKET, proxied=True),
]

# --- What goes wrong ----------------------------------------------------------------------------------

Ask = Callable[[Asker, Preview], bytes]


def ask(lines: bytes = b"", **more: Any) -> Ask:
    """How the request of a scenario differs from a good one."""
    return lambda asker, box: asker.request(box, lines, **more)


def to(host: Callable[[Preview], str]) -> Ask:
    """A good request to another host."""
    return lambda asker, box: asker.request(box).replace(box.host.encode(), host(box).encode())


@dataclass
class Scenario:
    """What provokes one error, and all that is promised of it.

    ``status``, ``retryable`` and ``closes`` (the connection ends with the answer) are the contract's. The
    sandbox is in ``state`` with ``record`` and ``grant`` laid over what is good. ``first`` sets the scene;
    all askers send ``ask`` at once; ``then`` begins when all of them have. ``shaped``: the method is the
    scenario's own, so nobody can ask for it in another manner.
    """

    status: int
    retryable: bool = False
    ask: Ask = field(default_factory=ask)
    details: set[str] = field(default_factory=set)
    closes: bool = False
    shaped: bool = False
    state: State = State.RUNNING
    record: dict[str, Any] = field(default_factory=dict)
    grant: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    on_resume: Script = resume
    app: Handler = echo
    listening: bool = True
    first: Callable[[Stage, Preview], Awaitable[None]] | None = None
    then: Callable[[Stage, int], Awaitable[asyncio.Task[None]]] | None = None


async def use_up_its_wakes(stage: Stage, box: Preview) -> None:
    """One wake, and the budget is that."""
    assert (await stage.ask(box.get())).status == 200
    await stage.heard(stage.plane.pause(box.id))


async def no_control_plane(stage: Stage, _: Preview) -> None:
    """Every call fails."""
    stage.plane.fault = refuse(500, "broken")


async def the_edge_leaves(stage: Stage, count: int) -> asyncio.Task[None]:
    """It drains while they wait."""
    await until(lambda: stage.edge.admission.counts()["waiting"] == count)
    return asyncio.create_task(stage.stop_edge())


async def hang_up(connection: AppConnection) -> None:
    """The app reads the request and closes."""
    await connection.read_head()


async def mumble(connection: AppConnection) -> None:
    """The app does not speak HTTP."""
    await connection.read_head()
    await connection.send(b"220 ready\r\n\r\n")


async def think(connection: AppConnection) -> None:
    """The app never answers."""
    await connection.read_to_end()


SECRET = hashlib.sha256(b"secret").hexdigest()
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SHORT = {"wake": {"window": 0.5}}

SCENARIOS: dict[str, Scenario] = {
    "edge_token_missing": Scenario(401, ask=ask(token="")),
    "edge_token_invalid": Scenario(401, ask=ask(token="bad")),
    "edge_token_expired": Scenario(401, ask=ask(exp=1.0)),
    "edge_token_scope_mismatch": Scenario(403, ask=ask(port=1)),
    "preview_grant_invalid": Scenario(401, ask=ask(grant="pvg_nobody")),
    "preview_grant_revoked": Scenario(401, grant={"status": GrantStatus.REVOKED}),
    "preview_grant_disabled": Scenario(403, grant={"status": GrantStatus.DISABLED}),
    "preview_sandbox_disabled": Scenario(403, record={"previews_disabled": True}),
    "preview_proxy_token_missing": Scenario(401, ask=ask(token="")),
    "preview_proxy_token_invalid": Scenario(401, ask=ask(token="bad")),
    "preview_proxy_token_expired": Scenario(401, ask=ask(exp=1.0)),
    "preview_proxy_token_revoked": Scenario(401, grant={"status": GrantStatus.REVOKED}),
    "preview_proxy_token_scope_mismatch": Scenario(403, ask=ask(port=1)),
    "preview_proxy_token_disabled": Scenario(403, grant={"status": GrantStatus.DISABLED}),
    "traffic_access_token_missing": Scenario(401, record={"traffic_token_sha256": SECRET}),
    "traffic_access_token_invalid": Scenario(
        401,
        ask=ask(b"x-nullspace-traffic-access-token: guess\r\n"),
        record={"traffic_token_sha256": SECRET},
    ),
    "preview_host_unknown": Scenario(404, ask=to(lambda box: "www." + box.stage.mint.site)),
    "unsupported_preview_port": Scenario(
        400, ask=to(lambda box: box.host.replace(str(PORT), "22", 1)), details={"port"}
    ),
    "sandbox_not_found": Scenario(404, state=State.DESTROYED),
    "bad_request": Scenario(
        400, ask=ask(b"Content-Length: one\r\n"), details={"reason"}, closes=True
    ),
    "method_not_allowed": Scenario(
        405, ask=ask(method="TRACE"), details={"method"}, closes=True, shaped=True
    ),
    "request_timeout": Scenario(
        408,
        retryable=True,
        ask=ask(CHUNKED, method="POST", body=b"5\r\nabc"),
        details={"limit"},
        closes=True,
        shaped=True,
        app=think,
        settings={"deadlines": {"body_stall": 0.3}},
    ),
    "request_header_too_large": Scenario(
        431, ask=ask(b"X-Many: 1\r\n" * 130), details={"limit"}, closes=True
    ),
    "preview_loop": Scenario(508, ask=ask(b"Via: 1.1 preview-edge\r\n" * 5)),
    "sandbox_paused_auto_resume_disabled": Scenario(
        503, state=State.PAUSED, record={"auto_resume": False}
    ),
    "sandbox_resume_timeout": Scenario(
        503,
        retryable=True,
        details={"port"},
        state=State.PAUSED,
        listening=False,
        settings=SHORT,
    ),
    "sandbox_resume_failed": Scenario(
        503, retryable=True, state=State.PAUSED, on_resume=refuse(503, "resume_failed")
    ),
    "control_plane_unavailable": Scenario(503, retryable=True, first=no_control_plane),
    "preview_overloaded": Scenario(
        503,
        retryable=True,
        details={"limit"},
        state=State.PAUSED,
        settings={"wake": {"budget_per_hour": 1}},
        first=use_up_its_wakes,
    ),
    "wake_suppressed_by_policy": Scenario(
        503,
        retryable=True,
        ask=ask(b"Sec-Purpose: prefetch\r\n"),
        details={"kind"},
        state=State.PAUSED,
    ),
    "edge_draining": Scenario(
        503,
        retryable=True,
        closes=True,
        state=State.PAUSED,
        settings={"drain": {"timeout": 10}},
        on_resume=hang,
        then=the_edge_leaves,
    ),
    "sandbox_not_ready": Scenario(503, retryable=True, state=State.CREATING, settings=SHORT),
    "sandbox_error": Scenario(503, state=State.ERROR),
    "preview_service_not_ready": Scenario(
        502,
        retryable=True,
        details={"port"},
        listening=False,
        settings={"wake": {"refused_retry": 0.1}},
    ),
    "edge_runtime_host_unreachable": Scenario(
        502,
        retryable=True,
        details={"port"},
        record={"upstream": Upstream(NOWHERE)},
        settings={"wake": {"refused_retry": 0.1}},
    ),
    "preview_upstream_closed": Scenario(502, retryable=True, app=hang_up),
    "preview_upstream_invalid": Scenario(502, app=mumble),
    "preview_upstream_timeout": Scenario(
        504,
        retryable=True,
        details={"limit"},
        app=think,
        settings={"deadlines": {"first_byte": 0.3}},
    ),
}


def askers(code: str) -> list[Asker]:
    """Who can meet this error: some codes are the words of one mode alone."""
    able = ASKERS
    if code.startswith("preview_proxy_token_"):
        able = [asker for asker in able if asker.proxied]
    elif code.startswith(("edge_token_", "preview_grant_")):
        able = [asker for asker in able if not asker.proxied]
    if SCENARIOS[code].shaped:
        able = [a for a in able if a.method == "GET" and a.transport is Transport.HTTP]
    return able


def documented(code: str) -> set[str]:
    """The keys of ``details`` that the page names for a code."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `(\w+)` \| [^|]+ \|$", PAGE, re.MULTILINE)
    return {key for codes, key in rows if f"`{code}`" in codes.split(", ")}


def test_every_code_has_a_scenario() -> None:
    """No code without one, and none for a code that is gone."""
    assert SCENARIOS.keys() == PROBLEMS.keys()


@pytest.mark.parametrize("code", SCENARIOS)
async def test_an_error(make_stage: MakeStage, code: str) -> None:
    """Whoever meets it gets the status, the fields, and a body after his kind; then the connection is usable, or ends."""
    scenario = SCENARIOS[code]
    stage = await make_stage(**scenario.settings)
    app = await stage.app(scenario.app, listening=scenario.listening)
    box = stage.sandbox(app, scenario.state, **scenario.record)
    stage.plane.on_resume = scenario.on_resume
    stage.plane.change_grant(box.grant, **scenario.grant)
    if scenario.first is not None:
        await scenario.first(stage, box)
    clients = {asker: await stage.client() for asker in askers(code)}
    requests = {asker: scenario.ask(asker, box) for asker in clients}
    try:
        for asker, client in clients.items():
            await client.send(requests[asker])
        then = scenario.then and await scenario.then(stage, len(clients))
        for asker, client in clients.items():
            method = requests[asker].split(b" ", 1)[0]
            judge(code, asker, method, await client.answer(method))
            client.end()
            assert await client.rest() == b"", f"{asker.name}: more than the answer"
    finally:
        for client in clients.values():
            client.close()
    if then:
        await then


def judge(code: str, asker: Asker, method: bytes, answer: Answer) -> None:
    """Everything that is promised about the answer."""
    scenario, who = SCENARIOS[code], asker.name
    assert answer.status == scenario.status, (who, answer)
    names = Counter(name.lower().decode() for name, _ in answer.fields)
    promised = Counter(FIELDS)
    if answer.status in MORE:
        promised[MORE[answer.status]] = 1
    if scenario.closes:
        promised["connection"] = 1
    if asker.page:  # a page says more about itself
        assert promised <= names and not {"set-cookie", "connection"} & set(names - promised), who
    else:
        assert names == promised, who
    for name, value in VALUES.items():
        assert answer.value(name) in {value, None}, (who, name)
    kind = "text/html; charset=utf-8" if asker.page else "application/json"
    assert answer.value("content-type") == kind, who
    if method == b"HEAD":
        return
    if asker.page:
        assert answer.body.lower().startswith(b"<!doctype html>"), who
        return
    said = answer.json
    details = said.pop("details", {})
    assert set(said) == MEMBERS, who
    assert (said["code"], said["retryable"]) == (code, scenario.retryable), who
    assert said["request_id"] == answer.value("x-request-id"), who
    assert said["error"].endswith(".") and said["suggested_action"].endswith("."), who
    assert set(details) == scenario.details == documented(code), (who, details)
