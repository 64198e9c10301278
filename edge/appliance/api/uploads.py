"""Uploads in parts: the published client's way for files over 8 MiB and for directories."""

from __future__ import annotations

import asyncio
import hashlib

from aiohttp import web

from edge.appliance.api.faults import told
from edge.appliance.api.http import answer, number, parts, read, read_body, sandbox_id
from edge.appliance.api.places import files
from edge.appliance.file_requests import UploadComplete, UploadCreate
from edge.appliance.file_views import upload_view
from edge.appliance.runtime import NoSuchSandbox, RuntimeFault
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.staged import Staged
from edge.appliance.runtime.unpack import BadArchive, Unpacked, unpack
from edge.appliance.uploads import PART_SIZE, Upload, upload_error
from edge.appliance.views import Json

PIECE = 1 << 20
"""Bytes that are read at a time for the checksum of the whole."""

CHECKSUM = "x-nullspace-part-sha256"


async def create(request: web.Request) -> web.Response:
    """``POST S/uploads``: say what will come."""
    wanted = await read(request, UploadCreate)
    uploads = parts(request).uploads
    for upload in uploads.expired():
        await _forget(request, upload)
    uploads.check(sandbox_id(request), wanted)

    def begin(tree: WorkTree) -> str:
        if wanted.conflict == "error" and tree.exists(wanted.target_path):
            raise BadArchive("target_conflict", f"{wanted.target_path} exists.")
        if wanted.kind == "file":
            return tree.receive(wanted.target_path, wanted.content_length).keep()
        tree.exists(wanted.target_path)  # Raises for a path that leads out.
        return tree.aside.receive(wanted.target_path, wanted.content_length).keep()

    try:
        name = await files(request, begin)
    except BadArchive as e:
        raise upload_error(e.reason, str(e), path=wanted.target_path) from None
    upload = uploads.add(sandbox_id(request), wanted, name)
    return answer({"session": upload_view(upload)}, 201)


async def get(request: web.Request) -> web.Response:
    """``GET S/uploads/{id}``: what has come of it."""
    return answer(upload_view(_upload(request)))


async def put_part(request: web.Request) -> web.Response:
    """``PUT S/uploads/{id}/parts/{number}``: one part; again is fine."""
    upload = _upload(request)
    part = number(request.match_info["part"])
    if not isinstance(part, int):
        raise upload.error("part_out_of_range", "The part has to be a number.")
    upload.require_open()
    length = upload.part_length(part)
    data = await read_body(request, PART_SIZE)
    if len(data) != length:
        text = f"Part {part} has {length} bytes, not {len(data)}."
        raise upload.error("part_size_mismatch", text, part_number=part)
    digest = (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
    if request.headers.get(CHECKSUM, digest).lower() != digest:
        text = f"The checksum of part {part} is another one."
        raise upload.error("invalid_part_checksum", text, part_number=part)

    def write(tree: WorkTree) -> None:
        staged = _staged(tree, upload)
        try:
            staged.write_at(part * PART_SIZE, data)
        finally:
            staged.keep()

    async with upload.lock:
        upload.require_open()
        with told():
            await parts(request).runtime.files(upload.sandbox, write)
        upload.came.add(part)
        done = upload.next_part is None
        parts(request).uploads.touch(upload, "staged" if done else "uploading")
    return answer(upload_view(upload))


async def complete(request: web.Request) -> web.Response:
    """``POST S/uploads/{id}/complete``: put it in its place; again is fine."""
    wanted = await read(request, UploadComplete)
    upload = _upload(request)
    async with upload.lock:
        if upload.status != "completed":
            upload.require_open()
            if (missing := upload.next_part) is not None:
                raise upload.error("missing_parts", f"Part {missing} has not come.")
            known = {upload.wanted.whole_checksum_sha256, wanted.whole_checksum_sha256} - {None}
            await _finish(request, upload, known)
    published: Json = {"published_bytes": upload.size, "published_file_count": upload.files}
    return answer({"session": upload_view(upload), **published})


async def abort(request: web.Request) -> web.Response:
    """``DELETE S/uploads/{id}``: nothing of it is kept; again is fine."""
    upload = _upload(request)
    async with upload.lock:
        if upload.open:
            parts(request).uploads.touch(upload, "aborted")
            await _forget(request, upload)
    return web.Response(status=204)


async def _finish(request: web.Request, upload: Upload, checksums: set[str | None]) -> None:
    """Check and publish; what cannot be is failed for good, unless only the sandbox was not ready."""

    def publish(tree: WorkTree) -> Unpacked:
        with _staged(tree, upload) as staged:
            if checksums and checksums != {_checksum(staged, upload.wanted.content_length)}:
                raise BadArchive("whole_checksum_mismatch", "The checksum of the whole is wrong.")
            if upload.wanted.kind == "file":
                staged.publish(tree.paths, upload.wanted.target_path)
                return Unpacked(1, upload.wanted.content_length)
            return unpack(tree, staged, upload.wanted.target_path, upload.wanted.conflict)

    async with parts(request).sandboxes.use(upload.sandbox):
        try:
            done = await parts(request).runtime.search(upload.sandbox, publish)
        except NoSuchSandbox:
            raise
        except RuntimeFault as e:
            parts(request).uploads.touch(upload, "failed")
            if isinstance(e, BadArchive):
                raise upload.error(e.reason, str(e)) from None
            with told():
                raise
    upload.files, upload.size = done.files, done.size
    parts(request).uploads.touch(upload, "completed")


async def _forget(request: web.Request, upload: Upload) -> None:
    """Remove what has come; a sandbox that is gone has taken it along."""
    try:
        await parts(request).runtime.files(
            upload.sandbox, lambda tree: _staged(tree, upload).close()
        )
    except RuntimeFault:
        pass


def _staged(tree: WorkTree, upload: Upload) -> Staged:
    wanted = upload.wanted
    return tree.aside.again(upload.name, wanted.target_path, wanted.content_length)


def _checksum(staged: Staged, size: int) -> str:
    whole = hashlib.sha256()
    for offset in range(0, size, PIECE):
        whole.update(staged.read(offset, PIECE))
    return whole.hexdigest()


def _upload(request: web.Request) -> Upload:
    sandbox = parts(request).sandboxes.get(sandbox_id(request))
    return parts(request).uploads.get(sandbox.id, request.match_info["upload"])


ROUTES = [
    ("POST", "/v1/sandboxes/{sandbox}/uploads", create),
    ("GET", "/v1/sandboxes/{sandbox}/uploads/{upload}", get),
    ("PUT", "/v1/sandboxes/{sandbox}/uploads/{upload}/parts/{part}", put_part),
    ("POST", "/v1/sandboxes/{sandbox}/uploads/{upload}/complete", complete),
    ("DELETE", "/v1/sandboxes/{sandbox}/uploads/{upload}", abort),
]
