"""Files of a sandbox or volume, as JSON: write, read, look, move, search. As they are: ``transfer.py``."""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict

from aiohttp import web

from edge.appliance.api.http import answer, apart, query, read, whole
from edge.appliance.api.places import FOR_SANDBOXES, FOR_VOLUMES, files, search, shown_root
from edge.appliance.file_requests import (
    FilePath,
    FilePattern,
    FilePermissions,
    FileRead,
    FileRename,
    FileReplace,
    FileWrite,
)
from edge.appliance.file_views import file_view
from edge.appliance.problems import invalid
from edge.appliance.runtime import Replaced
from edge.appliance.runtime import search as searching
from edge.appliance.runtime.files import WorkTree

MAX_FILE = 64 << 20
"""Bytes of one file that is written or read as JSON."""

MAX_WRITE = MAX_FILE // 3 * 4 + (1 << 16)
"""Bytes of a body that carries a file as base64."""

PIECE = 1 << 20
"""Characters of base64 that are decoded at a time: a multiple of 4."""

MAX_DEPTH = 32


async def write(request: web.Request) -> web.Response:
    """``POST S/files/write``: a file as text or base64; answers what is there now."""
    wanted = await read(request, FileWrite, MAX_WRITE)
    data = await apart(len(wanted.content), lambda: _decoded(wanted))
    return answer(file_view(await files(request, lambda tree: tree.write(wanted.path, data))))


async def read_text(request: web.Request) -> web.Response:
    """``POST S/files/read``: a file as text or base64."""
    wanted = await read(request, FileRead)
    data = await files(request, lambda tree: tree.read(wanted.path, MAX_FILE), reading=True)
    return await apart(len(data), lambda: _told(wanted, data))


async def list_files(request: web.Request) -> web.Response:
    """``GET S/files?path=&depth=``: the entries of a directory; depths 0 and 1 are the same."""
    asked = query(request, "path", "depth", "user")
    depth = whole(asked, "depth", default=1, low=0, high=MAX_DEPTH)
    path = shown_root(request, checked(asked.get("path", "/")))
    found = await files(request, lambda tree: tree.entries(path, max(depth, 1)), reading=True)
    return answer([file_view(entry) for entry in found])


async def info(request: web.Request) -> web.Response:
    """``POST S/files/info``: one entry; a link is told as such."""
    wanted = await read(request, FilePath)
    path = shown_root(request, wanted.path)
    return answer(file_view(await files(request, lambda tree: tree.info(path), reading=True)))


async def exists(request: web.Request) -> web.Response:
    """``POST S/files/exists``: whether ``info`` would find something."""
    wanted = await read(request, FilePath)
    path = shown_root(request, wanted.path)
    return answer({"exists": await files(request, lambda tree: tree.exists(path), reading=True)})


async def remove(request: web.Request) -> web.Response:
    """``POST S/files/remove``: a file, a link, or a directory with all that is in it."""
    wanted = await read(request, FilePath)
    await files(request, lambda tree: tree.remove(wanted.path))
    return answer({"success": True})


async def rename(request: web.Request) -> web.Response:
    """``POST S/files/rename``: move a file, link or directory; answers what is there now."""
    wanted = await read(request, FileRename)
    moved = await files(request, lambda tree: tree.rename(wanted.old_path, wanted.new_path))
    return answer(file_view(moved))


async def mkdir(request: web.Request) -> web.Response:
    """``POST S/files/mkdir``: a directory, and those above it; one that exists is fine."""
    wanted = await read(request, FilePath)
    await files(request, lambda tree: tree.make_directory(wanted.path))
    return answer({"success": True})


async def permissions(request: web.Request) -> web.Response:
    """``POST S/files/permissions``: octal; bits beyond 0777 are dropped."""
    wanted = await read(request, FilePermissions)
    mode = int(wanted.permissions, 8)
    await files(request, lambda tree: tree.set_permissions(wanted.path, mode))
    return answer({"success": True})


async def find(request: web.Request) -> web.Response:
    """``POST S/files/find``: lines of files that hold a text."""
    wanted = await read(request, FilePattern)
    path = shown_root(request, wanted.path)
    matches = await search(
        request, lambda tree: searching.find(tree, path, wanted.pattern), reading=True
    )
    return answer([asdict(match) for match in matches])


async def search_names(request: web.Request) -> web.Response:
    """``POST S/files/search``: paths whose name matches a shell pattern."""
    wanted = await read(request, FilePattern)
    path = shown_root(request, wanted.path)
    found = await search(
        request, lambda tree: searching.search(tree, path, wanted.pattern), reading=True
    )
    return answer(found)


async def replace(request: web.Request) -> web.Response:
    """``POST S/files/replace``: one text by another, in files that are named."""
    wanted = await read(request, FileReplace)

    def call(tree: WorkTree) -> Replaced:
        return searching.replace(
            tree, wanted.files, wanted.pattern, wanted.replacement, dry_run=wanted.dry_run
        )

    return answer(asdict(await search(request, call)) | {"dry_run": wanted.dry_run})


def checked(path: str) -> str:
    """A path from a query. Raises `ApiError` (invalid_request)."""
    if not path or "\0" in path:
        raise invalid("path: must not be empty or contain NUL")
    return path


def _told(wanted: FileRead, data: bytes) -> web.Response:
    if wanted.encoding == "base64":
        content = base64.b64encode(data).decode("ascii")
    else:
        try:
            content = data.decode("utf-8")
        except UnicodeDecodeError:
            raise invalid("The file is not UTF-8; read it as bytes.") from None
    return answer({"path": wanted.path, "content": content, "encoding": wanted.encoding})


def _decoded(wanted: FileWrite) -> bytes:
    try:
        if wanted.encoding == "base64":
            return _from_base64(wanted.content)
        return wanted.content.encode("utf-8")
    except (binascii.Error, ValueError):
        raise invalid(f"content: not {wanted.encoding}") from None


def _from_base64(text: str) -> bytes:
    """In pieces, between which other threads have their turn. Raises ValueError."""
    if 0 <= text.find("=") < len(text) - 2:
        raise ValueError("padding before the end")
    data = bytearray()
    for at in range(0, len(text), PIECE):
        data += base64.b64decode(text[at : at + PIECE], validate=True)
    return bytes(data)


_CALLS = [
    ("POST", "files/write", write),
    ("POST", "files/read", read_text),
    ("POST", "files/info", info),
    ("POST", "files/exists", exists),
    ("POST", "files/remove", remove),
    ("POST", "files/rename", rename),
    ("POST", "files/mkdir", mkdir),
    ("POST", "files/permissions", permissions),
    ("POST", "files/find", find),
    ("POST", "files/search", search_names),
    ("POST", "files/replace", replace),
    ("GET", "files", list_files),
]
ROUTES = [
    (method, place + path, handler)
    for place in (FOR_SANDBOXES, FOR_VOLUMES)
    for method, path, handler in _CALLS
]
