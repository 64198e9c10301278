"""``python -m tests.fleet.plane FOLDER``: the scripted control plane as a process that can be stopped and killed.

What it knows and what it was asked is in ``FOLDER/journal``, a line each, written before anything is answered. So
killed and begun again it goes on where it was, like one with a database, and a test counts what happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from edge.core.records import GrantRecord, SandboxRecord, State, Upstream
from edge.core.redis_settings import RedisSettings
from edge.state import wire
from edge.state.redis import Publisher
from tests.flows.controlplane import ControlPlane
from tests.flows.scripts import Call, resume


class Plane:
    """The control plane of one process. ``gate`` holds back resumes while it is shut."""

    def __init__(self, folder: Path) -> None:
        self.plane = ControlPlane()
        self.gate = asyncio.Event()
        self.gate.set()
        told = json.loads((folder / "plane.json").read_text())
        self.plane.port, self._backstage = told["port"], told["backstage"]
        journal = folder / "journal"
        for line in journal.read_bytes().splitlines() if journal.exists() else ():
            self._recall(json.loads(line))
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.publisher = Publisher(
            RedisSettings(url=told["redis"]),
            lambda: [*self.plane.sandboxes.values(), *self.plane.grants.values()],
            wall=time.time,
            log=lambda event, **fields: print(event, fields, flush=True),
        )
        self.plane.on_call = self._called
        self.plane.on_record = self._changed
        self.plane.on_resume = self._resume

    async def run(self) -> None:
        """Until it is killed."""
        for sandbox in list(self.plane.sandboxes.values()):
            if sandbox.state is State.RESUMING:  # it died in the middle, and nothing came of it
                self.plane.change_sandbox(sandbox.id, state=State.PAUSED)
        app = web.Application()
        app.add_routes([web.post("/", self._told)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await self.plane.start()
        await web.TCPSite(runner, "127.0.0.1", self._backstage, reuse_address=True).start()
        print("listening", flush=True)
        await self.publisher.run()

    def note(self, **what: Any) -> None:
        """One line of the journal."""
        os.write(self._journal, json.dumps(what).encode() + b"\n")

    def _recall(self, line: dict[str, Any]) -> None:
        match line:
            case {"sandbox": record}:
                known = wire.sandbox_from_json(record)
                self.plane.sandboxes[known.id] = known
            case {"grant": record}:
                grant = wire.grant_from_json(record)
                self.plane.grants[grant.id] = grant
            case {"upstream": sandbox_id, "port": port, "at": at}:
                self.plane.upstreams[sandbox_id] = Upstream("127.0.0.1", {port: at})

    def _called(self, call: Call) -> None:
        self.note(call=call.kind, id=call.id, at=time.time())

    def _changed(self, record: SandboxRecord | GrantRecord) -> None:
        if isinstance(record, SandboxRecord):
            self.note(sandbox=wire.sandbox_to_json(record).decode())
        else:
            self.note(grant=wire.grant_to_json(record).decode())
        self.publisher.publish(record)

    async def _resume(self, call: Call) -> web.StreamResponse:
        await self.gate.wait()
        return await resume(call)

    async def _told(self, request: web.Request) -> web.Response:
        """What the test wants: records in, sandboxes paused, the gate shut or opened."""
        match await request.json():
            case {"gate": is_open}:
                self.gate.set() if is_open else self.gate.clear()
            case {"pause": sandbox_id}:
                self.plane.pause(sandbox_id)
            case {"upstream": sandbox_id, "port": port, "at": at} as line:
                self.plane.upstreams[sandbox_id] = Upstream("127.0.0.1", {port: at})
                self.note(**line)
            case {"sandbox": record}:
                self.plane.put(wire.sandbox_from_json(record))
            case {"grant": record}:
                self.plane.put(wire.grant_from_json(record))
            case unknown:
                raise web.HTTPBadRequest(text=str(unknown))
        return web.Response(status=204)


if __name__ == "__main__":

    async def _main() -> None:
        await Plane(Path(sys.argv[1])).run()

    asyncio.run(_main())
