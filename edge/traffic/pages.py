"""Pages: the one place that renders an error.

Programs get flat JSON; a person who navigates gets a small HTML page with the same status and header
fields. Neither ever contains a byte of a credential, because neither is given one.
"""

from __future__ import annotations

import html
import json
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from edge.core.errors import EdgeError, Problem
from edge.core.head import Head

_SLOT = "{request_id}"
RETRY_AFTER = 5
"""Seconds a client is asked to wait after a 503 (contract: wake)."""

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:34rem;padding:0 1.5rem;"
    "color:#1b1f24;background:#fff}h1{font-size:1.3rem}code{font-size:.85rem;color:#57606a}"
    "@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}code{color:#8d96a0}}"
)
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width,initial-scale=1">{refresh}'
    "<style>{style}</style></head><body><main><h1>{title}</h1><p>{action}</p>"
    "<p><code>{code} &middot; {request_id}</code></p></main></body></html>\n"
)
_CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


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
    return head.method in (b"GET", b"HEAD") and _prefers_html(head.value(b"accept") or b"")


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
        kind, body = "text/html; charset=utf-8", _page(error, request_id)
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
        lines += [f"Content-Security-Policy: {_CSP}", "Referrer-Policy: no-referrer"]
    if problem.status == 503:
        lines.append(f"Retry-After: {RETRY_AFTER}")
    if problem.status == 401:
        lines.append('WWW-Authenticate: NullspacePreview realm="preview"')
    if error.allow is not None:
        lines.append(f"Allow: {error.allow}")
    if close:
        lines.append("Connection: close")
    elif head is not None and head.minor == 0:
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


def _page(error: EdgeError, request_id: str) -> bytes:
    problem = error.problem
    # Only 503s that may heal by themselves reload; a page that reloads a 404 is a nuisance.
    waiting = problem.retryable and problem.status == 503
    refresh = f'<meta http-equiv="refresh" content="{RETRY_AFTER}">' if waiting else ""
    # Advice for programs would puzzle a person whose page does the waiting.
    action = f"This page tries again by itself in {RETRY_AFTER} seconds."
    return _PAGE.format(
        title=html.escape(problem.message),
        action=html.escape(action if waiting else problem.action),
        code=html.escape(problem.code),
        request_id=html.escape(request_id),
        refresh=refresh,
        style=_STYLE,
    ).encode()
