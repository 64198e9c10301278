"""Files of a sandbox as they are: streamed up and down, several at once, and links to do so later.

Memory stays the same whatever their size: what comes goes to disk piece by piece, in threads, and only
so fast; what leaves is read at the pace at which it is taken.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import BodyPartReader, MultipartReader, hdrs, web

from edge.appliance.api.faults import told
from edge.appliance.api.files import checked
from edge.appliance.api.http import MAX_JSON, answer, parts, query, read, sandbox_id
from edge.appliance.api.places import FOR_SANDBOXES, FOR_VOLUMES, files, place_id, used, volume_id
from edge.appliance.bodies import parse
from edge.appliance.file_requests import FileBatch, FileLink
from edge.appliance.file_views import file_view
from edge.appliance.problems import (
    NOT_IMPLEMENTED,
    PAYLOAD_TOO_LARGE,
    REQUEST_TIMEOUT,
    ApiError,
    invalid,
)
from edge.appliance.runtime import NoSuchSandbox, RuntimeFault
from edge.appliance.runtime.staged import Staged
from edge.appliance.views import Json

MAX_STREAMED = 16 << 30
"""Bytes of one file that is streamed."""

MAX_BATCH = 1 << 30
"""Bytes of all files of a batch."""

PIECE = 256 << 10
"""Bytes between memory and disk at a time."""

STALLED = 60.0
"""Seconds without a byte after which a transfer ends."""


async def upload(request: web.Request) -> web.Response:
    """``PUT S/file?path=``: write the body. The file is there when all of it has come, or not at all."""
    path = checked(_asked(request).get("path", ""))
    if (request.content_length or 0) > MAX_STREAMED:
        raise ApiError(PAYLOAD_TOO_LARGE, details={"limit": MAX_STREAMED})
    staged = await files(request, lambda tree: tree.receive(path, MAX_STREAMED))
    try:
        async with used(request):
            await receive(request.content.readany, staged)
        # Used again: it may have been paused or destroyed since.
        await files(request, lambda tree: tree.publish(staged, path))
    finally:
        await asyncio.to_thread(staged.close)
    return web.Response(status=204)


async def download(request: web.Request) -> web.StreamResponse:
    """``GET S/file?path=``: the file as it is, as long as it was when it was opened."""
    path = checked(_asked(request).get("path", ""))
    file, size = await files(request, lambda tree: tree.open_file(path), reading=True)
    try:
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/octet-stream"})
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        response.content_length = size
        async with used(request, reading=True):
            await response.prepare(request)
            await _send(response, file, size)
        await response.write_eof()
        return response
    except TimeoutError:
        raise ConnectionResetError("The client takes nothing any more.") from None
    finally:
        os.close(file)


async def batch_write(request: web.Request) -> web.Response:
    """``POST S/files/batch-write``: a manifest, then the files; each succeeds or fails by itself."""
    if not request.content_type.startswith("multipart/"):
        raise invalid("The body has to be multipart/form-data.")
    try:
        reader = await request.multipart()
        paths = await _manifest(reader)
        results: dict[str, Json] = {}
        left = MAX_BATCH
        async with parts(request).sandboxes.use(sandbox_id(request)) as sandbox:
            while (part := await _next(reader)) is not None:
                if part.name not in paths or part.name in results:
                    raise invalid("A part is not in the manifest, or there twice.")
                path = paths[part.name]
                with told():
                    staged = await _stage(request, sandbox.id, part, path, left)
                    results[part.name] = await _publish(request, sandbox.id, staged, path)
                left -= staged.size
    except (ValueError, web.RequestPayloadError):
        raise invalid("The body is not good multipart/form-data.") from None
    missing: Json = {"status": "error", "error": "There is no such part."}
    return answer(
        {"results": [{"path": path} | results.get(field, missing) for field, path in paths.items()]}
    )


async def download_url(request: web.Request) -> web.Response:
    """``POST S/files/download-url``: a link that needs no key, for a quarter of an hour."""
    return await _link(request, hdrs.METH_GET)


async def upload_url(request: web.Request) -> web.Response:
    """``POST S/files/upload-url``: the same for writing."""
    return await _link(request, hdrs.METH_PUT)


async def _link(request: web.Request, method: str) -> web.Response:
    wanted = await read(request, FileLink)
    if wanted.archive_format is not None:
        raise ApiError(
            NOT_IMPLEMENTED, "Archives are not offered here.", {"field": "archive_format"}
        )
    place = place_id(request)
    signed = parts(request).links.sign(method, place, wanted.path)
    path = FILE if volume_id(request) is None else VOLUME_FILE
    path = path.format(sandbox=place, volume=place)
    return answer({"url": str(request.url.origin().with_path(path).with_query(signed))})


def linked(request: web.Request) -> bool:
    """Whether the request carries a signature of ours for exactly what it asks."""
    resource = request.match_info.route.resource
    if resource is None or resource.canonical not in (FILE, VOLUME_FILE):
        return False
    if "signature" not in request.query:
        return False
    said = {name: request.query.get(name, "") for name in ("path", "expires", "signature")}
    return parts(request).links.good(
        request.method, volume_id(request) or sandbox_id(request), said
    )


async def receive(
    more: Callable[[], Awaitable[bytes]],
    staged: Staged,
) -> None:
    """Write all that comes. Raises `ApiError` (what `Staged.write` means, request_timeout)."""
    gathered = bytearray()
    with told():
        while True:
            try:
                async with asyncio.timeout(STALLED):
                    piece = await more()
            except TimeoutError:
                raise ApiError(REQUEST_TIMEOUT) from None
            except web.RequestPayloadError:
                raise invalid("The body cannot be read.") from None
            gathered += piece
            if len(gathered) >= PIECE or (not piece and gathered):
                await asyncio.to_thread(staged.write, gathered)
                gathered.clear()
            if not piece:
                return


async def _send(response: web.StreamResponse, file: int, size: int) -> None:
    offset = 0
    while offset < size:
        data = await asyncio.to_thread(os.pread, file, min(PIECE, size - offset), offset)
        if not data:
            # Shorter than promised by now: the client has to see that this is not all.
            raise ConnectionResetError("The file was made shorter while it was sent.")
        offset += len(data)
        async with asyncio.timeout(STALLED):
            await response.write(data)


async def _manifest(reader: MultipartReader) -> dict[str, str]:
    """Which path each part goes to."""
    first = await _next(reader)
    if first is None or first.name != "manifest":
        raise invalid("The first part has to be the manifest.")
    text = bytearray()
    while piece := await first.read_chunk(PIECE):
        text += piece
        if len(text) > MAX_JSON:
            raise ApiError(PAYLOAD_TOO_LARGE, details={"limit": MAX_JSON})
    manifest = parse(FileBatch, bytes(text))
    paths = {file.field: file.path for file in manifest.files}
    if len(paths) < len(manifest.files):
        raise invalid("manifest: each file needs a part of its own")
    return paths


async def _next(reader: MultipartReader) -> BodyPartReader | None:
    async with asyncio.timeout(STALLED):
        part = await reader.next()
    if isinstance(part, MultipartReader):
        raise invalid("A part must not have parts.")
    return part


async def _stage(
    request: web.Request, sandbox: str, part: BodyPartReader, path: str, limit: int
) -> Staged:
    runtime = parts(request).runtime
    staged = await runtime.files(sandbox, lambda tree: tree.aside.receive(path, limit))
    try:
        await receive(lambda: part.read_chunk(PIECE), staged)
    except BaseException:
        await asyncio.to_thread(staged.close)
        raise
    return staged


async def _publish(request: web.Request, sandbox: str, staged: Staged, path: str) -> Json:
    runtime = parts(request).runtime
    try:
        entry = await runtime.files(sandbox, lambda tree: tree.publish(staged, path))
    except NoSuchSandbox:
        raise
    except RuntimeFault as e:
        return {"status": "error", "error": str(e)}
    finally:
        await asyncio.to_thread(staged.close)
    return {"status": "success", "info": file_view(entry)}


def _asked(request: web.Request) -> Mapping[str, str]:
    return query(request, "path", "user", "expires", "signature")


FILE = f"{FOR_SANDBOXES}file"
VOLUME_FILE = f"{FOR_VOLUMES}file"

ROUTES = [
    ("GET", FILE, download),
    ("PUT", FILE, upload),
    ("GET", VOLUME_FILE, download),
    ("PUT", VOLUME_FILE, upload),
    ("POST", f"{FOR_SANDBOXES}files/batch-write", batch_write),
    ("POST", f"{FOR_SANDBOXES}files/download-url", download_url),
    ("POST", f"{FOR_SANDBOXES}files/upload-url", upload_url),
    ("POST", f"{FOR_VOLUMES}files/download-url", download_url),
    ("POST", f"{FOR_VOLUMES}files/upload-url", upload_url),
]
