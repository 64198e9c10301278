"""What may be said about volumes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge.appliance.bodies import parse
from edge.appliance.problems import ApiError
from edge.appliance.volumes.requests import VolumeCreate, VolumeMount


def _body(**more: object) -> bytes:
    return json.dumps(more).encode()


@pytest.mark.parametrize("name", ["a", "work-dir_1.2", "0", "A" * 63])
def test_names(name: str) -> None:
    """Those that fit into a URL as they are."""
    assert parse(VolumeCreate, _body(name=name)).name == name


@pytest.mark.parametrize(
    "name", ["", ".", "-a", "a/b", "a b", "\u00e4", "a" * 64, "vol_1", "a?b", "a\n", None, 1]
)
def test_names_that_are_none(name: object) -> None:
    """The published client puts the name into a path unquoted, and tells ids by how they begin."""
    with pytest.raises(ApiError):
        parse(VolumeCreate, _body(name=name))


@pytest.mark.parametrize(
    ("more", "names", "below"),
    [
        ({"mount_path": "/workspace/a"}, ("a",), ()),
        ({"mount_path": "//workspace//a/b/"}, ("a", "b"), ()),
        ({"mount_path": "/workspace/a", "subpath": "x/y/"}, ("a",), ("x", "y")),
        ({"mount_path": "/workspace/a", "subpath": None, "read_only": False}, ("a",), ()),
        ({"mount_path": "/workspace/a", "subpath": ""}, ("a",), ()),
    ],
)
def test_places(more: dict[str, Any], names: tuple[str, ...], below: tuple[str, ...]) -> None:
    """Absolute below the work tree; a part of the volume if so wished."""
    mount = parse(VolumeMount, _body(ref="v", **more))
    assert (mount.names, mount.below) == (names, below)


@pytest.mark.parametrize(
    "more",
    [
        {"mount_path": "/workspace"},
        {"mount_path": "/workspace/"},
        {"mount_path": "/data"},
        {"mount_path": "/workspacex/a"},
        {"mount_path": "workspace/a"},
        {"mount_path": "/workspace/../a"},
        {"mount_path": "/workspace/./a"},
        {"mount_path": "/workspace/a\0b"},
        {"mount_path": "/workspace/\ud800"},
        {"mount_path": "/workspace/" + "a" * 256},
        {"mount_path": "/workspace" + "/a" * 33},
        {"mount_path": "/workspace/a", "subpath": "/x"},
        {"mount_path": "/workspace/a", "subpath": "../x"},
        {"mount_path": "/workspace/a", "read_only": 1},
        {"mount_path": None},
        {},
    ],
)
def test_places_that_are_none(more: dict[str, Any]) -> None:
    """Outside of the work tree, the work tree itself, what is no path."""
    with pytest.raises(ApiError) as caught:
        parse(VolumeMount, _body(ref="v", **more))
    assert caught.value.problem.code == "invalid_request"
