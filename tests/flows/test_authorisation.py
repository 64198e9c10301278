"""Every credential, in every place, for every sandbox: what the edge answers, what it asks, whom it wakes.

`tests.flows.authorisation` says what ought to come of each cell; here each is played through a real edge, and
all that the client, the app and the control plane saw is compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from edge.core.credentials import Family
from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from tests.flows.authorisation import (
    OVERDUE,
    RULES,
    WAYS,
    Cell,
    Grant,
    Kind,
    Mode,
    Rule,
    Sandbox,
    Token,
    Traffic,
    World,
    cells,
    first_rule,
    presented,
)
from tests.flows.forgeries import SOMEBODY
from tests.flows.rawclient import Answer, RawClient
from tests.flows.scriptedapp import AppConnection, ScriptedApp
from tests.flows.stage import PORT, PROXY_HEADER, UPGRADE, MakeStage, Preview, Stage, until

PAGE = (Path(__file__).parents[2] / "docs" / "authorisation.md").read_text()
SECRET, TRAFFIC_HEADER = "a traffic access token", "x-nullspace-traffic-access-token"
MARKER = "__ns_preview_transport"
ENOUGH = 10
"""Wrong cells after which the rest of a slice tells nothing new."""

# --- What the sides see -------------------------------------------------------------------------------

ERROR = {
    "date",
    "content-type",
    "content-length",
    "cache-control",
    "x-content-type-options",
    "x-request-id",
}
"""The fields of every error; 401 and 503 have one more each."""
MEMBERS = {"error", "code", "request_id", "retryable", "suggested_action"}
DETAILS: dict[str, dict[str, Any]] = {
    "preview_overloaded": {"limit": "wake.budget_per_hour"},
    "wake_suppressed_by_policy": {"kind": "prefetch"},
}
WELCOME = b"HTTP/1.1 200 OK\r\nX-App: yes\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)


async def welcome(connection: AppConnection) -> None:
    """An app that lets everybody in, once a connection."""
    head = await connection.read_head()
    await connection.send(ACCEPTED if b"Sec-WebSocket-Key" in head else WELCOME)
    if b"Sec-WebSocket-Key" in head:
        await connection.read_to_end()


# --- Playing a cell -----------------------------------------------------------------------------------


@dataclass
class Play:
    """One slice: its stage, its app, and one connection for all requests that leave it usable."""

    stage: Stage
    app: ScriptedApp
    number: int = 0
    client: RawClient | None = None
    wrong: list[str] = field(default_factory=list)
    rules: Counter[str] = field(default_factory=Counter)

    async def cell(self, cell: Cell) -> None:
        """Play it, and note what is not as the rules say."""
        rule, box = first_rule(cell), self.world(cell)
        asked, requests = dict(self.stage.plane.asked), len(self.app.requests)
        answer = await self._answer(cell, rule, box)
        now = self.stage.plane.asked
        calls = {kind: now[kind] - asked[kind] for kind in now if now[kind] != asked[kind]}
        heads = self.app.requests[requests:]
        said = [*_answer_faults(cell, rule, answer, f"cell-{self.number}")]
        said += _call_faults(rule, calls)
        said += _forwarded_faults(rule, heads)
        self.rules[rule.when] += 1
        if said:
            self.wrong.append(f"{cell}\n    by: {rule.when}\n    but: " + "; ".join(said))

    async def _answer(self, cell: Cell, rule: Rule, box: Preview) -> Answer:
        if self.client is None:
            self.client = await self.stage.client()
        client = self.client
        await client.send(_request(cell, box, f"cell-{self.number}"))
        if rule.held:
            answering = asyncio.create_task(client.answer())
            await until(lambda: answering.done() or self._waiting() == 1)
            assert not answering.done() or answering.exception() is None
            if rule.held == "running":
                self.stage.plane.begin_incarnation(box.id)
            else:
                self.stage.plane.pause(box.id)
            answer = await answering
        else:
            answer = await client.answer()
        if answer.status == 101 or answer.value("connection") is not None:
            client.close()
            self.client = None
        return answer

    def _waiting(self) -> int:
        return self.stage.edge.admission.counts()["waiting"]

    def world(self, cell: Cell) -> Preview:
        """The cell's world, under ids of its own: the edge knows nothing of it yet."""
        self.number += 1
        box = Preview(self.stage, f"sb_cell{self.number:08d}", PORT, f"pvg_{self.number:032x}")
        self._publish_sandbox(cell.world, box)
        self._publish_grant(cell, box)
        if cell.world.kind is Kind.SPENT:
            assert self.stage.edge.admission.spend_wake(box.grant)  # the only one: see the settings
        return box

    def _publish_sandbox(self, world: World, box: Preview) -> None:
        plane = self.stage.plane
        upstream = plane.upstreams[box.id] = Upstream("127.0.0.1", {PORT: self.app.port})
        if world.sandbox is Sandbox.UNKNOWN:
            return
        state = STATES[world.sandbox]
        running = state in (State.RUNNING, State.PAUSING)
        public = world.traffic in (Traffic.PUBLIC, Traffic.NEEDLESS)
        record = SandboxRecord(
            box.id,
            state,
            version=1,
            incarnation=1,
            auto_resume=world.sandbox is not Sandbox.SLEEPS_ON,
            running_since=time.time() - 3600 if running else None,
            upstream=upstream if running else None,
            traffic_token_sha256=None if public else hashlib.sha256(SECRET.encode()).hexdigest(),
            previews_disabled=world.sandbox in (Sandbox.OFF_RUNNING, Sandbox.OFF_PAUSED),
        )
        plane.put(record, tell=False)

    def _publish_grant(self, cell: Cell, box: Preview) -> None:
        state = cell.world.grant
        if state is Grant.UNKNOWN:
            return
        kinds = frozenset({cell.transport})
        record = GrantRecord(
            box.grant,
            box.id,
            PORT,
            kinds=frozenset(Transport) - kinds if state is Grant.NARROWER else kinds,
            status=STATUSES.get(state, GrantStatus.ACTIVE),
            expires_at=time.time() + (-1 if state is Grant.OUTLIVED else 900),
            version=1,
        )
        self.stage.plane.put(record, tell=False)


STATES = {
    Sandbox.PAUSED: State.PAUSED,
    Sandbox.RUNNING: State.RUNNING,
    Sandbox.CREATING: State.CREATING,
    Sandbox.PAUSING: State.PAUSING,
    Sandbox.RESUMING: State.RESUMING,
    Sandbox.SLEEPS_ON: State.PAUSED,
    Sandbox.DESTROYED: State.DESTROYED,
    Sandbox.ERROR: State.ERROR,
    Sandbox.OFF_RUNNING: State.RUNNING,
    Sandbox.OFF_PAUSED: State.PAUSED,
}
STATUSES = {
    Grant.REVOKED: GrantStatus.REVOKED,
    Grant.EXPIRED: GrantStatus.EXPIRED,
    Grant.DISABLED: GrantStatus.DISABLED,
}
FAMILIES = {"edge": Family.EDGE, "proxy": Family.PROXY, "cookie": Family.CONTINUATION}
TRAFFIC_TOKENS = {
    Traffic.RIGHT: [SECRET],
    Traffic.WRONG: ["a guess"],
    Traffic.TWO: [SECRET, "a guess"],
    Traffic.NEEDLESS: ["a guess"],
}


def _request(cell: Cell, box: Preview, request_id: str) -> bytes:
    """The bytes of the cell's request."""
    words = Words(cell, box)
    way = cell.way
    query = "&".join(words.pair(word) for word in way.query.split())
    lines = [f"X-Request-Id: {request_id}"]
    if way.cookies:
        lines.append("Cookie: " + "; ".join(words.cookie(word) for word in way.cookies.split()))
    lines += [f"{PROXY_HEADER}: {words.token(word)}" for word in way.header.split()]
    lines += [f"{TRAFFIC_HEADER}: {token}" for token in TRAFFIC_TOKENS.get(cell.world.traffic, [])]
    if cell.world.kind is Kind.PREFETCH:
        lines.append("Sec-Purpose: prefetch")
    upgrade = b""
    if cell.transport is Transport.WEBSOCKET:
        lines.append(f"Origin: https://{box.host}")  # the best of origins makes a cookie no better
        upgrade = UPGRADE
    fields = "".join(line + "\r\n" for line in lines).encode() + upgrade
    return box.get(f"/?{query}" if query else "/", fields, token="")


class Words:
    """The tokens of one request; the same word is the same token."""

    def __init__(self, cell: Cell, box: Preview) -> None:
        self._cell = cell
        self._box = box
        self._made: dict[str, str] = {"empty": "", "bad": "one.two.three"}

    def pair(self, word: str) -> str:
        """A pair of the query."""
        markers = {"marker": f"{MARKER}=header", "another-marker": f"{MARKER}=Header"}
        return markers.get(word) or f"edge_token={self.token(word)}"

    def cookie(self, word: str) -> str:
        """A pair of the Cookie field."""
        scheme, _, rest = word.rpartition(":")
        return f"{'ns_preview' if scheme else '__Host-ns_preview'}={self.token(rest)}"

    def token(self, word: str) -> str:
        """The token."""
        if word not in self._made:
            self._made[word] = self._sign(word)
        return self._made[word]

    def _sign(self, word: str) -> str:
        good = word.startswith("good-")
        family = FAMILIES[word.removeprefix("good-").removesuffix("-other")]
        # A cookie is for HTTP, whatever is asked with it.
        cookie = family is Family.CONTINUATION
        kind = Transport.HTTP if cookie else self._cell.transport
        other = Transport.WEBSOCKET if kind is Transport.HTTP else Transport.HTTP
        faults: dict[Token, dict[str, Any]] = {
            Token.FORGED: {"key": "x" * 64 if cookie else SOMEBODY},
            Token.OTHER_SITE: {"aud": "preview.other"},
            Token.EXPIRED: {"exp": time.time() - 1},
            Token.OTHER_SANDBOX: {"sub": "sb_somebody1"},
            Token.OTHER_PORT: {"port": PORT + 1},
            Token.OTHER_TRANSPORT: {"kind": other},
        }
        changes: dict[str, Any] = {"kind": kind}
        for fault in () if good else self._cell.token:
            changes |= faults[fault]
        return self._box.token(family, **changes)


# --- Judging it ---------------------------------------------------------------------------------------


def _answer_faults(cell: Cell, rule: Rule, answer: Answer, request_id: str) -> list[str]:
    """What of the answer is not as the rule says."""
    names = Counter(name.lower().decode() for name, _ in answer.fields)
    if rule.status == 200:
        return _welcome_faults(cell, answer, names)
    expected = Counter(ERROR)
    if rule.status == 401:
        expected["www-authenticate"] += 1
    if rule.status == 503:
        expected["retry-after"] += 1
    code = rule.proxy if cell.way.mode is Mode.PROXY else rule.direct
    faults = [] if answer.status == rule.status else [f"status {answer.status}"]
    if names != expected:
        return [*faults, f"fields {sorted(names.elements())}"]
    if answer.status != rule.status:
        return [*faults, answer.body.decode("latin-1")]
    values = {name.lower().decode(): value.decode() for name, value in answer.fields}
    promised = {
        "content-type": "application/json",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-request-id": request_id,
        "www-authenticate": 'NullspacePreview realm="preview"',
        "retry-after": "5",
    }
    faults += [
        f"{name}: {values[name]}"
        for name, value in promised.items()
        if values.get(name, value) != value
    ]
    document = dict(answer.json)
    members = {
        "code": code,
        "retryable": rule.retryable,
        "request_id": request_id,
        "details": DETAILS.get(code),
    }
    faults += [
        f"{name} = {document.get(name)!r}"
        for name, value in members.items()
        if document.get(name) != value
    ]
    if set(document) - {"details"} != MEMBERS:
        faults.append(f"members {sorted(document)}")
    return faults


def _welcome_faults(cell: Cell, answer: Answer, names: Counter[str]) -> list[str]:
    """The app's own answer, and nothing beside it but the cookie of a signed link."""
    if cell.transport is Transport.WEBSOCKET:
        expected = Counter(["sec-websocket-accept", "connection", "upgrade"])
        good = answer.status == 101
    else:
        expected = Counter(["x-app", "content-length"])
        if cell.way.mode is Mode.DIRECT and not cell.way.by_cookie:
            expected.update(["set-cookie", "cache-control"])
        good = answer.status == 200 and answer.body == b"hi"
    faults = [] if good else [f"status {answer.status}, {answer.body.decode('latin-1')}"]
    if names != expected:
        faults.append(f"fields {sorted(names.elements())}")
    if names["cache-control"] and answer.values("cache-control") != ["private"]:
        faults.append(f"cache-control: {answer.values('cache-control')}")
    return faults


def _call_faults(rule: Rule, calls: dict[str, int]) -> list[str]:
    expected = dict.fromkeys(rule.asks, 1)
    if rule.held and calls.get("sandbox", 0) > 1:
        calls = calls | {
            "sandbox": 1
        }  # who waits for over a second asks whether it has missed something
    return [] if calls == expected else [f"asked {calls}"]


def _forwarded_faults(rule: Rule, heads: list[bytes]) -> list[str]:
    if len(heads) != (rule.status == 200):
        return [f"the app got {len(heads)} requests"]
    secrets = (b"edge_token", b"x-nullspace", b"ns_preview")
    return [f"the app got {heads}" for head in heads if any(s in head.lower() for s in secrets)]


# --- The tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", Transport, ids=["http", "websocket"])
@pytest.mark.parametrize("group", WAYS)
async def test_every_cell(make_stage: MakeStage, group: str, transport: Transport) -> None:
    """Status, fields, body, look-ups and wakes of every cell of this slice are what its first rule says."""
    stage = await make_stage(
        # A cell that waits and should not costs a window.
        wake={"budget_per_hour": 1, "window": 5.0},
        tokens={"failures_per_minute": 0},
        # On a machine that stalls, heartbeats are late, and the edge would ask again for that.
        catalog={"fresh": 60, "stale_after": 60},
    )
    play = Play(stage, await stage.app(welcome))
    for cell in cells(group, transport):
        await play.cell(cell)
        if len(play.wrong) >= ENOUGH:
            break
    if play.client is not None:
        play.client.close()
    assert not play.wrong, f"of {play.number} cells:\n" + "\n".join(play.wrong)
    assert play.number >= len(WAYS[group])


async def test_past_the_window(make_stage: MakeStage) -> None:
    """Who waits for a record that does not change is told so when the window is over; nobody is woken."""
    stage = await make_stage(wake={"window": 1.0})
    play = Play(stage, await stage.app(welcome))

    async def wait(cell: Cell, box: Preview) -> None:
        answer = await stage.ask(_request(cell, box, box.id))
        assert (answer.status, answer.code) == (503, OVERDUE[cell.world.sandbox]), str(cell)
        assert answer.values("retry-after") == ["5"] and answer.json["retryable"] is True

    async with asyncio.TaskGroup() as waiting:
        for group, sandbox, transport in product(WAYS, OVERDUE, Transport):
            cell = Cell(WAYS[group][0], transport, Token.RIGHT, World(sandbox))
            if first_rule(cell).held:
                waiting.create_task(wait(cell, play.world(cell)))
    assert play.number == 5 * len(OVERDUE)
    assert stage.plane.counts["resume"] == 0 and not play.app.requests


def test_every_rule_decides_something() -> None:
    """No rule stands in the table for show: each is the first that applies to some cell."""
    every = (
        cell for group, transport in product(WAYS, Transport) for cell in cells(group, transport)
    )
    used = Counter(first_rule(cell).when for cell in every)
    assert used.keys() == {rule.when for rule in RULES}
    assert used.total() > 10_000  # the page says so


def test_the_page_shows_the_rules() -> None:
    """The rows of docs/authorisation.md are the ways and the rules, in their order; so are the late answers."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    ways = [presented(way) for group in WAYS.values() for way in group]
    heads = [
        "| the request carries | mode | HTTP | WebSocket upgrade |",
        "| the first that applies | answer | retryable | the control plane is asked for |",
    ]
    assert rows == [heads[0], *ways, heads[1], *(rule.row for rule in RULES)]
    for sandbox, code in OVERDUE.items():
        assert re.search(f"503 `{code}` for [^.,]*`{sandbox.value}`", " ".join(PAGE.split()))
