"""Files of a sandbox: write, read, list; as JSON or as they are."""

from __future__ import annotations

import base64
import binascii
import posixpath

from aiohttp import web

from edge.appliance.api.faults import told
from edge.appliance.api.http import answer, parts, query, read, read_body, sandbox_id, whole
from edge.appliance.problems import FILE_NOT_FOUND, ApiError, invalid
from edge.appliance.requests import FilePath, FileRead, FileWrite
from edge.appliance.runtime import FileEntry, Runtime
from edge.appliance.views import Json, rfc3339

MAX_FILE = 64 << 20
"""Bytes of one file that is written or read."""

MAX_WRITE = MAX_FILE // 3 * 4 + (1 << 16)
"""Bytes of a body that carries a file as base64."""

MAX_DEPTH = 32

WORK_TREE = "/workspace"


async def write(request: web.Request) -> web.Response:
    """``POST S/files/write``: a file as text or base64; answers what is there now."""
    wanted = await read(request, FileWrite, MAX_WRITE)
    data = _decoded(wanted)
    the_parts = parts(request)
    async with the_parts.sandboxes.use(sandbox_id(request)) as sandbox:
        with told():
            await the_parts.runtime.write_file(sandbox.id, wanted.path, data)
            return answer(await _info(the_parts.runtime, sandbox.id, wanted.path))


async def read_text(request: web.Request) -> web.Response:
    """``POST S/files/read``: a file as text or base64."""
    wanted = await read(request, FileRead)
    data = await _read(request, wanted.path)
    if wanted.encoding == "base64":
        content = base64.b64encode(data).decode("ascii")
    else:
        try:
            content = data.decode("utf-8")
        except UnicodeDecodeError:
            raise invalid("The file is not UTF-8; read it as bytes.") from None
    return answer({"path": wanted.path, "content": content, "encoding": wanted.encoding})


async def info(request: web.Request) -> web.Response:
    """``POST S/files/info``: one entry; the client asks for it after a streamed write."""
    wanted = await read(request, FilePath)
    the_parts = parts(request)
    async with the_parts.sandboxes.use(sandbox_id(request), reading=True) as sandbox:
        with told():
            return answer(await _info(the_parts.runtime, sandbox.id, wanted.path))


async def list_files(request: web.Request) -> web.Response:
    """``GET S/files?path=&depth=``: the entries of a directory."""
    asked = query(request, "path", "depth", "user")
    depth = whole(asked, "depth", default=1, low=1, high=MAX_DEPTH)
    path = _path(asked.get("path", "/"))
    # The client's default; of the root there is nothing to show but the work tree.
    path = WORK_TREE if path == "/" else path
    the_parts = parts(request)
    async with the_parts.sandboxes.use(sandbox_id(request), reading=True) as sandbox:
        with told():
            found = await the_parts.runtime.list_dir(sandbox.id, path, depth)
    return answer([_view(entry) for entry in found])


async def download(request: web.Request) -> web.Response:
    """``GET S/file?path=``: the file as it is."""
    asked = query(request, "path", "user")
    data = await _read(request, _path(asked.get("path", "")))
    return web.Response(body=data, content_type="application/octet-stream")


async def upload(request: web.Request) -> web.Response:
    """``PUT S/file?path=``: write the body."""
    path = _path(query(request, "path", "user").get("path", ""))
    the_parts = parts(request)
    the_parts.sandboxes.get(sandbox_id(request))
    data = await read_body(request, MAX_FILE)
    async with the_parts.sandboxes.use(sandbox_id(request)) as sandbox:
        with told():
            await the_parts.runtime.write_file(sandbox.id, path, data)
    return web.Response(status=204)


async def _read(request: web.Request, path: str) -> bytes:
    the_parts = parts(request)
    async with the_parts.sandboxes.use(sandbox_id(request), reading=True) as sandbox:
        with told():
            return await the_parts.runtime.read_file(sandbox.id, path, MAX_FILE)


async def _info(runtime: Runtime, sandbox: str, path: str) -> Json:
    """The entry of a path, found in the listing of its directory."""
    directory, name = posixpath.split(posixpath.normpath(path))
    for entry in await runtime.list_dir(sandbox, directory or ".", 1):
        if entry.name == name:
            return _view(entry)
    raise ApiError(FILE_NOT_FOUND)


def _decoded(wanted: FileWrite) -> bytes:
    try:
        if wanted.encoding == "base64":
            return base64.b64decode(wanted.content, validate=True)
        return wanted.content.encode("utf-8")
    except (binascii.Error, ValueError):
        raise invalid(f"content: not {wanted.encoding}") from None


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise invalid("path: must not be empty or contain NUL")
    return text


def _view(entry: FileEntry) -> Json:
    """A FileInfo; the client knows three types and no other."""
    kind = entry.type if entry.type in ("file", "dir", "symlink") else "file"
    view: Json = {
        "name": entry.name,
        "path": entry.path,
        "is_dir": entry.is_dir,
        "size": entry.size,
        "type": kind,
        "mode": f"{entry.mode:04o}",
        "modified_time": rfc3339(entry.modified_time),
    }
    if entry.symlink_target is not None:
        view["symlink_target"] = entry.symlink_target
    return view


ROUTES = [
    ("POST", "/v1/sandboxes/{sandbox}/files/write", write),
    ("POST", "/v1/sandboxes/{sandbox}/files/read", read_text),
    ("POST", "/v1/sandboxes/{sandbox}/files/info", info),
    ("GET", "/v1/sandboxes/{sandbox}/files", list_files),
    ("GET", "/v1/sandboxes/{sandbox}/file", download),
    ("PUT", "/v1/sandboxes/{sandbox}/file", upload),
]
