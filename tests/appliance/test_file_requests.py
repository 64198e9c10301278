"""What the calls for files take, and what they refuse before anything is done."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from edge.appliance.bodies import parse
from edge.appliance.file_requests import (
    FileBatch,
    FileLink,
    FilePattern,
    FilePermissions,
    FileReplace,
    FileWatch,
    FileWrite,
    UploadComplete,
    UploadCreate,
)
from edge.appliance.problems import ApiError

UPLOAD = {
    "kind": "file", "source_kind": "restartable_file", "target_path": "x", "content_length": 1,
    "archive_format": None, "whole_checksum_sha256": None, "metadata": {}, "user": None,
}  # fmt: skip
WATCH = {"type": "file_watch", "id": "w", "path": "x"}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (FileWrite, {"path": "x"}),
        (FileWrite, {"path": "", "content": ""}),
        (FileWrite, {"path": "x\0", "content": ""}),
        (FileWrite, {"path": "x", "content": "", "encoding": "utf16"}),
        (FilePermissions, {"path": "x", "permissions": "64"}),
        (FilePermissions, {"path": "x", "permissions": "0o644"}),
        (FilePattern, {"path": "x", "pattern": ""}),
        (FileReplace, {"files": "x", "pattern": "a", "replacement": "b"}),
        (FileReplace, {"files": ["x"], "pattern": "a"}),
        (FileBatch, {"files": [{"path": "x"}]}),
        (FileLink, {"path": "x", "archive_format": "zip"}),
        (FileWatch, WATCH | {"type": "exec_start"}),
        (FileWatch, WATCH | {"timeout_secs": 0}),
        (FileWatch, WATCH | {"id": ""}),
        (UploadCreate, UPLOAD | {"kind": "directory_tar"}),
        (UploadCreate, UPLOAD | {"archive_format": "tar"}),
        (UploadCreate, UPLOAD | {"content_length": -1}),
        (UploadCreate, UPLOAD | {"conflict": "ask"}),
        (UploadCreate, UPLOAD | {"checksum_algorithm": "md5"}),
        (UploadCreate, UPLOAD | {"whole_checksum_sha256": "x"}),
        (UploadComplete, {"whole_checksum_sha256": "A" * 64}),
    ],
)
def test_what_is_refused(model: type[BaseModel], body: dict[str, Any]) -> None:
    """Each for its own reason."""
    good = {FileWatch: WATCH, UploadCreate: UPLOAD}.get(model)
    if good is not None:
        parse(model, _json(good))
    with pytest.raises(ApiError) as refused:
        parse(model, _json(body))
    assert refused.value.problem.code == "invalid_request"


def _json(body: dict[str, Any]) -> bytes:

    return json.dumps(body).encode()
