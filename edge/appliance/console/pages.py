"""The one place that makes the console's pages: templates of ``page/``, filled in and escaped.

What is shown may be anybody's text: metadata and names come with the API key, but often from further
away. So every value is escaped by the templates' engine, and none is ever marked as safe here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edge.appliance.console import wording
from edge.core.redact import redact_preview_url

_ROOM = Path(__file__).parent / "page"

_TEMPLATES = Environment(
    loader=FileSystemLoader(_ROOM),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "ago": wording.ago,
    "clock": wording.clock,
    "event_words": wording.event_words,
    "machine_time": wording.machine_time,
    "metadata": wording.metadata_text,
    "outlook": wording.outlook,
    "reason_words": wording.reason_words,
    "redacted": redact_preview_url,
    "span": wording.span,
}

FILES: Final = {"console.css": "text/css", "console.js": "text/javascript"}
"""What pages load besides themselves."""


def page(name: str, values: Mapping[str, object], status: int = 200) -> web.Response:
    """A page of ``page/``."""
    text = _TEMPLATES.get_template(f"{name}.html").render(values)
    # A client's text may hold lone surrogates, which have no UTF-8.
    body = text.encode("utf-8", "replace")
    return web.Response(status=status, body=body, content_type="text/html", charset="utf-8")


def file(name: str) -> web.Response:
    """A file of ``page/`` as it is."""
    body = (_ROOM / name).read_bytes()
    return web.Response(body=body, content_type=FILES[name], charset="utf-8")
