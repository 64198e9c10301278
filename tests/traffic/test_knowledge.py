"""Knowledge: what `decide` reads is what the parts know at that moment."""

from __future__ import annotations

from edge.core.credentials import Expectation
from edge.core.records import Missing
from edge.core.target import Target
from tests.flows.stage import MakeStage


async def test_it_shows_what_the_parts_know(make_stage: MakeStage) -> None:
    """Keys, records and room of the moment, asked of nobody else."""
    stage = await make_stage(
        websocket_continuation="same_origin", admission={"in_flight_per_sandbox": 1}
    )
    box = stage.sandbox(await stage.app())
    knowledge = stage.edge.flow._knowledge
    assert knowledge.websocket_cookie
    assert knowledge.keys is stage.edge.keys.keys
    assert isinstance(knowledge.expect, Expectation)
    assert knowledge.expect.audience == stage.mint.site
    assert knowledge.target(box.host.encode()) == Target(box.id, box.port)
    assert knowledge.sandbox(box.id) is Missing.UNKNOWN
    assert knowledge.has_room(box.id)
    assert (await stage.ask(box.get("/"))).status == 200
    assert knowledge.sandbox(box.id) == stage.edge.catalog.sandbox(box.id)
    assert knowledge.grant(box.grant) == stage.edge.catalog.grant(box.grant)
    assert stage.edge.admission.enter(box.id)
    assert not knowledge.has_room(box.id)
    stage.edge.admission.leave(box.id)
