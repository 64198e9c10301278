"""Directories and files are swapped for links to the outside while calls are under way.

Once by a process, as fast as it can, and once by the test, just before each system call in turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from families import open_descriptors

from edge.appliance.runtime import RuntimeFault
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.mounts import Mount
from edge.appliance.runtime.search import find, replace, search
from edge.appliance.runtime.watch import look

SECRET = b"what is the outside's own"
INSIDE = b"inside"
SEATS = ("seat", "above/seat")
ROUNDS = 150
"""Rounds at least; more until both faces of the swap were met."""

# Swaps as fast as it can: each of the pairs by one system call where there is one, else by three.
SWAPPER = """
import ctypes, os, sys

os.chdir(sys.argv[1])
exchange = getattr(ctypes.CDLL(None), "renameat2", None)

def swap(one, other):
    if exchange is None or exchange(-100, one.encode(), -100, other.encode(), 2):
        os.rename(one, "between"); os.rename(other, one); os.rename("between", other)

print("swapping", flush=True)
while True:
    swap("seat", "to-outside")
    swap("entry", "to-secret")
    swap("above/seat", "to-above")
"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What nobody may reach: a directory with the names that the tree has, too."""
    folder = tmp_path / "outside"
    (folder / "below" / "new").mkdir(parents=True)
    (folder / "made").mkdir()
    for name in ("secret", "below/secret", "below/new/0", "made/0"):
        (folder / name).write_bytes(SECRET)
        (folder / name).chmod(0o640)
    return folder


@pytest.fixture(params=["directories", "volumes"])
def calm(tmp_path: Path, outside: Path, request: pytest.FixtureRequest) -> WorkTree:
    """A tree with three pairs to swap: the seats are directories, or links that are mounts."""
    root = tmp_path / "workspace"
    tree = WorkTree(root)
    (root / "above").mkdir(parents=True)
    for number, seat in enumerate(SEATS):
        folder = root / seat
        if request.param == "volumes":
            folder = tmp_path / "volumes" / str(number)
            folder.mkdir(parents=True)
            tree.mount(Mount(tuple(seat.split("/")), folder))
        (folder / "below").mkdir(parents=True)
        (folder / "secret").write_bytes(INSIDE)
        (folder / "below" / "secret").write_bytes(INSIDE)
    (root / "entry").write_bytes(INSIDE)
    (root / "to-outside").symlink_to(outside)
    (root / "to-above").symlink_to("../../outside")
    (root / "to-secret").symlink_to("../outside/secret")
    return tree


@pytest.fixture
def tree(calm: WorkTree) -> Iterator[WorkTree]:
    """A tree in which a process swaps until the test is over."""
    command = [sys.executable, "-c", SWAPPER, str(calm.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as swapper:
        assert swapper.stdout is not None and swapper.stdout.readline() == b"swapping\n"
        yield calm
        assert swapper.poll() is None, "the swapper gave up, so there was no race"
        swapper.kill()


def _picture(folder: Path) -> list[tuple[object, ...]]:
    """All there is to know about a directory and what is below it."""
    return sorted(
        (str(path), status.st_mode, status.st_ino, status.st_mtime_ns, status.st_size)
        for path in [folder, *folder.rglob("*")]
        for status in [path.lstat()]
    )


CALLS: dict[str, Callable[[WorkTree, int], object]] = {
    "read": lambda tree, n: tree.read(f"{SEATS[n % 2]}/secret", 100),
    "read deeper": lambda tree, n: tree.read(f"{SEATS[n % 2]}/below/secret", 100),
    "read through dots": lambda tree, _: tree.read("above/../seat/below/../secret", 100),
    "read a link": lambda tree, _: tree.read("entry", 100),
    "open": lambda tree, _: os.close(tree.open_file("entry")[0]),
    "write": lambda tree, n: tree.write(f"{SEATS[n % 2]}/secret", INSIDE),
    "write a link": lambda tree, _: tree.write("entry", INSIDE, 0o600),
    "write new": lambda tree, n: tree.write(f"{SEATS[n % 2]}/below/new/{n % 3}", INSIDE),
    "mkdir": lambda tree, n: tree.make_directory(f"{SEATS[n % 2]}/made/{n % 3}"),
    "chmod": lambda tree, n: tree.set_permissions(f"{SEATS[n % 2]}/secret", 0o600 + n % 7),
    "chmod a link": lambda tree, n: tree.set_permissions("entry", 0o600 + n % 7),
    "chmod a directory": lambda tree, n: tree.set_permissions(f"{SEATS[n % 2]}/below", 0o711),
    "remove": lambda tree, n: tree.remove(f"{SEATS[n % 2]}/below/new"),
    "remove it": lambda tree, n: tree.remove(f"{SEATS[n % 2]}/made"),
    "rename in": lambda tree, n: tree.rename(f"{SEATS[n % 2]}/below", f"{SEATS[n % 2]}/under"),
    "rename back": lambda tree, n: tree.rename(f"{SEATS[n % 2]}/under", f"{SEATS[n % 2]}/below"),
    "link": lambda tree, n: tree.link(f"{SEATS[n % 2]}/linked", "secret"),
    "info": lambda tree, n: tree.info(f"{SEATS[n % 2]}/secret").size,
    "list": lambda tree, n: {entry.size for entry in tree.entries(SEATS[n % 2], 9)},
    "list all": lambda tree, _: {entry.size for entry in tree.entries("", 9)},
    "find": lambda tree, _: [match.content for match in find(tree, "", "the outside's own")],
    "search": lambda tree, _: len(search(tree, "", "*")),
    "replace": lambda tree, n: replace(tree, [f"{SEATS[n % 2]}/secret"], "i", "i"),
    "watch": lambda tree, n: len(look(tree, SEATS[n % 2], recursive=True)),
}


def _innocent(name: str, answer: object) -> None:
    """Nothing of the outside is in the answer."""
    assert not isinstance(answer, bytes) or answer == INSIDE, name
    assert name != "find" or not answer
    assert not isinstance(answer, set) or len(SECRET) not in answer
    assert name != "info" or answer != len(SECRET)


def test_no_call_is_led_out(tree: WorkTree, outside: Path) -> None:
    """Every call stays in the tree or fails; nothing outside is read, made, changed, moved or removed."""
    before = _picture(outside)
    descriptors = open_descriptors()
    met: dict[str, set[str]] = {name: set() for name in CALLS}
    round_ = 0
    wanted = {"done", "PathEscape"}
    # The suite's own time limit ends what never meets both.
    while round_ < ROUNDS or not all(met[name] >= wanted for name in ("read", "write", "chmod")):
        for name, call in CALLS.items():
            try:
                answer = call(tree, round_)
            except RuntimeFault as fault:
                met[name].add(type(fault).__name__)
                continue
            met[name].add("done")
            _innocent(name, answer)
        round_ += 1
    assert _picture(outside) == before
    assert (outside / "secret").read_bytes() == SECRET
    assert open_descriptors() == descriptors


PAIRS = (("seat", "to-outside"), ("entry", "to-secret"), ("above/seat", "above/../to-above"))
SYSTEM_CALLS = "open stat fstat readlink mkdir rename unlink symlink chmod fchmod scandir".split()


class Swapper:
    """Swaps all pairs just before the system call of a given number, made through ``os``."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._rename = os.rename
        self.count = 0
        self.at = -1
        for name in SYSTEM_CALLS:
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))

    def _watched(self, call: Callable[..., object]) -> Callable[..., object]:
        def watched(*args: object, **more: object) -> object:
            if self.count == self.at:
                self.swap()
            self.count += 1
            return call(*args, **more)

        return watched

    def swap(self) -> None:
        between = self._root / "between"
        for one, other in PAIRS:
            self._rename(self._root / one, between)
            self._rename(self._root / other, self._root / one)
            self._rename(between, self._root / other)


@pytest.mark.parametrize("swapped", [False, True], ids=["to links", "from links"])
@pytest.mark.parametrize("name", CALLS)
def test_no_moment_is_the_wrong_one(
    calm: WorkTree, outside: Path, name: str, swapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of its system calls the swap comes before, a call stays in the tree or fails."""
    before = _picture(outside)
    with monkeypatch.context() as patched:
        swapper = Swapper(calm.root, patched)
        moments = 0
        while True:
            if swapped:
                swapper.swap()
            swapper.count, swapper.at = 0, moments
            answer: object = None
            try:
                answer = CALLS[name](calm, moments)
            except RuntimeFault:
                pass
            over = swapper.count <= moments
            swapper.at = -1
            if over == swapped:  # Swapped back, if the call did not last that long.
                swapper.swap()
            _innocent(name, answer)
            if over:
                break
            moments += 1
            if not (calm.root / "seat" / "below").exists():
                (calm.root / "seat" / "under").rename(calm.root / "seat" / "below")
            if not (calm.root / "above/seat" / "below").exists():
                (calm.root / "above/seat" / "under").rename(calm.root / "above/seat" / "below")
    assert moments > 2
    assert _picture(outside) == before
