"""Objects of the calls for files: exactly the keys that the published client takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from nullspace.types import FileInfo

from edge.appliance.file_views import file_view
from edge.appliance.runtime import FileEntry


def test_a_file_of_any_time_and_kind_has_a_view() -> None:
    """A process may set a time beyond the calendar, and make what the client has no type for."""
    entry = FileEntry(
        name="p", path="/workspace/p", is_dir=False, size=0, type="other", mode=0o600,
        permissions="prw-------", owner="root", group="root", modified_time=0.0,
    )  # fmt: skip
    assert FileInfo(**file_view(entry)).modified_time == datetime(1970, 1, 1, tzinfo=UTC)
    for time in (2.0**60, -(2.0**60), float("nan")):
        assert FileInfo(**file_view(replace(entry, modified_time=time))).modified_time is None
    assert FileInfo(**file_view(entry)).type == "file"
    link = replace(entry, type="symlink", symlink_target="x")
    assert FileInfo(**file_view(link)).symlink_target == "x"
