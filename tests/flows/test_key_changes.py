"""Keys that change under a running edge: new ones are found in time, and strangers gain nothing by it."""

from __future__ import annotations

import asyncio
import time

import pytest

from edge.state import keys
from edge.traffic import flow
from tests.flows.mint import Mint
from tests.flows.scriptedapp import ScriptedApp
from tests.flows.stage import MakeStage, Preview, Stage, until

HOUR = {"jwks_refresh": 3600.0}


@pytest.fixture(autouse=True)
def _no_ration(monkeypatch: pytest.MonkeyPatch) -> None:
    # The edge has just loaded its keys; a test does not want to wait until it may look again.
    monkeypatch.setattr(keys, "HINT_INTERVAL", 0.0)


def publish(stage: Stage, *mints: Mint) -> None:
    """Have the control plane show the public keys of all of them."""
    stage.plane.jwks = {"keys": [key for mint in mints for key in mint.jwks["keys"]]}


def by(mint: Mint, box: Preview, **changes: object) -> bytes:
    """A request whose token another key has signed."""
    claims = mint.claims(box.id, box.port, box.grant, **changes)
    return box.get(token=mint.sign(claims))


async def play(make_stage: MakeStage) -> tuple[Stage, ScriptedApp, Preview]:
    """A stage with keys from a URL that are refreshed once an hour, and a running sandbox."""
    stage = await make_stage(jwks="url", tokens=HOUR)
    app = await stage.app()
    return stage, app, stage.sandbox(app)


async def test_a_new_key_is_found_by_the_first_request_that_needs_it(
    make_stage: MakeStage,
) -> None:
    """The token that names an unknown key waits for one refresh and is then served, with a body too."""
    stage, app, box = await play(make_stage)
    new = Mint("k2")
    publish(stage, stage.mint, new)
    claims = new.claims(box.id, box.port, box.grant)
    answer = await stage.ask(box.request("POST", "/new", body=b"hello", token=new.sign(claims)))
    assert (answer.status, answer.body) == (200, b"POST /new HTTP/1.1\nhello")
    assert app.connections == 1
    assert stage.plane.counts["keys"] == 2
    assert (await stage.ask(box.get())).status == 200
    assert (await stage.ask(by(new, box))).status == 200
    assert stage.plane.counts["keys"] == 2


async def test_a_burst_makes_one_refresh(make_stage: MakeStage) -> None:
    """Many requests with the new key while its download takes its time: all served, one download."""
    stage, _, box = await play(make_stage)
    new = Mint("k2")
    publish(stage, stage.mint, new)
    stage.plane.keys_gate.clear()
    asking = [asyncio.create_task(stage.ask(by(new, box))) for _ in range(20)]
    await stage.plane.called("keys", 2)
    # Those that are known are not held up by it.
    assert (await stage.ask(box.get())).status == 200
    stage.plane.keys_gate.set()
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
    assert stage.plane.counts["keys"] == 2


async def test_a_key_that_nobody_publishes_is_refused_once_looked_for(
    make_stage: MakeStage,
) -> None:
    """401 after one refresh, nothing asked about the sandbox, and what is good stays good."""
    stage, app, box = await play(make_stage)
    answer = await stage.ask(by(Mint("k9"), box))
    assert (answer.status, answer.code) == (401, "edge_token_invalid")
    assert stage.plane.counts["keys"] == 2 and app.connections == 0
    assert stage.plane.asked == {"sandbox": 0, "grant": 0, "resume": 0}
    # A key of the same name that signs differently is no better.
    publish(stage, stage.mint, Mint("k9"))
    assert (await stage.ask(by(Mint("k9"), box))).status == 401
    assert (await stage.ask(box.get())).status == 200


async def test_only_what_would_fit_makes_anybody_look(make_stage: MakeStage) -> None:
    """Expired, for another place, of another issuer: refused without a word to the control plane."""
    stage, _, box = await play(make_stage)
    changes: dict[str, object]
    for changes in ({"exp": time.time() - 1}, {"port": 1}, {"sub": "sb_somebody1"}, {"iss": "x"}):
        answer = await stage.ask(by(Mint("k9"), box, **changes))
        assert (answer.status, answer.code) == (401, "edge_token_invalid")
    assert stage.plane.counts["keys"] == 1


async def test_a_flood_makes_no_more_refreshes_than_its_ration(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many strangers come, one refresh an interval; and nobody is held where none is under way."""
    monkeypatch.setattr(keys, "HINT_INTERVAL", 3600.0)
    stage, _, box = await play(make_stage)
    for number in range(50):
        answer = await stage.ask(by(Mint(f"x{number}"), box))
        assert (answer.status, answer.code) == (401, "edge_token_invalid")
    assert stage.plane.counts["keys"] == 1
    assert (await stage.ask(box.get())).status == 200


async def test_there_is_an_end_to_those_that_may_wait(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the download hangs, so many wait and no more; one that leaves makes room for another."""
    monkeypatch.setattr(flow, "LEARNERS", 1)
    monkeypatch.setattr(flow, "LEARN_PATIENCE", 3600.0)
    stage, _, box = await play(make_stage)
    new = Mint("k2")
    publish(stage, stage.mint, new)
    stage.plane.keys_gate.clear()
    async with await stage.client() as leaving:
        await leaving.send(by(new, box))
        await stage.plane.called("keys", 2)
        assert (await stage.ask(by(new, box))).status == 401
        leaving.reset()
        await until(lambda: not stage.edge.connections)
    async with await stage.client() as waiting:
        await waiting.send(by(new, box))
        assert (await stage.ask(by(new, box))).status == 401
        stage.plane.keys_gate.set()
        assert (await waiting.answer()).status == 200


async def test_a_download_that_hangs_holds_nobody_for_long(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait has its own end; then the token is judged by the keys there are."""
    monkeypatch.setattr(flow, "LEARN_PATIENCE", 0.05)
    stage, _, box = await play(make_stage)
    stage.plane.keys_gate.clear()
    answer = await stage.ask(by(Mint("k2"), box))
    assert (answer.status, answer.code) == (401, "edge_token_invalid")
    stage.plane.keys_gate.set()


async def test_a_key_that_is_withdrawn_ends_its_tokens(make_stage: MakeStage) -> None:
    """Once the edge has read a set without it, a token is refused that was good a moment ago."""
    stage = await make_stage(jwks="url", tokens={"jwks_refresh": 0.05})
    box = stage.sandbox(await stage.app())
    assert (await stage.ask(box.get())).status == 200
    new = Mint("k2")
    publish(stage, new)
    await stage.plane.called("keys", stage.plane.counts["keys"] + 2)
    assert (await stage.ask(box.get())).status == 401
    assert (await stage.ask(by(new, box))).status == 200
