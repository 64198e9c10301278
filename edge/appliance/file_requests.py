"""What the calls for files take; the rules are those of ``requests.py``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edge.appliance.requests import Body, Line, Name, Text

LONGEST_PATTERN = 1024
MOST_FILES = 1000
"""Files that one call names."""


class FilePath(Body):
    """A path in a sandbox. ``user`` is accepted and means nothing here: there is only one."""

    path: Line
    user: str | None = None


class FileRead(FilePath):
    """``POST S/files/read``."""

    encoding: Literal["utf8", "base64"] = "utf8"


class FileWrite(FilePath):
    """``POST S/files/write``."""

    content: str
    encoding: Literal["utf8", "base64"] = "utf8"


class FileRename(Body):
    """``POST S/files/rename``."""

    old_path: Line
    new_path: Line
    user: str | None = None


class FilePermissions(FilePath):
    """``POST S/files/permissions``: octal digits, such as ``755`` or ``0644``."""

    permissions: Annotated[str, Field(pattern=r"^[0-7]{3,4}$")]


class FilePattern(FilePath):
    """``POST S/files/find`` (text in files) and ``S/files/search`` (a shell pattern for names)."""

    pattern: Annotated[Line, Field(max_length=LONGEST_PATTERN)]


class FileReplace(Body):
    """``POST S/files/replace``."""

    files: Annotated[list[Line], Field(max_length=MOST_FILES)]
    pattern: Annotated[Line, Field(max_length=LONGEST_PATTERN)]
    replacement: Text
    dry_run: bool = False
    user: str | None = None


class FileBatch(Body):
    """The manifest of ``POST S/files/batch-write``: which part of the body goes where."""

    class File(Body):
        """One file; ``field`` is the name of its part."""

        path: Line
        field: Line

    files: Annotated[list[File], Field(max_length=MOST_FILES)]
    user: str | None = None


class FileLink(FilePath):
    """``POST S/files/download-url`` and ``S/files/upload-url``. Archives are understood, and not offered."""

    archive_format: Literal["tar"] | None = None


class UploadCreate(Body):
    """``POST S/uploads``: a file, or a directory as a tar archive, that will come in parts."""

    kind: Literal["file", "directory_tar"]
    source_kind: Literal["restartable_file", "spooled_stream", "directory_archive"]
    target_path: Line
    content_length: Annotated[int, Field(ge=0)]
    user: Name | None = None
    conflict: Literal["merge", "replace", "error"] = "merge"
    archive_format: Literal["tar"] | None = None
    checksum_algorithm: Literal["sha256"] = "sha256"
    whole_checksum_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _archived(self) -> UploadCreate:
        if (self.kind == "directory_tar") != (self.archive_format == "tar"):
            raise ValueError("archive_format tar goes with kind directory_tar, and only with it")
        return self


class UploadComplete(Body):
    """``POST S/uploads/{id}/complete``; also without a body."""

    whole_checksum_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class FileWatch(FilePath):
    """The first message of a client that watches a directory."""

    type: Literal["file_watch"]
    id: Name
    recursive: bool = False
    timeout_secs: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = None
