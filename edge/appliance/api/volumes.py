"""Volumes, and their places in sandboxes."""

from __future__ import annotations

from aiohttp import web

from edge.appliance.api.http import answer, fields_of, only, parts, query, read, sandbox_id
from edge.appliance.parts import Parts
from edge.appliance.views import VOLUME_FIELDS, Json, attachment_view, volume_view
from edge.appliance.volumes.attachments import MAX_OF_VOLUME
from edge.appliance.volumes.requests import VolumeCreate, VolumeMount
from edge.appliance.volumes.volume import Volume


async def create(request: web.Request) -> web.Response:
    """``POST /v1/volumes``: 201 with the volume."""
    wanted = await read(request, VolumeCreate)
    volume = parts(request).volumes.create(wanted.name)
    return answer(await _measured(parts(request), volume), 201)


async def list_all(request: web.Request) -> web.Response:
    """``GET /v1/volumes``: all of them, oldest first."""
    fields = fields_of(query(request, "fields"), VOLUME_FIELDS)
    the_parts = parts(request)
    await the_parts.volumes.measure(*the_parts.volumes.all())
    return answer([only(_view(the_parts, volume), fields) for volume in the_parts.volumes.all()])


async def get(request: web.Request) -> web.Response:
    """``GET /v1/volumes/{id}``."""
    fields = fields_of(query(request, "fields"), VOLUME_FIELDS)
    return answer(only(await _measured(parts(request), _volume(request)), fields))


async def by_name(request: web.Request) -> web.Response:
    """``GET /v1/volumes/by-name/{name}``."""
    fields = fields_of(query(request, "fields"), VOLUME_FIELDS)
    volume = parts(request).volumes.named(request.match_info["name"])
    return answer(only(await _measured(parts(request), volume), fields))


async def delete(request: web.Request) -> web.Response:
    """``DELETE /v1/volumes/{id}``: refused while it is attached."""
    await parts(request).attachments.delete(_volume(request))
    return web.Response(status=204)


async def of_volume(request: web.Request) -> web.Response:
    """``GET /v1/volumes/{id}/attachments``."""
    found = parts(request).attachments.of_volume(_volume(request))
    return answer([attachment_view(sandbox, attachment) for sandbox, attachment in found])


async def of_sandbox(request: web.Request) -> web.Response:
    """``GET S/volumes``."""
    sandbox = parts(request).sandboxes.get(sandbox_id(request))
    return answer([attachment_view(sandbox, one) for one in sandbox.attachments])


async def attach(request: web.Request) -> web.Response:
    """``POST S/volumes``: 201 with the attachment."""
    wanted = await read(request, VolumeMount)
    sandbox = parts(request).sandboxes.get(sandbox_id(request))
    attachment = await parts(request).attachments.attach(sandbox, wanted)
    return answer(attachment_view(sandbox, attachment), 201)


async def detach(request: web.Request) -> web.Response:
    """``DELETE S/volumes/{attachment}``: the attachment as it was, released."""
    sandbox = parts(request).sandboxes.get(sandbox_id(request))
    attachment = await parts(request).attachments.detach(sandbox, _attachment(request))
    return answer(attachment_view(sandbox, attachment, "released"))


async def health(request: web.Request) -> web.Response:
    """``GET S/volumes/{attachment}/health``: looked at now; what is wrong is in the answer."""
    sandbox = parts(request).sandboxes.get(sandbox_id(request))
    attachment = await parts(request).attachments.health(sandbox, _attachment(request))
    return answer(attachment_view(sandbox, attachment))


async def remount(request: web.Request) -> web.Response:
    """``POST S/volumes/{attachment}/remount``: in its place again."""
    sandbox = parts(request).sandboxes.get(sandbox_id(request))
    attachment = await parts(request).attachments.remount(sandbox, _attachment(request))
    return answer(attachment_view(sandbox, attachment))


def _volume(request: web.Request) -> Volume:
    return parts(request).volumes.get(request.match_info["volume"])


def _attachment(request: web.Request) -> str:
    return request.match_info["attachment"]


async def _measured(the_parts: Parts, volume: Volume) -> Json:
    await the_parts.volumes.measure(volume)
    return _view(the_parts, volume)


def _view(the_parts: Parts, volume: Volume) -> Json:
    attached = [attachment for _, attachment in the_parts.attachments.of_volume(volume)]
    there = the_parts.volumes.there(volume)
    return volume_view(volume, attached, there=there, max_mounts=MAX_OF_VOLUME)


ROUTES = [
    ("POST", "/v1/volumes", create),
    ("GET", "/v1/volumes", list_all),
    ("GET", "/v1/volumes/by-name/{name}", by_name),
    ("GET", "/v1/volumes/{volume}", get),
    ("DELETE", "/v1/volumes/{volume}", delete),
    ("GET", "/v1/volumes/{volume}/attachments", of_volume),
    ("GET", "/v1/sandboxes/{sandbox}/volumes", of_sandbox),
    ("POST", "/v1/sandboxes/{sandbox}/volumes", attach),
    ("DELETE", "/v1/sandboxes/{sandbox}/volumes/{attachment}", detach),
    ("GET", "/v1/sandboxes/{sandbox}/volumes/{attachment}/health", health),
    ("POST", "/v1/sandboxes/{sandbox}/volumes/{attachment}/remount", remount),
]
