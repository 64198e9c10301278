"""What all handlers need of HTTP: bounded bodies, JSON answers, ids from the path, queries."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel, SecretStr

from edge.appliance.bodies import parse
from edge.appliance.parts import PARTS, Parts
from edge.appliance.problems import (
    INVALID_FIELDS,
    PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    ApiError,
    invalid,
)

MAX_JSON = 1 << 20
"""Bytes of a body, except those that carry files."""

LARGE = 1 << 18
"""Bytes that take a thread's while: more than a millisecond."""

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
"""Entries of a page of events."""

B = TypeVar("B", bound=BaseModel)
E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")


def parts(request: web.Request) -> Parts:
    """The control plane that serves this request."""
    return request.app[PARTS]


def answer(document: object, status: int = 200) -> web.Response:
    """A JSON answer."""
    # ASCII only: text from clients may hold lone surrogates, which have no UTF-8.
    text = json.dumps(document, separators=(",", ":"))
    return web.Response(status=status, body=text.encode("ascii"), content_type="application/json")


def same_secret(given: str, wanted: SecretStr) -> bool:
    """Whether it is the secret. Digests, so that the time tells nothing of the length either."""
    return hmac.compare_digest(_digest(given), _digest(wanted.get_secret_value()))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


async def read_body(request: web.Request, limit: int = MAX_JSON) -> bytes:
    """The body, decompressed. Raises `ApiError` (payload_too_large, invalid_request)."""
    if (request.content_length or 0) > limit:
        raise ApiError(PAYLOAD_TOO_LARGE, details={"limit": limit})
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > limit:
                raise ApiError(PAYLOAD_TOO_LARGE, details={"limit": limit})
    except web.RequestPayloadError:
        raise invalid("The body cannot be read.") from None
    return bytes(body)


async def read_json_body(request: web.Request, limit: int = MAX_JSON) -> bytes:
    """The body, if it is not said to be anything but JSON.

    Raises `ApiError` (unsupported_media_type, payload_too_large, invalid_request).
    """
    said = request.headers.get(hdrs.CONTENT_TYPE)
    media = (said or "").partition(";")[0].strip().lower()
    other = media != "application/json" and not re.fullmatch(r"application/[^/]+\+json", media)
    if said is not None and other and request.body_exists:
        raise ApiError(UNSUPPORTED_MEDIA_TYPE)
    return await read_body(request, limit)


async def read(request: web.Request, model: type[B], limit: int = MAX_JSON) -> B:
    """The body as a model. Raises as `read_json_body`."""
    body = await read_json_body(request, limit)
    return await apart(len(body), lambda: parse(model, body))


async def apart(size: int, work: Callable[[], T]) -> T:
    """What ``work`` gives; in a thread, if it is about so many bytes that others would have to wait for it.

    Measured with files of 64 MiB: others wait for 0.1 to 0.3 s instead of 0.2 to 0.8 s. What is left are single steps in C, which
    let no other thread in.
    """
    return work() if size < LARGE else await asyncio.to_thread(work)


def sandbox_id(request: web.Request) -> str:
    """The sandbox the path names."""
    return request.match_info["sandbox"]


def path_port(request: web.Request) -> object:
    """The port the path names: a number, or the text when it is none. Judged by the minter."""
    return number(request.match_info["port"])


def number(text: str) -> int | str:
    """A decimal number without sign or leading zeros, else the text itself."""
    plain = text.isascii() and text.isdigit() and len(text) <= 9 and (text == "0" or text[0] != "0")
    return int(text) if plain else text


def query(request: web.Request, *known: str, repeated: tuple[str, ...] = ()) -> Mapping[str, str]:
    """The query as a mapping. Raises `ApiError` (invalid_request) for unknown or repeated names.

    What may be ``repeated`` is not in it: read that with ``request.query.getall``.
    """
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name in repeated:
            continue
        if name not in known:
            names = ", ".join((*known, *repeated))
            raise invalid(f"query: {name[:100]!r} is unknown; known are {names}")
        if name in found:
            raise invalid(f"query: {name} is there twice")
        found[name] = value
    return found


def whole(values: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    """A number of the query. Raises `ApiError` (invalid_request)."""
    if name not in values:
        return default
    value = number(values[name])
    if not isinstance(value, int) or not low <= value <= high:
        raise invalid(f"{name}: must be a number from {low} to {high}")
    return value


def page(asked: Mapping[str, str]) -> tuple[int, int, bool]:
    """``offset``, ``limit`` and (True = oldest first) ``order``. Raises `ApiError` (invalid_request)."""
    offset = whole(asked, "offset", default=0, low=0, high=1_000_000)
    limit = whole(asked, "limit", default=DEFAULT_LIMIT, low=1, high=MAX_LIMIT)
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("order: must be asc or desc")
    return offset, limit, order == "asc"


def one_of(kind: type[E], asked: Mapping[str, str], name: str) -> E | None:
    """A word of the query. Raises `ApiError` (invalid_request)."""
    if name not in asked:
        return None
    try:
        return kind(asked[name])
    except ValueError:
        raise invalid(f"{name}: must be one of {', '.join(kind)}") from None


def moment(asked: Mapping[str, str], name: str) -> float | None:
    """A time of the query: RFC 3339 as Unix time. Raises `ApiError` (invalid_request)."""
    if name not in asked:
        return None
    try:
        # A + that was not percent-encoded arrives as a blank.
        time = datetime.fromisoformat(asked[name].replace(" ", "+"))
    except ValueError:
        raise invalid(f"{name}: must be a time such as 2026-01-31T12:00:00Z") from None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def fields_of(asked: Mapping[str, str], known: Collection[str]) -> list[str] | None:
    """The fields that ``fields`` of the query names; None without it. Raises `ApiError` (invalid_fields)."""
    if "fields" not in asked:
        return None
    fields = [name.strip() for name in asked["fields"].split(",")]
    for name in fields:
        if name not in known:
            names = ", ".join(known)
            raise ApiError(INVALID_FIELDS, f"fields: {name[:100]!r} is unknown; known are {names}")
    return fields


def only(view: Mapping[str, object], fields: Collection[str] | None) -> dict[str, object]:
    """Of an object what ``fields`` name; one that does not apply to it now is left out, as it is without ``fields``."""
    return {key: view[key] for key in (view if fields is None else fields) if key in view}
