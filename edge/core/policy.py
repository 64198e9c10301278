"""Policy by kind of request: what does not wake a sandbox, and what may reach a running one uncredentialed.

A browser that prefetches a link, a monitor that asks every minute: none of them is somebody who waits. What
does not wake is served all the same while the sandbox runs (contract: wake).
"""

from __future__ import annotations

from edge.core.head import Head
from edge.core.settings import WakePolicySettings

_OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")
"""Fields by which some frameworks take a request for one of another method, OPTIONS included."""
_ICONS = (b"/favicon.ico", b"/apple-touch-icon")


class WakePolicy:
    """The settings of ``wake_policy``, as one question."""

    def __init__(self, settings: WakePolicySettings) -> None:
        self._kinds = (
            (not settings.prefetch, "prefetch", _is_prefetch),
            (not settings.preflight, "preflight", _is_preflight),
            (not settings.head, "head", _is_head),
            (not settings.favicon, "favicon", _is_favicon),
            (not settings.monitors, "monitor", self._is_monitor),
        )
        self._agents = tuple(agent.lower().encode() for agent in settings.monitor_agents)

    def sleeps_through(self, head: Head) -> str | None:
        """The kind of this request, if it is one that does not wake."""
        return next((kind for off, kind, matches in self._kinds if off and matches(head)), None)

    def _is_monitor(self, head: Head) -> bool:
        agent = (head.value(b"user-agent") or b"").lower()
        return any(known in agent for known in self._agents)


def is_bare_preflight(head: Head) -> bool:
    """A CORS preflight as browsers send it: without a body and without anything that could be a credential.

    Fetch standard, "CORS-preflight fetch": its credentials mode is "same-origin", so it has no cookie and no
    Authorization, and it has none of the fields that it asks leave for.
    """
    section = head.section
    return (
        head.method == b"OPTIONS"
        and _is_preflight(head)
        and not head.has_body
        and not head.edge_tokens
        and not (section.proxy_tokens or section.traffic_tokens or section.cookies)
        and head.value(b"authorization") is None
        and head.value(b"proxy-authorization") is None
        and not any(head.values(name) for name in _OVERRIDES)
    )


def _is_prefetch(head: Head) -> bool:
    """Fetch standard, "Sec-Purpose"; the other two are what browsers sent before there was one."""
    said = (head.value(name) or b"" for name in (b"sec-purpose", b"purpose", b"x-moz"))
    return any(value.lower().startswith(b"prefetch") for value in said)


def _is_preflight(head: Head) -> bool:
    """Fetch standard, "CORS-preflight request"."""
    asked = head.value(b"access-control-request-method")
    return head.method == b"OPTIONS" and asked is not None and head.value(b"origin") is not None


def _is_head(head: Head) -> bool:
    return head.method == b"HEAD"


def _is_favicon(head: Head) -> bool:
    return head.method == b"GET" and head.path.startswith(_ICONS)
