"""A command begins where and as it was said, or it is said why it does not."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from families import LINUX

from edge.appliance.runtime.birth import Births, NotBorn

LOOK = "pwd; echo $A; cat; echo error >&2"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A descriptor of the directory in which commands begin."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def _run(births: Births, folder: int, *argv: str, seen: str | None = None) -> tuple[bytes, int]:
    """Both of its streams, and how it ended."""
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        env = {"PATH": os.defpath, "A": "x"}
        pid = births.start(argv, env, (folder, null, writing, writing), seen)
    finally:
        os.close(writing)
        os.close(null)
        if sys.exc_info()[0] is not None:
            os.close(reading)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    return said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_begins_as_it_was_said(folder: int, tmp_path: Path) -> None:
    """In its directory, or in the one that is named as it is seen; its variables, its streams, and its end is ours to wait for."""
    births = Births(None, own=False)
    for seen, where in ((None, tmp_path), ("/", Path("/"))):
        said, status = _run(births, folder, "sh", "-c", LOOK + "; exit 3", seen=seen)
        assert (said.decode(), status) == (f"{where}\nx\nerror\n", 3)


@pytest.mark.parametrize(
    ("argv", "seen"),
    [(("no-such-program",), None), (("/etc/hostname",), None), (("true",), "/no/such")],
)
def test_what_cannot_begin_is_told(folder: int, argv: tuple[str, ...], seen: str | None) -> None:
    """A program that is none, a directory that is not seen; nothing is left to wait for."""
    with pytest.raises(NotBorn):
        _run(Births(None, own=False), folder, *argv, seen=seen)


@pytest.mark.skipif(not LINUX or os.geteuid() != 0, reason="only root has what is taken away")
def test_in_namespaces_of_its_own_root_does_not_administer_them(folder: int) -> None:
    """Mounts cannot be changed by what is started there (CAP_SYS_ADMIN, bit 21); elsewhere root stays what it is."""
    left = {}
    for own in (False, True):
        said, _ = _run(Births(None, own=own), folder, "cat", "/proc/self/status")
        bounds = re.search(rb"CapBnd:\s*([0-9a-f]+)", said)
        assert bounds is not None
        left[own] = int(bounds[1], 16) >> 21 & 1
    own_bounds = re.search(r"CapBnd:\s*([0-9a-f]+)", Path("/proc/self/status").read_text())
    assert own_bounds is not None
    assert left == {False: int(own_bounds[1], 16) >> 21 & 1, True: 0}
