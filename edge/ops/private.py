"""Where workers show their supervisor, and nobody else, their admin listeners: Unix sockets.

On Linux they have abstract names (unix(7)), which belong to a network: whoever runs as the same user in another one, as
sandboxes do with ``--isolation netns``, cannot connect there, nor put a socket of its own in the place, as it could
where sockets are files. An abstract name has no permissions, so a worker looks who comes. Elsewhere they are files in a
folder of the user's own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import socket
import struct
import sys
import tempfile
from pathlib import Path

_ABSTRACT = "\0"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CREDENTIALS = struct.Struct("iII")
"""pid, user, group (SO_PEERCRED in socket(7))."""


class Places:
    """As many as there are workers, by index. `close` removes what is left of them."""

    def __init__(self, workers: int) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if sys.platform == "linux":
            prefix = f"{_ABSTRACT}preview-edge-{secrets.token_hex(16)}-"
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="preview-edge-")
            prefix = f"{self._folder.name}/"
        self._places = [Path(f"{prefix}{index}") for index in range(workers)]

    def __getitem__(self, index: int) -> Path:
        return self._places[index]

    def close(self) -> None:
        """Harmless when repeated."""
        if self._folder is not None:
            self._folder.cleanup()


async def ask(place: Path, path: str) -> str:
    """What a worker answers to GET, whatever its status. Raises OSError, EOFError.

    Whoever sees a name (in /proc/net/unix) can take it when its worker has ended, so we, too, look who is there.
    By hand, because uvloop connects to abstract names only with a socket, which aiohttp's client does not take.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(place))
        if not is_one_of_us(sock):
            raise PermissionError(errno.EACCES, "another user listens in a worker's place")
        reader, writer = await asyncio.open_unix_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        return (await reader.readexactly(int(length[1]) if length else 0)).decode()
    finally:
        writer.close()


def clear(place: Path) -> None:
    """Remove the socket that a worker that is gone has left there."""
    if not _is_abstract(place):  # Those went with their sockets.
        place.unlink(missing_ok=True)


def tidy_up(place: Path) -> None:
    """Remove what a supervisor that was killed could not; the last worker removes the folder."""
    if _is_abstract(place):
        return
    clear(place)
    try:
        place.parent.rmdir()
    except OSError:
        pass  # Another worker's socket is in it.


def is_one_of_us(peer: socket.socket) -> bool:
    """Whether whoever is at the other end of a Unix socket runs as our user, or as root."""
    if sys.platform != "linux":
        return True  # The folder keeps others away.
    told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(told)
    return user in (os.geteuid(), 0)


def _is_abstract(place: Path) -> bool:
    return str(place).startswith(_ABSTRACT)
