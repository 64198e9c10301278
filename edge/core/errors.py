"""Every way a request can fail, as one table: code, status, may it be retried, what to do, whose fault.

The codes and statuses are the public contract; they never change meaning. ``blame`` is for whoever counts
or audits errors: no answer depends on it. A refusal is a value (`EdgeError`) that travels to the one
place that renders it (``traffic/pages.py``); below that place nobody writes an error body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Blame(StrEnum):
    """Whose doing an error is."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    CONTROL_PLANE = "control_plane"
    EDGE = "edge"


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the table. ``message`` and ``action`` are sentences for people."""

    code: str
    status: int
    retryable: bool
    blame: Blame
    message: str
    action: str


@dataclass(slots=True)
class EdgeError(Exception):
    """A refusal of one request: a row of the table, and what is particular about this case.

    Not frozen, because Python itself (contextlib, for one) sets attributes of an exception on its way.

    ``close`` is set when the bytes on the client's connection can no longer be trusted to start a
    message (RFC 9112 section 9.3), so that the connection ends after the answer.
    """

    problem: Problem
    details: Mapping[str, object] = field(default_factory=dict)
    close: bool = False
    allow: str | None = None

    @property
    def limit(self) -> str:
        """The setting that was reached, if it is one; a bounded metric label."""
        return str(self.details.get("limit", ""))

    def __str__(self) -> str:
        return f"{self.problem.code}: {self.problem.message}"

    def __hash__(self) -> int:
        # ``details`` has no hash, and tools put exceptions into sets.
        return hash(self.problem)


PROBLEMS: dict[str, Problem] = {}


def _row(
    code: str, status: int, retryable: bool, blame: Blame, message: str, action: str
) -> Problem:
    problem = Problem(code, status, retryable, blame, message, action)
    PROBLEMS[code] = problem
    return problem


_GET_A_LINK = "Request a new preview URL from the API and use it."
_GET_A_TARGET = "Request a new preview proxy target from the API and use its token."
_WAIT = "Wait for the seconds named in Retry-After, then send the request again."

# --- Direct previews: edge token, continuation cookie, grant ----------------------------------------
EDGE_TOKEN_MISSING = _row(
    "edge_token_missing", 401, False, Blame.CLIENT,
    "This preview needs a credential, and the request carries none.",
    _GET_A_LINK,
)  # fmt: skip
EDGE_TOKEN_INVALID = _row(
    "edge_token_invalid", 401, False, Blame.CLIENT,
    "The preview credential is not valid.",
    _GET_A_LINK,
)  # fmt: skip
EDGE_TOKEN_EXPIRED = _row(
    "edge_token_expired", 401, False, Blame.CLIENT,
    "The preview credential has expired.",
    _GET_A_LINK,
)  # fmt: skip
EDGE_TOKEN_SCOPE_MISMATCH = _row(
    "edge_token_scope_mismatch", 403, False, Blame.CLIENT,
    "The preview credential is for another sandbox, port or transport.",
    "Use the URL exactly as the API returned it; HTTP and WebSocket URLs carry different tokens.",
)  # fmt: skip
PREVIEW_GRANT_INVALID = _row(
    "preview_grant_invalid", 401, False, Blame.CLIENT,
    "The grant behind this preview credential does not exist.",
    _GET_A_LINK,
)  # fmt: skip
PREVIEW_GRANT_REVOKED = _row(
    "preview_grant_revoked", 401, False, Blame.CLIENT,
    "The grant behind this preview credential was revoked.",
    _GET_A_LINK,
)  # fmt: skip
PREVIEW_GRANT_DISABLED = _row(
    "preview_grant_disabled", 403, False, Blame.CLIENT,
    "An operator disabled the grant behind this preview credential.",
    "Ask the operator to enable it again.",
)  # fmt: skip
PREVIEW_SANDBOX_DISABLED = _row(
    "preview_sandbox_disabled", 403, False, Blame.CLIENT,
    "An operator disabled previews of this sandbox.",
    "Ask the operator to enable them again.",
)  # fmt: skip

# --- Proxy mode ---------------------------------------------------------------------------------------
PREVIEW_PROXY_TOKEN_MISSING = _row(
    "preview_proxy_token_missing", 401, False, Blame.CLIENT,
    "The request asks for proxy mode and carries no proxy token.",
    "Send the token in the header x-nullspace-preview-proxy-token.",
)  # fmt: skip
PREVIEW_PROXY_TOKEN_INVALID = _row(
    "preview_proxy_token_invalid", 401, False, Blame.CLIENT,
    "The preview proxy token is not valid.",
    _GET_A_TARGET,
)  # fmt: skip
PREVIEW_PROXY_TOKEN_EXPIRED = _row(
    "preview_proxy_token_expired", 401, False, Blame.CLIENT,
    "The preview proxy token has expired.",
    _GET_A_TARGET,
)  # fmt: skip
PREVIEW_PROXY_TOKEN_REVOKED = _row(
    "preview_proxy_token_revoked", 401, False, Blame.CLIENT,
    "The grant behind this preview proxy token was revoked.",
    _GET_A_TARGET,
)  # fmt: skip
PREVIEW_PROXY_TOKEN_SCOPE_MISMATCH = _row(
    "preview_proxy_token_scope_mismatch", 403, False, Blame.CLIENT,
    "The preview proxy token is for another sandbox, port or transport.",
    "Send the HTTP token with HTTP requests and the WebSocket token with upgrades.",
)  # fmt: skip
PREVIEW_PROXY_TOKEN_DISABLED = _row(
    "preview_proxy_token_disabled", 403, False, Blame.CLIENT,
    "An operator disabled the grant behind this preview proxy token.",
    "Ask the operator to enable it again.",
)  # fmt: skip

# --- Private traffic ----------------------------------------------------------------------------------
TRAFFIC_ACCESS_TOKEN_MISSING = _row(
    "traffic_access_token_missing", 401, False, Blame.CLIENT,
    "This sandbox's traffic is not public, and the request carries no traffic access token.",
    "Send the token from the create answer in the header x-nullspace-traffic-access-token.",
)  # fmt: skip
TRAFFIC_ACCESS_TOKEN_INVALID = _row(
    "traffic_access_token_invalid", 401, False, Blame.CLIENT,
    "The traffic access token is not this sandbox's.",
    "Send the token from the create answer in the header x-nullspace-traffic-access-token.",
)  # fmt: skip

# --- What was asked for -------------------------------------------------------------------------------
PREVIEW_HOST_UNKNOWN = _row(
    "preview_host_unknown", 404, False, Blame.CLIENT,
    "The Host header does not name a preview.",
    "Use the URL exactly as the API returned it.",
)  # fmt: skip
UNSUPPORTED_PREVIEW_PORT = _row(
    "unsupported_preview_port", 400, False, Blame.CLIENT,
    "This port cannot be previewed.",
    "Serve on a port from 1 to 65535 other than 22 and 5900-5999.",
)  # fmt: skip
SANDBOX_NOT_FOUND = _row(
    "sandbox_not_found", 404, False, Blame.CLIENT,
    "The sandbox does not exist, or it was destroyed.",
    "Create a new sandbox.",
)  # fmt: skip
BAD_REQUEST = _row(
    "bad_request", 400, False, Blame.CLIENT,
    "The request is not well-formed HTTP/1.1.",
    "Correct the request; details say what is wrong.",
)  # fmt: skip
METHOD_NOT_ALLOWED = _row(
    "method_not_allowed", 405, False, Blame.CLIENT,
    "The method is not available through the edge.",
    "Use one of the methods named in Allow.",
)  # fmt: skip
REQUEST_TIMEOUT = _row(
    "request_timeout", 408, True, Blame.CLIENT,
    "The request did not arrive in time.",
    "Send the whole request without long pauses.",
)  # fmt: skip
REQUEST_HEADER_TOO_LARGE = _row(
    "request_header_too_large", 431, False, Blame.CLIENT,
    "The request line or the header fields are too large.",
    "Send fewer or smaller header fields; clearing this site's cookies often helps.",
)  # fmt: skip
PREVIEW_LOOP = _row(
    "preview_loop", 508, False, Blame.CLIENT,
    "The request has passed through the edge several times already.",
    "Do not let an app in a sandbox proxy to its own preview URL.",
)  # fmt: skip

# --- Waking -------------------------------------------------------------------------------------------
SANDBOX_PAUSED_AUTO_RESUME_DISABLED = _row(
    "sandbox_paused_auto_resume_disabled", 503, False, Blame.CLIENT,
    "The sandbox is paused, and it does not resume by itself.",
    "Resume it through the API, or create it with auto_resume.",
)  # fmt: skip
SANDBOX_RESUME_TIMEOUT = _row(
    "sandbox_resume_timeout", 503, True, Blame.UPSTREAM,
    "The sandbox did not become ready in time.",
    _WAIT,
)  # fmt: skip
APP_NOT_LISTENING = replace(
    SANDBOX_RESUME_TIMEOUT,
    message="The sandbox runs, but its app did not listen on this port in time.",
    action="Start the app on this port and bind it to 0.0.0.0, then send the request again.",
)
"""The same code where it was the port that was waited for."""
SANDBOX_RESUME_FAILED = _row(
    "sandbox_resume_failed", 503, True, Blame.CONTROL_PLANE,
    "The sandbox could not be resumed.",
    _WAIT,
)  # fmt: skip
CONTROL_PLANE_UNAVAILABLE = _row(
    "control_plane_unavailable", 503, True, Blame.CONTROL_PLANE,
    "The control plane did not answer.",
    _WAIT,
)  # fmt: skip
PREVIEW_OVERLOADED = _row(
    "preview_overloaded", 503, True, Blame.EDGE,
    "There is no room for this request at the moment.",
    _WAIT,
)  # fmt: skip
WAKE_SUPPRESSED_BY_POLICY = _row(
    "wake_suppressed_by_policy", 503, True, Blame.CLIENT,
    "The sandbox is paused, and this kind of request does not wake it.",
    "Open the preview itself to wake the sandbox.",
)  # fmt: skip
EDGE_DRAINING = _row(
    "edge_draining", 503, True, Blame.EDGE,
    "This edge is shutting down.",
    _WAIT,
)  # fmt: skip
SANDBOX_NOT_READY = _row(
    "sandbox_not_ready", 503, True, Blame.CONTROL_PLANE,
    "The sandbox is still being created.",
    _WAIT,
)  # fmt: skip
SANDBOX_ERROR = _row(
    "sandbox_error", 503, False, Blame.CONTROL_PLANE,
    "The sandbox is in an error state.",
    "Look at its lifecycle events, then destroy it and create another.",
)  # fmt: skip

# --- The upstream -------------------------------------------------------------------------------------
PREVIEW_SERVICE_NOT_READY = _row(
    "preview_service_not_ready", 502, True, Blame.UPSTREAM,
    "The sandbox runs, but nothing listens on this port.",
    "Start the app on this port and bind it to 0.0.0.0.",
)  # fmt: skip
EDGE_RUNTIME_HOST_UNREACHABLE = _row(
    "edge_runtime_host_unreachable", 502, True, Blame.CONTROL_PLANE,
    "The machine that runs the sandbox cannot be reached.",
    "Try again; if it persists, tell the operator.",
)  # fmt: skip
PREVIEW_UPSTREAM_CLOSED = _row(
    "preview_upstream_closed", 502, True, Blame.UPSTREAM,
    "The app closed the connection before it answered.",
    "Look at the app's log.",
)  # fmt: skip
PREVIEW_UPSTREAM_INVALID = _row(
    "preview_upstream_invalid", 502, False, Blame.UPSTREAM,
    "The app's answer is not well-formed HTTP/1.1.",
    "Look at what the app sends; it must speak HTTP on this port.",
)  # fmt: skip
PREVIEW_UPSTREAM_TIMEOUT = _row(
    "preview_upstream_timeout", 504, True, Blame.UPSTREAM,
    "The app accepted the request and did not begin to answer in time.",
    "Look at the app's log.",
)  # fmt: skip


def overloaded(limit: str) -> EdgeError:
    """There is no room; ``limit`` is the setting that says so, such as ``admission.waiting``."""
    return EdgeError(PREVIEW_OVERLOADED, {"limit": limit})


def too_large(limit: str) -> EdgeError:
    """A head beyond the setting ``limit``. Where it ends is not known, so the connection ends."""
    return EdgeError(REQUEST_HEADER_TOO_LARGE, {"limit": limit}, close=True)


def too_slow(setting: str) -> EdgeError:
    """The client did not send in time what it began to; what it may still send is no next request."""
    return EdgeError(REQUEST_TIMEOUT, {"limit": setting}, close=True)


def bad_request(why: str) -> EdgeError:
    """A message that is not well-formed; the connection ends with the answer."""
    return EdgeError(BAD_REQUEST, {"reason": why}, close=True)
