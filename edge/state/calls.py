"""HTTP calls of the edge's own: a session that does nothing by itself, bounded answers, words for failures.

What is asked here decides who gets in. So no redirect is followed, no cookie kept, nothing decompressed
and nothing read without end; and no message tells what a request carried, which may be a credential.
"""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp


class Redirected(aiohttp.ClientError):
    """The answer was a redirect."""


class Oversized(aiohttp.ClientError):
    """The answer was longer than anything we asked for could be."""


def open_session(
    connector: aiohttp.TCPConnector | None = None, headers: Mapping[str, str] | None = None
) -> aiohttp.ClientSession:
    """A session whose calls have no time limit but the caller's. A redirect raises `Redirected`."""
    return aiohttp.ClientSession(
        connector=connector,
        headers={"Accept-Encoding": "identity", **(headers or {})},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        trace_configs=[_no_redirects()],
    )


def _no_redirects() -> aiohttp.TraceConfig:
    # For the whole session, because ws_connect has no allow_redirects.
    async def refuse(*_: object) -> None:
        raise Redirected

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace


async def read_bounded(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of an answer. Raises `Oversized` beyond ``limit`` bytes."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(65536):
        body += chunk
        if len(body) > limit:
            answer.close()
            raise Oversized
    return bytes(body)


def failure(error: Exception, limit: float) -> str:
    """A few words on why a call failed; never the text of a request, which has a credential.

    ``limit`` is the time the call had, in seconds.
    """
    match error:
        case TimeoutError():
            return f"no answer within {limit:g} s"
        case aiohttp.WSServerHandshakeError():
            return f"no WebSocket, status {error.status}"
        case aiohttp.ClientConnectorCertificateError():
            return "cannot connect: the certificate is not trusted"
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {error.os_error.strerror or type(error.os_error).__name__}"
        case Redirected():
            return "a redirect, which is not followed"
        case Oversized():
            return "the answer is too long"
        case _:
            return f"no usable answer ({type(error).__name__})"
