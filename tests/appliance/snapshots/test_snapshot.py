"""A copy as it is written."""

from __future__ import annotations

import json

from edge.appliance.sandbox import Plan, Snapshot
from edge.appliance.snapshots.snapshot import Copy, from_document, to_document
from edge.appliance.volumes.volume import Attachment


def test_a_copy_is_the_same_after_it_was_written() -> None:
    """With what its sandbox was then."""
    plan = Plan("t", 2, 3, "/c", {"a": 1}, True, 5.0, {"hit": False}, "h", None)
    places = (Attachment("vat_1", "vol_1", ("a",), (), 1.0, 2.0),)
    copy = Copy("snap_1", "sb_1", 5, 1.5, plan, places, ("/one", "/two"))
    assert from_document(json.loads(json.dumps(to_document(copy)))) == copy
    assert copy.snapshot == Snapshot("snap_1", "sb_1", 5, 1.5)
