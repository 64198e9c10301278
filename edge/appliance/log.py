"""The control plane's log: one JSON object a line on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


def log_event(event: str, **fields: object) -> None:
    """Write one line. Whoever calls it leaves credentials out."""
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
    print(json.dumps(line, default=repr), file=sys.stderr, flush=True)  # noqa: T201 - this is the log


class _Handler(logging.Handler):
    """What libraries log, in the same form. Their arguments may quote requests, so only the text."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        kind = type(error).__name__ if error is not None else None
        log_event("library", source=record.name, message=str(record.msg), error=kind)


def capture_libraries() -> None:
    """Send warnings of libraries to the log as JSON instead of plain text."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Handler()], force=True)
