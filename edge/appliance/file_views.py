"""The objects of the calls for files, as in ``views.py``."""

from __future__ import annotations

from edge.appliance.runtime import FileEntry
from edge.appliance.uploads import (
    LIFETIME,
    MAX_CONCURRENCY,
    MAX_STAGED,
    MAX_UPLOAD,
    PART_SIZE,
    Upload,
)
from edge.appliance.views import Json, rfc3339


def file_view(entry: FileEntry) -> Json:
    """A FileInfo; the client knows three types and no other."""
    view: Json = {
        "name": entry.name,
        "path": entry.path,
        "is_dir": entry.is_dir,
        "size": entry.size,
        "type": "file" if entry.type == "other" else entry.type,
        "mode": f"{entry.mode:04o}",
        "permissions": entry.permissions,
        "owner": entry.owner,
        "group": entry.group,
    }
    try:
        view["modified_time"] = rfc3339(entry.modified_time)
    except (ValueError, OverflowError, OSError):
        pass  # A process may have set a time beyond the calendar; the key is optional.
    if entry.symlink_target is not None:
        view["symlink_target"] = entry.symlink_target
    return view


def upload_view(upload: Upload) -> Json:
    """An UploadSessionInfo."""
    wanted = upload.wanted
    return {
        "upload_id": upload.id,
        "kind": wanted.kind,
        "source_kind": wanted.source_kind,
        "target_path": wanted.target_path,
        "content_length": wanted.content_length,
        "accepted_bytes": upload.accepted,
        "reserved_staging_bytes": wanted.content_length if upload.open else 0,
        "part_size": PART_SIZE,
        "part_count": upload.part_count,
        "max_concurrency": MAX_CONCURRENCY,
        "status": upload.status,
        "conflict": wanted.conflict,
        "checksum_algorithm": wanted.checksum_algorithm,
        "limits": {
            "max_upload_bytes": MAX_UPLOAD,
            "max_part_bytes": PART_SIZE,
            "max_concurrency": MAX_CONCURRENCY,
            "sandbox_staging_quota_bytes": MAX_STAGED,
        },
        "created_at": rfc3339(upload.created_at),
        "updated_at": rfc3339(upload.updated_at),
        "expires_at": rfc3339(upload.updated_at + LIFETIME),
        "user": wanted.user,
        "next_part": upload.next_part,
        "archive_format": wanted.archive_format,
        "whole_checksum_sha256": wanted.whole_checksum_sha256,
    }
