"""Uploads in parts: what is missing, what there is room for, and when one is over."""

from __future__ import annotations

import pytest

from edge.appliance import uploads as module
from edge.appliance.file_requests import UploadCreate
from edge.appliance.problems import ApiError
from edge.appliance.uploads import LIFETIME, MAX_UPLOAD, PART_SIZE, Uploads


def _wanted(size: int) -> UploadCreate:
    return UploadCreate(
        kind="file", source_kind="restartable_file", target_path="x", content_length=size
    )


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("size", "lengths"),
    [
        (0, []),
        (1, [1]),
        (PART_SIZE, [PART_SIZE]),
        (2 * PART_SIZE + 5, [PART_SIZE, PART_SIZE, 5]),
    ],
)
def test_parts(size: int, lengths: list[int]) -> None:
    """How many there are and how long; which one comes next; which do not exist."""
    upload = Uploads(Clock()).add("sb_1", _wanted(size), "n")
    assert [upload.part_length(number) for number in range(upload.part_count)] == lengths
    assert upload.next_part == (0 if lengths else None) and upload.accepted == 0
    for number in range(1, len(lengths)):
        upload.came.add(number)
    assert upload.accepted == sum(lengths[1:])
    upload.came.add(0)
    assert upload.next_part is None
    for number in (-1, len(lengths)):
        with pytest.raises(ApiError) as refused:
            upload.part_length(number)
        assert refused.value.error_detail is not None
        assert refused.value.error_detail["reason"] == "part_out_of_range"


def test_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one, for all of a sandbox together, and for so many; other sandboxes do not matter."""
    uploads = Uploads(Clock())
    monkeypatch.setattr(module, "MAX_STAGED", 100)
    monkeypatch.setattr(module, "MAX_UPLOADS", 3)
    reasons = []
    for size in (MAX_UPLOAD + 1, 101):
        with pytest.raises(ApiError) as refused:
            uploads.check("sb_1", _wanted(size))
        assert refused.value.error_detail is not None
        reasons.append(refused.value.error_detail["reason"])
    assert reasons == ["size_limit_exceeded", "insufficient_staging_space"]
    first = uploads.add("sb_1", _wanted(60), "n")
    with pytest.raises(ApiError):
        uploads.check("sb_1", _wanted(41))
    uploads.check("sb_2", _wanted(100))
    uploads.touch(first, "completed")
    uploads.check("sb_1", _wanted(100))
    for _ in range(2):
        uploads.add("sb_1", _wanted(0), "n")
    with pytest.raises(ApiError) as refused:
        uploads.check("sb_1", _wanted(0))
    assert refused.value.problem.code == "quota_exceeded"


async def test_time() -> None:
    """An open one ends when no part came for so long, is told as expired, and is forgotten later."""
    clock = Clock()
    uploads = Uploads(clock)
    upload = uploads.add("sb_1", _wanted(1), "n")
    clock.now = LIFETIME - 1
    uploads.touch(upload, "uploading")
    clock.now = LIFETIME + 1
    assert uploads.expired() == []
    clock.now = 2 * LIFETIME
    async with upload.lock:
        assert uploads.expired() == []
    assert uploads.expired() == [upload]
    with pytest.raises(ApiError) as refused:
        upload.require_open()
    assert refused.value.error_detail is not None
    assert refused.value.error_detail["reason"] == "upload_expired"
    assert uploads.get("sb_1", upload.id) is upload
    clock.now = 3 * LIFETIME
    assert uploads.expired() == []
    for sandbox in ("sb_1", "sb_2"):
        with pytest.raises(ApiError):
            uploads.get(sandbox, upload.id)
