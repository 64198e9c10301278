"""What the scripted control plane answers a call with: as the internal API says, or some other way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from edge.core.records import SandboxRecord, State
from edge.state import wire

if TYPE_CHECKING:
    from tests.flows.controlplane import ControlPlane

Script = Callable[["Call"], Awaitable[web.StreamResponse]]
"""What a call is answered with."""


@dataclass
class Call:
    """One call of an edge: ``kind`` is sandbox, grant, resume, usage, acks or events."""

    kind: str
    id: str
    request: web.Request
    body: bytes
    plane: ControlPlane

    @property
    def timeout(self) -> float:
        """The seconds a resume was given."""
        return wire.resume_from_json(self.body).timeout


def as_json(body: bytes) -> web.Response:
    """Bytes of JSON as an answer."""
    return web.Response(body=body, content_type="application/json")


def told(record: SandboxRecord) -> web.Response:
    """A sandbox's record as an answer."""
    return as_json(wire.sandbox_to_json(record))


def refusal(status: int, code: str) -> web.Response:
    """An error of the internal API."""
    return web.Response(
        status=status, body=json.dumps({"code": code}), content_type="application/json"
    )


async def resume(call: Call) -> web.StreamResponse:
    """Compare-and-resume, as the internal API says."""
    plane = call.plane
    record = plane.sandboxes.get(call.id)
    if record is None:
        return refusal(404, "not_found")
    seen = wire.resume_from_json(call.body).paused_incarnation
    if record.state is State.PAUSED and record.incarnation == seen:
        if not record.auto_resume:
            return refusal(409, "auto_resume_disabled")
        plane.change_sandbox(call.id, state=State.RESUMING)
        record = plane.begin_incarnation(call.id)
    return told(record)


def after(event: asyncio.Event, script: Script = resume) -> Script:
    """The same, but not before the event."""

    async def answer(call: Call) -> web.StreamResponse:
        await event.wait()
        return await script(call)

    return answer


def refuse(status: int, code: str) -> Script:
    """An error of the internal API for every call."""

    async def answer(_: Call) -> web.StreamResponse:
        return refusal(status, code)

    return answer


def say(body: bytes, status: int = 200) -> Script:
    """These bytes, whatever was asked."""

    async def answer(_: Call) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type="application/json")

    return answer


async def hang(_: Call) -> web.StreamResponse:
    """No answer, ever."""
    await asyncio.Event().wait()
    raise AssertionError


async def hang_up(call: Call) -> web.StreamResponse:
    """The connection is reset in the middle of the call."""
    assert call.request.transport is not None
    call.request.transport.abort()
    return web.Response()
