"""Every way the control plane's API can fail, as one table, and the exception that carries a row.

The rows are of the same kind as the edge's (``edge/core/errors.py``) and partly the same rows; the one
place that renders them is ``app.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.core.errors import SANDBOX_NOT_FOUND, UNSUPPORTED_PREVIEW_PORT, Blame, Problem

__all__ = ["SANDBOX_NOT_FOUND", "UNSUPPORTED_PREVIEW_PORT", "ApiError", "invalid"]


@dataclass(slots=True)
class ApiError(Exception):
    """A refusal: a row of the table, and what is particular about this case.

    ``message`` and ``action`` replace the row's sentences; they may quote input, never a credential.
    """

    problem: Problem
    message: str = ""
    details: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    action: str = ""
    error_detail: Mapping[str, object] | None = None
    """What the client makes its own kinds of upload errors of; only with ``file_upload_error``."""

    def __str__(self) -> str:
        return f"{self.problem.code}: {self.message or self.problem.message}"

    def __hash__(self) -> int:
        # ``details`` has no hash, and tools put exceptions into sets.
        return hash(self.problem)


def _client(code: str, status: int, message: str, action: str) -> Problem:
    return Problem(code, status, False, Blame.CLIENT, message, action)


def _ours(code: str, status: int, message: str, action: str) -> Problem:
    return Problem(code, status, True, Blame.CONTROL_PLANE, message, action)


_CORRECT = "Correct the request; the message says what is wrong."

INVALID_REQUEST = _client("invalid_request", 400, "The request is not valid.", _CORRECT)
INVALID_FIELDS = _client(
    "invalid_fields", 400, "A field asked for does not exist.", "Ask for fields of the object only."
)
UNAUTHORIZED = _client(
    "unauthorized", 401, "The key is missing or wrong.", "Send Authorization: Bearer <key>."
)
NOT_FOUND = _client("not_found", 404, "There is nothing of this name.", "Check the address.")
SNAPSHOT_NOT_FOUND = _client(
    "snapshot_not_found", 404, "The snapshot does not exist.", "Read snapshot_id of the sandbox."
)
WARM_POOL_NOT_FOUND = _client(
    "warm_pool_not_found", 404, "The warm pool does not exist.", "List the warm pools."
)
SNAPSHOT_IN_USE = _client(
    "snapshot_in_use",
    409,
    "The snapshot is needed.",
    "Resume or kill its sandbox first; or wait for what is created from it.",
)
INCOMPATIBLE_SNAPSHOT = _client(
    "incompatible_snapshot",
    409,
    "The snapshot is not of this kind.",
    "Resume snapshots of paused sandboxes; create sandboxes from the others.",
)
VOLUME_ATTACHMENT_NOT_FOUND = _client(
    "volume_attachment_not_found",
    404,
    "The sandbox has no such attachment.",
    "List the sandbox's volumes.",
)
VOLUME_BUSY = _client(
    "volume_busy", 409, "The volume is attached.", "Detach it, or kill the sandboxes that have it."
)
VOLUME_NAME_CONFLICT = _client(
    "volume_name_conflict", 409, "There is a volume of this name.", "Use that, or another name."
)
VOLUME_MOUNT_CONFLICT = _client(
    "volume_mount_conflict",
    409,
    "Something is in the way of the volume.",
    "Remove it, or choose another mount_path.",
)
VOLUME_MOUNT_MISSING = _client(
    "volume_mount_missing", 409, "The volume is not in its place.", "Remount it."
)
VOLUME_UNAVAILABLE = _client(
    "volume_unavailable",
    409,
    "A volume that the sandbox needs is not there.",
    "Bring its directory back, or detach it.",
)
VOLUME_LIMIT_EXCEEDED = _client(
    "volume_limit_exceeded", 409, "The limit is reached.", "Delete or detach what is not needed."
)
PREVIEW_GRANT_NOT_FOUND = _client(
    "preview_grant_not_found", 404, "There is no such grant.", "List the grants of the sandbox."
)
PROCESS_NOT_FOUND = _client(
    "process_not_found", 404, "The sandbox has no such process.", "List the sandbox's processes."
)
FILE_NOT_FOUND = _client(
    "file_not_found", 404, "There is no such file or directory.", "Check the path."
)
PERMISSION_DENIED = _client(
    "permission_denied",
    403,
    "The permissions do not allow it.",
    "Set the permissions of the file, or of its directory, first.",
)
FILE_CONFLICT = _client(
    "file_conflict", 409, "Something is in the way.", "Remove it, or choose another path."
)
INSUFFICIENT_STORAGE = _client(
    "insufficient_storage", 507, "The disk is full.", "Remove what is not needed any more."
)
UPLOAD_NOT_FOUND = _client(
    "upload_not_found", 404, "The sandbox has no such upload.", "Begin a new one."
)
FILE_UPLOAD_ERROR = _client(
    "file_upload_error", 409, "The upload cannot go on.", "See error_detail.reason."
)
REQUEST_TIMEOUT = _client(
    "request_timeout", 408, "The body did not come in time.", "Send it without long breaks."
)
COMMAND_NOT_FOUND = _client(
    "command_not_found",
    400,
    "The command cannot be run.",
    "Give the program and its args apart, or set shell for a command line.",
)
METHOD_NOT_ALLOWED = _client(
    "method_not_allowed", 405, "The method is not available here.", "Use a method named in Allow."
)
SANDBOX_NOT_READY = Problem(
    "sandbox_not_ready",
    409,
    False,
    Blame.CLIENT,
    "The sandbox is not running.",
    "Resume it first, or create it with auto_resume.",
)
IDEMPOTENCY_CONFLICT = _client(
    "idempotency_conflict",
    409,
    "This Idempotency-Key was used with another request.",
    "Use a new key for a new request.",
)
WARM_POOL_UNAVAILABLE = _client(
    "warm_pool_unavailable",
    409,
    "The warm pool has no ready instance.",
    "Use mode prefer, or create without a pool.",
)
QUOTA_EXCEEDED = _client(
    "quota_exceeded", 409, "The limit is reached.", "Delete what is not needed any more."
)
TOO_MANY_STREAMS = _ours(
    "too_many_streams", 503, "Too many streams are open.", "Close some, or try again."
)
PAYLOAD_TOO_LARGE = _client(
    "payload_too_large",
    413,
    "The body is too large.",
    "Send less, or ask for less; details.limit is in bytes.",
)
UNSUPPORTED_MEDIA_TYPE = _client(
    "unsupported_media_type",
    415,
    "The body has to be JSON.",
    "Send JSON, with Content-Type: application/json.",
)
STDIN_CLOSED = _client(
    "stdin_closed",
    409,
    "The process takes no input.",
    "Start it in the background or as a stream to be able to send to it.",
)
STDIN_FULL = Problem(
    "stdin_full",
    409,
    True,
    Blame.CLIENT,
    "The process has not read what was sent before.",
    "Send it again when the process has read; nothing was sent.",
)
EXPECTATION_FAILED = _client(
    "expectation_failed", 417, "The expectation is unknown.", "Send Expect: 100-continue or none."
)
EXEC_TIMEOUT = Problem(
    "exec_timeout",
    504,
    False,
    Blame.CLIENT,
    "The command did not end in time and was ended.",
    "Give a longer timeout_secs, or run it in the background.",
)
NOT_IMPLEMENTED = _client(
    "not_implemented",
    501,
    "The embedded control plane does not offer this.",
    "docs/compatibility.md lists what it offers.",
)
CREATE_FAILED = _ours("create_failed", 503, "The sandbox could not be created.", "Try again.")
PAUSE_FAILED = _ours("pause_failed", 503, "The sandbox could not be paused.", "Try again.")
RESUME_FAILED = _ours("resume_failed", 503, "The sandbox could not be resumed.", "Try again.")
SNAPSHOT_FAILED = _ours("snapshot_failed", 503, "The files could not be copied.", "Try again.")
FORK_FAILED = _ours("fork_failed", 503, "The sandbox could not be forked.", "Try again.")
RESUME_TIMEOUT = _ours("resume_timeout", 503, "The sandbox did not run in time.", "Try again.")
RUNTIME_LOST = _ours("runtime_lost", 503, "The sandbox's processes were lost.", "Start them again.")
STATE_UNWRITABLE = _ours(
    "state_unwritable",
    503,
    "The control plane cannot write its state; nothing was changed.",
    "Make room on the disk of its data directory, then try again.",
)
AUTO_RESUME_DISABLED = _client(
    "auto_resume_disabled",
    409,
    "The sandbox does not resume by itself.",
    "Resume it through the API.",
)
CONSOLE_HOST_UNKNOWN = _client(
    "console_host_unknown",
    421,
    "The console is not served under this name.",
    "Open it by the address that preview-edge dev prints.",
)
CROSS_SITE_REQUEST = _client(
    "cross_site_request",
    403,
    "The request came from another site's page.",
    "Open the console itself and do it there.",
)
FORM_OUTDATED = _client(
    "form_outdated", 403, "The form is of an earlier login.", "Go back, reload the page, try again."
)
INTERNAL_ERROR = _ours(
    "internal_error",
    500,
    "Something went wrong inside the control plane.",
    "Look at its log for the request id.",
)


def invalid(message: str, **details: object) -> ApiError:
    """400 ``invalid_request``."""
    return ApiError(INVALID_REQUEST, message, details)
