"""Who may speak to the console at all: what is looked at before any key or session, and the fields that
keep a page of ours to itself.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from edge.appliance.config import Config
from edge.appliance.problems import CONSOLE_HOST_UNKNOWN, CROSS_SITE_REQUEST, ApiError

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/]+)(?::([0-9]{1,5}))?")
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_OURS = (None, "same-origin")
_EDGE = "preview-edge"

FIELDS = {
    hdrs.CACHE_CONTROL: "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: with that, browsers send our own forms with "Origin: null" (Fetch standard, 3.2).
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer."""


def check(request: web.Request, config: Config) -> None:
    """Raises `ApiError` (console_host_unknown, cross_site_request)."""
    _check_way(request, config)
    site = request.headers.get("Sec-Fetch-Site")
    if request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
        # A link from elsewhere may lead here; what another page fetches or embeds may not.
        foreign = site in ("cross-site", "same-site")
        if foreign and request.headers.get("Sec-Fetch-Mode") != "navigate":
            raise ApiError(CROSS_SITE_REQUEST)
        return
    # Browsers send Origin with every POST. Not the site alone: all ports of an address are one site.
    origin = urlsplit(request.headers.get(hdrs.ORIGIN, ""))
    ours = origin.scheme in ("http", "https") and origin.netloc.lower() == _host(request)
    if not ours or site not in _OURS:
        raise ApiError(CROSS_SITE_REQUEST)


def cookie_name(request: web.Request) -> str:
    """A name of its own for each port: cookies do not know ports."""
    match = _HOST.fullmatch(_host(request))
    return f"preview_console_{(match and match[2]) or 'web'}"


def is_secure(request: web.Request) -> bool:
    """Whether the browser speaks TLS to something in front of us."""
    return request.headers.get(hdrs.ORIGIN, "").lower().startswith("https:")


def _check_way(request: web.Request, config: Config) -> None:
    match = _HOST.fullmatch(_host(request))
    names = _OWN_NAMES | {_bracketed(config.host)} | set(config.console_hosts)
    if match is None or match[1] not in names:
        raise ApiError(CONSOLE_HOST_UNKNOWN)
    # An app that passes requests on to us would make the console a preview of its sandbox.
    if any(_EDGE in via for via in request.headers.getall(hdrs.VIA, [])):
        raise ApiError(CONSOLE_HOST_UNKNOWN)


def _host(request: web.Request) -> str:
    hosts = request.headers.getall(hdrs.HOST, [])
    return hosts[0].lower() if len(hosts) == 1 else ""


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host
