"""The library `websockets` as client and as server, by its asyncio interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.http11 import Request, Response

from tests.peers.part import Events, Part, Serving, Step, binary, payload

# Pings on a timer would make two runs differ.
_COMMON: dict[str, Any] = {"compression": None, "ping_interval": None, "max_size": None}


class Websockets:
    """See `Peer`."""

    @asynccontextmanager
    async def serve(self, part: Part) -> AsyncIterator[Serving]:
        """Play the server."""
        events: asyncio.Future[Events] = asyncio.get_running_loop().create_future()

        async def play(connection: ServerConnection) -> None:
            assert connection.request is not None
            opened = ["open", connection.request.path, connection.subprotocol]
            try:
                events.set_result([opened, *await _play(connection, part.steps)])
            except BaseException as e:  # noqa: BLE001 - the test that waits for the events gets it
                events.set_exception(e)

        def refuse(connection: ServerConnection, request: Request) -> Response | None:
            if part.refuse is None:
                return None
            response = connection.respond(*part.refuse)
            response.headers.update(part.fields)
            events.set_result([["refused", request.path]])
            return response

        def extend(_: ServerConnection, __: Request, response: Response) -> None:
            for name, value in part.fields:
                response.headers[name] = value

        deflate = [] if part.deflate is None else [ServerPerMessageDeflateFactory(**part.deflate)]
        async with serve(
            play,
            "127.0.0.1",
            0,
            extensions=deflate or None,
            subprotocols=part.subprotocols or None,
            process_request=refuse,
            process_response=extend,
            **_COMMON,
        ) as server:
            yield Serving(next(iter(server.sockets)).getsockname()[1], events)

    async def visit(self, part: Part, port: int, host: str, target: str) -> Events:
        """Play the client."""
        deflate = [] if part.deflate is None else [ClientPerMessageDeflateFactory(**part.deflate)]
        try:
            connection = await connect(
                f"ws://{host}{target}",
                host="127.0.0.1",
                port=port,
                proxy=None,
                extensions=deflate or None,
                subprotocols=part.subprotocols or None,
                additional_headers=part.fields,
                **_COMMON,
            )
        except InvalidStatus as refusal:
            response = refusal.response
            return [["refused", response.status_code, bytes(response.body).decode()]]
        assert connection.response is not None
        cookies = connection.response.headers.get_all("Set-Cookie")
        opened = ["open", connection.subprotocol, cookies]
        return [opened, *await _play(connection, part.steps)]


async def _play(connection: Connection, steps: list[Step]) -> Events:
    events: Events = []
    for word, *args in steps:
        match word:
            case "text":
                await connection.send(args[0])
            case "binary":
                await connection.send(payload(args[0]))
            case "fragments":
                await connection.send(_fragments(connection, args[0]))
            case "ping":
                await (await connection.ping(args[0]))
                events.append(["pong", args[0]])
            case "pong":
                await connection.pong(args[0])
            case "raw":
                cast(asyncio.Transport, connection.transport).write(bytes.fromhex(args[0]))
            case "get":
                events.append(await _message(connection))
            case "close" | "wait" | "drop":
                events.append(await _closed(connection, word, args))
            case _:
                raise AssertionError(f"{word} is beyond websockets")
    return events


async def _fragments(connection: Connection, parts: list[Any]) -> AsyncIterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        else:
            await connection.ping(part["ping"])


async def _message(connection: Connection) -> list[Any]:
    frames = [frame async for frame in connection.recv_streaming()]
    if isinstance(frames[0], bytes):
        return binary(cast(list[bytes], frames))
    return ["text", frames]


async def _closed(connection: Connection, word: str, args: list[Any]) -> list[Any]:
    if word == "drop":
        connection.transport.abort()
    elif word == "close":
        code, reason = args
        await connection.close(1000 if code is None else code, reason)
    await connection.wait_closed()
    return ["closed", connection.close_code, connection.close_reason]
