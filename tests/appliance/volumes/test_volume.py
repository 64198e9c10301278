"""Volumes and attachments as they are written, and which attachments exclude each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.appliance.volumes.volume import (
    Attachment,
    Volume,
    attachment_from_document,
    attachment_to_document,
    from_document,
    to_document,
)


def test_both_are_the_same_after_they_were_written() -> None:
    """But for what is measured anew."""
    volume = from_document(
        json.loads(json.dumps(to_document(Volume("vol_1", "n", 1.5, 7, 8, 9.0))))
    )
    assert (volume.id, volume.name, volume.created_at) == ("vol_1", "n", 1.5)
    assert (volume.used_bytes, volume.measured_at) == (0, None)
    attachment = Attachment("vat_1", "vol_1", ("a", "b"), ("c",), 1.0, 2.0, "code", "text")
    text = json.dumps(attachment_to_document(attachment))
    assert attachment_from_document(json.loads(text)) == attachment


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        ("a", "a", True),
        ("a", "a/b", True),
        ("a/b/c", "a", True),
        ("a/b", "a/c", False),
        ("ab", "a", False),
    ],
)
def test_one_place_in_another(one: str, other: str, excluded: bool) -> None:
    """A volume in a volume would be seen by every sandbox that has the outer one."""
    first, second = (
        Attachment("vat", "vol", tuple(path.split("/")), (), 0.0, 0.0) for path in (one, other)
    )
    assert first.in_the_way(second) is second.in_the_way(first) is excluded


def test_the_runtime_is_told_where() -> None:
    """The place, the volume's directory, and the part of it."""
    mount = Attachment("vat", "vol", ("a",), ("b",), 0.0, 0.0).mount(Path("/v"))
    assert (mount.path, mount.target) == ("/workspace/a", "/v/b")
