"""Real HTTP clients, all asked alike: curl, httpx, aiohttp, and in Node ``http.request`` and ``fetch``."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx

from tests.peers.node_peer import Node


@dataclass(frozen=True)
class Ask:
    """A request. A ``body`` of bytes has a known length, one of pieces is sent chunked."""

    method: str
    path: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | list[bytes] | None = None
    curl: list[str] = field(default_factory=list)
    """Further arguments for curl."""


@dataclass(frozen=True)
class Seen:
    """An answer as the client saw it. ``interim`` and ``trailers`` only where the client shows them."""

    status: int
    body: bytes
    interim: list[Any] = field(default_factory=list)
    trailers: list[Any] = field(default_factory=list)


class Curl:
    """The program curl."""

    async def ask(self, ask: Ask, port: int, host: str, path: str) -> Seen:
        """Ask, and read the answer."""
        process = await self._start(ask, port, host, path)
        body = b"".join(ask.body) if isinstance(ask.body, list) else ask.body
        out, err = await process.communicate(body)
        assert process.returncode == 0, err
        said, _, status = out.rpartition(b"\n")
        return Seen(int(status), said)

    async def stream(self, port: int, host: str, path: str) -> AsyncIterator[bytes]:
        """The pieces of an answer's body as they come."""
        process = await self._start(Ask("GET", path), port, host, path)
        assert process.stdout is not None
        while piece := await process.stdout.read(65536):
            if piece != b"\n200":
                yield piece.removesuffix(b"\n200")
        await process.wait()

    async def _start(self, ask: Ask, port: int, host: str, path: str) -> asyncio.subprocess.Process:
        how = ["-I"] if ask.method == "HEAD" else ["-X", ask.method]
        if ask.method == "HEAD":
            how += ["-o", "/dev/null"]
        for name, value in ask.fields:
            how += ["-H", f"{name}: {value}"]
        if "Expect" not in dict(ask.fields):
            how += [
                "-H",
                "Expect:",
            ]  # Left alone, curl expects a 100 if a body is large or chunked.
        if isinstance(ask.body, list):
            how += ["-T", "-"]
        elif ask.body is not None:
            how += ["--data-binary", "@-"]
        return await asyncio.create_subprocess_exec(
            "curl", "-q", "-sS", "-N", "--http1.1", "--noproxy", "*", "--max-time", "30",
            "--connect-to", f"::127.0.0.1:{port}", "-w", r"\n%{http_code}",
            *how, *ask.curl, f"http://{host}{path}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip


class Httpx:
    """The library httpx."""

    async def ask(self, ask: Ask, port: int, host: str, path: str) -> Seen:
        """Ask, and read the answer."""
        content = _pieces(ask.body) if isinstance(ask.body, list) else ask.body
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.request(
                ask.method,
                f"http://127.0.0.1:{port}{path}",
                headers=[("Host", host), *ask.fields],
                content=content,
            )
            return Seen(answer.status_code, answer.content)

    async def stream(self, port: int, host: str, path: str) -> AsyncIterator[bytes]:
        """The pieces of an answer's body as they come."""
        url = f"http://127.0.0.1:{port}{path}"
        async with (
            httpx.AsyncClient(trust_env=False) as client,
            client.stream("GET", url, headers={"Host": host}) as answer,
        ):
            async for piece in answer.aiter_raw():
                yield piece


class Aiohttp:
    """The library aiohttp."""

    async def ask(self, ask: Ask, port: int, host: str, path: str) -> Seen:
        """Ask, and read the answer."""
        data = _pieces(ask.body) if isinstance(ask.body, list) else ask.body
        async with (
            aiohttp.ClientSession() as client,
            client.request(
                ask.method,
                f"http://127.0.0.1:{port}{path}",
                headers=[("Host", host), *ask.fields],
                data=data,
                allow_redirects=False,
            ) as answer,
        ):
            return Seen(answer.status, await answer.read())

    async def stream(self, port: int, host: str, path: str) -> AsyncIterator[bytes]:
        """The pieces of an answer's body as they come."""
        url = f"http://127.0.0.1:{port}{path}"
        async with (
            aiohttp.ClientSession() as client,
            client.get(url, headers={"Host": host}) as answer,
        ):
            async for piece in answer.content.iter_any():
                yield piece


class InNode:
    """``http.request`` or ``fetch`` of Node."""

    def __init__(self, node: Node, role: str) -> None:
        self._node = node
        self._role = role

    async def ask(self, ask: Ask, port: int, host: str, path: str) -> Seen:
        """Ask, and read the answer."""
        body: Any = None
        if isinstance(ask.body, list):
            body = [base64.b64encode(piece).decode() for piece in ask.body]
        elif ask.body is not None:
            body = base64.b64encode(ask.body).decode()
        how = {"method": ask.method, "fields": ask.fields, "body": body}
        async with self._node.actor() as actor:
            await actor.order(self._role, port=port, host=host, target=path, **how)
            said = await actor.told()
        said["body"] = base64.b64decode(said["body"])
        return Seen(**said)

    async def stream(self, port: int, host: str, path: str) -> AsyncIterator[bytes]:
        """The pieces of an answer's body as they come."""
        how = {"method": "GET", "fields": [], "body": None, "stream": True}
        async with self._node.actor() as actor:
            await actor.order(self._role, port=port, host=host, target=path, **how)
            while "piece" in (said := await actor.told()):
                yield said["piece"].encode()


async def _pieces(body: list[bytes]) -> AsyncIterator[bytes]:
    for piece in body:
        yield piece
