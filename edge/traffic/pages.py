"""Pages: the one place that renders an error.

Programs get flat JSON; a person who navigates gets a small HTML page with the same status and header
fields: ``page/page.html`` with the words of ``wording.py``. Neither ever contains a byte of a credential,
because neither is given one. Of what a client sent, a page shows the request id and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from edge.core.errors import EdgeError, Problem
from edge.core.head import Head
from edge.traffic.wording import WORDS, Retry, Symbol, Words

_SLOT = "{request_id}"
_SAFE = (b"GET", b"HEAD")
RETRY_AFTER = 5
"""Seconds a client is asked to wait after a 503 (contract: wake)."""

_ROOM = Path(__file__).parent / "page"
_STYLE = (_ROOM / "page.css").read_text("utf-8")
_SCRIPT = (_ROOM / "page.js").read_text("utf-8")


def _source(text: str) -> str:
    """What a Content Security Policy calls this very text of a ``style`` or ``script`` element."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


# Nothing but the page itself, down to its text. No frame-ancestors: previews are shown in frames.
_CSP = (
    f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
_FIELDS = (
    f"Content-Security-Policy: {_CSP}",
    "Referrer-Policy: no-referrer",  # the address may hold a token
    # Or a tool that isolates itself could not show the page in its frame (HTML standard, "COEP").
    "Cross-Origin-Embedder-Policy: require-corp",
    "Cross-Origin-Resource-Policy: cross-origin",
)
"""What a page has besides the fields of every error. No Vary, because nothing of it is ever stored."""


def _code(text: str) -> Markup:
    """What stands between backticks as ``code`` elements, all of it escaped."""
    parts = (
        Markup("<code>{}</code>").format(part) if odd % 2 else escape(part)
        for odd, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)


_TEMPLATES = Environment(
    loader=FileSystemLoader(_ROOM),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["code"] = _code
_PAGE = _TEMPLATES.get_template("page.html")
_ID_SLOT = Markup("<request-id>")  # no escaped text can be that


def wants_page(head: Head) -> bool:
    """Whether a person is looking: a navigation by fetch metadata, else a GET that prefers HTML."""
    if head.websocket or head.proxy_mode:
        return False
    fields = head.section.block
    if b"navigate" not in fields and b"text/html" not in fields.lower():
        return False  # a flood is refused by this line
    mode = head.value(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    return head.method in _SAFE and _prefers_html(head.value(b"accept") or b"")


def _prefers_html(accept: bytes) -> bool:
    """RFC 9110 section 12.5.1, for the one question: does text/html come before JSON?"""
    html_q, json_q = -1.0, -1.0
    for part in accept.decode("latin-1").lower().split(","):
        media, *params = (piece.strip() for piece in part.split(";"))
        q = 1.0
        for param in params:
            if param.startswith("q="):
                try:
                    q = float(param[2:])
                except ValueError:
                    q = 0.0
        if media == "text/html":
            html_q = q
        elif media == "application/json":
            json_q = q
    return html_q > 0 and html_q > json_q


def render(error: EdgeError, head: Head | None, request_id: str, *, close: bool) -> bytes:
    """The whole answer: head and body. ``head`` is None when the request could not be read."""
    problem = error.problem
    if head is not None and wants_page(head):
        kind, body = "text/html; charset=utf-8", _page(error, head, request_id)
    else:
        kind, body = "application/json", _document(error, request_id)
    lines = [
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"Date: {_date(int(time.time()))}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"X-Request-Id: {request_id}",
    ]
    if kind.startswith("text/html"):
        lines += _FIELDS
    if problem.status == 503:
        lines.append(f"Retry-After: {RETRY_AFTER}")
    if problem.status == 401:
        lines.append('WWW-Authenticate: NullspacePreview realm="preview"')
    if error.allow is not None:
        lines.append(f"Allow: {error.allow}")
    if close:
        lines.append("Connection: close")
    elif head is not None and head.section.minor == 0:
        lines.append("Connection: keep-alive")
    answer = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return answer if head is not None and head.method == b"HEAD" else answer + body


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _document(error: EdgeError, request_id: str) -> bytes:
    if not error.details:
        return _plain_document(error.problem).replace(_SLOT, request_id).encode()
    document = _members(error.problem, request_id) | {"details": dict(error.details)}
    return json.dumps(document).encode()


@lru_cache(maxsize=256)  # more than there are problems
def _plain_document(problem: Problem) -> str:
    """The document without its request id, which is a token (RFC 9110 section 5.6.2) and needs no escapes."""
    return json.dumps(_members(problem, _SLOT))


def _members(problem: Problem, request_id: str) -> dict[str, object]:
    return {
        "error": problem.message,
        "code": problem.code,
        "request_id": request_id,
        "retryable": problem.retryable,
        "suggested_action": problem.action,
    }


def _page(error: EdgeError, head: Head, request_id: str) -> bytes:
    port = error.details.get("port")
    if not (isinstance(port, int) and 1 <= port <= 65535):
        port = None
    before, after = _page_around_id(error.problem, port, head.method in _SAFE)
    return before + escape(request_id).encode() + after


@lru_cache(maxsize=256)  # Each is about 5 kB.
def _page_around_id(problem: Problem, port: int | None, safe: bool) -> tuple[bytes, bytes]:
    """The page up to its request id, and from there on."""
    words = WORDS.get(problem.code) or _plain_words(problem)
    where = "this port" if port is None else f"port {port}"
    page = _PAGE.render(
        style=Markup(_STYLE),  # noqa: S704 - a file of ours
        script=Markup(_SCRIPT),  # noqa: S704 - as above
        symbol=words.symbol,
        title=words.title.replace("{port}", where),
        text=words.text.replace("{port}", where),
        hints=[hint.replace("{port}", where) for hint in words.hints],
        examples=[line.replace("{number}", str(port)) for line in words.examples if port],
        # A reload would ask before it sends a form again, and a link would not send it at all.
        alone=safe and words.retry is Retry.ALONE,
        again=safe and words.retry is not Retry.NEVER,
        sent=not safe and words.retry is not Retry.NEVER,
        seconds=RETRY_AFTER,
        code=problem.code,
        status=f"{problem.status} {HTTPStatus(problem.status).phrase}",
        request_id=_ID_SLOT,
    )
    before, after = page.encode().split(_ID_SLOT.encode())
    return before, after


def _plain_words(problem: Problem) -> Words:
    """For a code without words of its own: those for programs."""
    retry = Retry.BY_HAND if problem.retryable else Retry.NEVER
    return Words(Symbol.BROKEN, retry, problem.message, problem.action)
