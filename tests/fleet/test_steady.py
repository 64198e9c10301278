"""In the steady state a request costs Redis and the control plane nothing."""

from __future__ import annotations

import asyncio

from tests.fleet.conftest import MakeFleet
from tests.state.redis.valkey import Valkey

BEATING = frozenset({"eval", "eval_ro", "multi", "exec", "xrevrange", "get", "info", "xadd"})
"""What a heartbeat is made of; a look-up would need hget, a lease set, usage xlen."""
MEMBERSHIP = frozenset(
    {"time", "type", "zadd", "zremrangebyscore", "zremrangebyrank", "zrangebyscore"}
)
FOLLOWING = frozenset({"xread"})
CONNECTING = frozenset({"select", "client|setinfo"})  # the latter are the test's own


async def calls(redis: Valkey) -> dict[str, int]:
    """Commands the server has carried out so far, by name."""
    async with redis.client() as client:
        stats = await client.info("commandstats")
    return {name.removeprefix("cmdstat_"): said["calls"] for name, said in stats.items()}


async def test_requests_to_running_sandboxes_cost_nothing(
    make_fleet: MakeFleet, redis: Valkey
) -> None:
    """Nine hundred requests: not one command beyond the heartbeats, not one call but the usage reports."""
    # A machine that stands still for a second shall not look like trouble.
    fleet = await make_fleet(catalog={"fresh": 60.0, "stale_after": 60.0}, redis={"timeout": 10.0})
    app = await fleet.app()
    boxes = [fleet.sandbox(app) for _ in range(3)]
    requests = [box.get("/", token=box.token()) for box in boxes]
    for request in requests:
        assert await fleet.everywhere(request) == [200] * 3
    await fleet.whole()
    before, asked = await calls(redis), fleet.plane.counts.copy()
    for _ in range(100):
        for request in requests:
            async with asyncio.TaskGroup() as group:
                answers = [group.create_task(fleet.at(edge, request)) for edge in fleet.edges]
            assert [answer.result().status for answer in answers] == [200] * 3
    after = await calls(redis)
    went = {name: count - before.get(name, 0) for name, count in after.items()}
    went = {name: count for name, count in went.items() if count}
    assert set(went) <= BEATING | MEMBERSHIP | FOLLOWING | CONNECTING, went
    # Every script is accounted for by the one thing that heartbeats and members need it for.
    assert went.get("eval", 0) == went.get("xadd", 0) + went.get("zadd", 0), went
    assert went.get("eval_ro", 0) == went.get("zrangebyscore", 0), went
    assert set(fleet.plane.counts - asked) <= {"usage"}
