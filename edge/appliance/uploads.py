"""Uploads in parts: what has come of each, and when it ends.

A part may come again, in any order, and several at a time; what has come is a file beside the work tree
until the upload is complete. Kept in memory: uploads end with the control plane, and with their sandbox.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.appliance.file_requests import UploadCreate
from edge.appliance.problems import FILE_UPLOAD_ERROR, QUOTA_EXCEEDED, UPLOAD_NOT_FOUND, ApiError

PART_SIZE = 8 << 20
MAX_CONCURRENCY = 4
MAX_UPLOAD = 16 << 30
"""Bytes of one upload."""

MAX_STAGED = 32 << 30
"""Bytes of all uploads of a sandbox that are under way."""

MAX_UPLOADS = 100
"""Uploads of a sandbox, under way or remembered."""

LIFETIME = 3600.0
"""Seconds without a part after which an upload is over, and for which one that is over is remembered."""


@dataclass(slots=True, eq=False)
class Upload:
    """One upload. ``name`` is its file's, while there is one; times are Unix time in seconds."""

    id: str
    sandbox: str
    wanted: UploadCreate
    name: str
    created_at: float
    updated_at: float
    status: str = "created"
    came: set[int] = field(default_factory=set)
    files: int = 0
    size: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def part_count(self) -> int:
        """How many parts there are; none for an empty file."""
        return -(-self.wanted.content_length // PART_SIZE)

    @property
    def open(self) -> bool:
        """Whether parts are taken."""
        return self.status in ("created", "uploading", "staged")

    @property
    def next_part(self) -> int | None:
        """The first that is missing."""
        return next((n for n in range(self.part_count) if n not in self.came), None)

    @property
    def accepted(self) -> int:
        """Bytes that have come."""
        return sum(self.part_length(number) for number in self.came)

    def part_length(self, number: int) -> int:
        """Bytes of a part: all the same but for the last. Raises `ApiError` (part_out_of_range)."""
        if not 0 <= number < self.part_count:
            raise self.error("part_out_of_range", "There is no such part.", part_number=number)
        return min(PART_SIZE, self.wanted.content_length - number * PART_SIZE)

    def require_open(self) -> None:
        """Raises `ApiError` (upload_already_completed, upload_aborted, upload_expired, missing_parts)."""
        if not self.open:
            reasons = {"failed": "missing_parts", "completed": "upload_already_completed"}
            reason = reasons.get(self.status, f"upload_{self.status}")
            raise self.error(reason, f"The upload is {self.status}.")

    def error(self, reason: str, message: str, **more: object) -> ApiError:
        """An error about this upload, in the client's words."""
        path = self.wanted.target_path
        return upload_error(reason, message, upload_id=self.id, path=path, **more)


def upload_error(reason: str, message: str, **more: object) -> ApiError:
    """409 ``file_upload_error``; the client has kinds of errors for the reasons."""
    detail = {"reason": reason, "message": message, "retryable": False, **more}
    return ApiError(FILE_UPLOAD_ERROR, message, {"reason": reason}, error_detail=detail)


class Uploads:
    """All uploads. ``wall`` is Unix time in seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._uploads: dict[str, Upload] = {}

    def check(self, sandbox: str, wanted: UploadCreate) -> None:
        """Whether there is room. Raises `ApiError` (file_upload_error, quota_exceeded)."""
        path = wanted.target_path
        if wanted.content_length > MAX_UPLOAD:
            text = f"An upload has at most {MAX_UPLOAD} bytes."
            raise upload_error("size_limit_exceeded", text, path=path)
        mine = [upload for upload in self._uploads.values() if upload.sandbox == sandbox]
        if len(mine) >= MAX_UPLOADS:
            raise ApiError(QUOTA_EXCEEDED, f"A sandbox has at most {MAX_UPLOADS} uploads at once.")
        staged = sum(upload.wanted.content_length for upload in mine if upload.open)
        if staged + wanted.content_length > MAX_STAGED:
            text = f"Uploads of a sandbox have at most {MAX_STAGED} bytes at once."
            raise upload_error("insufficient_staging_space", text, path=path)

    def add(self, sandbox: str, wanted: UploadCreate, name: str) -> Upload:
        """A new upload whose file is ``name``."""
        now = self._wall()
        upload = Upload(f"upl_{secrets.token_hex(16)}", sandbox, wanted, name, now, now)
        self._uploads[upload.id] = upload
        return upload

    def get(self, sandbox: str, upload_id: str) -> Upload:
        """Raises `ApiError` (upload_not_found)."""
        upload = self._uploads.get(upload_id)
        if upload is None or upload.sandbox != sandbox:
            raise ApiError(UPLOAD_NOT_FOUND)
        return upload

    def touch(self, upload: Upload, status: str) -> None:
        """Something has happened to it."""
        upload.status = status
        upload.updated_at = self._wall()

    def expired(self) -> list[Upload]:
        """Those whose time is over: the open ones end, and their files are the caller's to remove."""
        now = self._wall()
        over: list[Upload] = []
        for upload in list(self._uploads.values()):
            if now < upload.updated_at + LIFETIME or upload.lock.locked():
                continue
            if upload.open:
                self.touch(upload, "expired")
                over.append(upload)
            else:
                del self._uploads[upload.id]
        return over
