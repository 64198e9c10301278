"""What ``preview-edge dev`` prints for the person in front of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PHASES = (("resume_ms", "resume"), ("listen_ms", "listen"), ("first_byte_ms", "first byte"))


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything listens, as base URLs, and the key for the API.

    ``edges`` are pairs: where it takes traffic, where its admin listener is.
    """

    api: str
    edges: Sequence[tuple[str, str]]
    api_key: str
    data_dir: str
    redis: str | None = field(default=None, repr=False)


def banner(
    addresses: Addresses,
    demo: Mapping[str, object] | None,
    *,
    in_error: int = 0,
    isolated: bool = False,
) -> str:
    """The first screen. ``demo`` is what the control plane said about its demo sandbox.

    ``in_error`` sandboxes of an earlier run wait for somebody who needs their files, or kills them.
    """
    rows = [
        ("API", addresses.api),
        ("API key", addresses.api_key),
        ("console", f"{addresses.api}/console"),
        *_edge_rows(addresses),
        ("data", addresses.data_dir),
    ]
    if demo is not None:
        rows.insert(0, ("preview", str(demo["link"])))
    lines = ["", *(f"  {name:<8} {text}" for name, text in rows), ""]
    lines += ["Three commands to try in another terminal:", ""]
    lines += [f"  {command}" for command in _commands(addresses, demo)]
    lines += ["", "Commands in sandboxes run as you, on this machine. Ctrl-C ends everything."]
    if isolated:
        lines += ["Each sandbox has a network of its own, with no way out of it."]
    if demo is not None:
        lines += ["The demo sandbox pauses after 20 s without activity; each wake is told below."]
    if in_error:
        lines += ["", *_left(addresses, in_error)]
    return "\n".join([*lines, ""])


def _left(addresses: Addresses, in_error: int) -> list[str]:
    many = in_error > 1
    what = (
        f"{in_error} sandboxes of an earlier run are" if many else "A sandbox of an earlier run is"
    )
    them = "them" if many else "it"
    listed = f"{addresses.api}/v1/sandboxes?state=error"
    return [
        f"{what} in state error: the processes have ended, the files are kept until you kill {them}.",
        f"  curl -s -H 'Authorization: Bearer {addresses.api_key}' '{listed}'",
    ]


def _edge_rows(addresses: Addresses) -> list[tuple[str, str]]:
    if len(addresses.edges) == 1:
        ((edge, admin),) = addresses.edges
        rows = [("edge", edge), ("admin", f"{admin}/metrics, /readyz, /healthz")]
    else:
        # Links carry the port of the first; a preview is the same at each of them.
        rows = [
            (f"edge-{number}", f"{edge}  (admin {admin})")
            for number, (edge, admin) in enumerate(addresses.edges, 1)
        ]
    if addresses.redis is not None:
        rows.append(("redis", without_secrets(addresses.redis)))
    elif len(addresses.edges) > 1:
        rows.append(("redis", "none: each edge follows the control plane itself (--redis-url)"))
    return rows


def without_secrets(url: str) -> str:
    """A URL without user, password and query, fit for a screen."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _commands(addresses: Addresses, demo: Mapping[str, object] | None) -> list[str]:
    sandboxes = f"{addresses.api}/v1/sandboxes"
    curl = f"curl -s -H 'Authorization: Bearer {addresses.api_key}'"
    call = "Sandbox.create().id"
    try_first = f"{curl} -H 'Content-Type: application/json' -d '{{}}' {sandboxes}"
    try_next = f"{curl} {sandboxes}"
    if demo is not None:
        call = f"Sandbox.get_info_by_id('{demo['sandbox_id']}')"
        try_first = f"{curl} -X POST {sandboxes}/{demo['sandbox_id']}/hibernate"
        try_next = f"curl -s {shlex.quote(str(demo['url']))}"
    login = f"NULLSPACE_API_URL={addresses.api} NULLSPACE_API_KEY={addresses.api_key}"
    install = "pip install nullspace-sdk==0.1.9"
    script = f'python3 -c "from nullspace import Sandbox; print({call})"'
    return [try_first, try_next, f"{install} && {login} {script}"]


def event_line(line: str, name: str = "edge") -> str | None:
    """One line of a child's event log for people; None for what they need not see.

    The control plane's lines have no level: it writes none but those that somebody should see.
    """
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        return printable(f"{name}: {line}") if line else None
    if event.get("event") == "wake":
        return wake_line(event, "" if name == "edge" else f"{name} ")
    if event.get("level", "warning") in ("warning", "error"):
        rest = {k: v for k, v in event.items() if k not in ("time", "level", "event")}
        what = f"{name}: {str(event.get('event')).replace('_', ' ')}"
        told = ", ".join(f"{key} {value}" for key, value in rest.items())
        return printable(f"{what}: {told}" if told else what)
    return None


def wake_line(event: Mapping[str, object], who: str = "") -> str:
    """``12:34:56  woke sb_1 for GET / (3 waiting): resume 7 ms, listen 1 ms, first byte 2 ms``."""
    clock = str(event.get("time", ""))[11:19]
    waiters = event.get("waiters")
    company = f" ({waiters} waiting)" if isinstance(waiters, int) and waiters > 1 else ""
    what = f"{clock}  {who}woke {event.get('sandbox')} for {event.get('woken_by')}{company}"
    phases = [f"{name} {_shown(event.get(key))}" for key, name in _PHASES]
    outcome = event.get("outcome")
    if outcome != "ok":
        what = what.replace(f"  {who}woke ", f"  {who}could not wake ", 1)
        return printable(f"{what}: {outcome} (resume {_shown(event.get('resume_ms'))})")
    return printable(f"{what}: {', '.join(phases)}")


def printable(text: str) -> str:
    """``text`` without what a terminal would obey: paths come from whoever sent the request."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _shown(milliseconds: object) -> str:
    if not isinstance(milliseconds, int | float):
        return "not reached"
    return f"{milliseconds:.1f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f} s"


def base_url(host: str, port: int) -> str:
    """``http://host:port``, with brackets around IPv6."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
