"""What a sandbox's processes may read and not write: by the kernel, in a sandbox with mounts of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from families import until

from edge.appliance.runtime import Command, Runtime, SupervisorLost, VolumeLost
from edge.appliance.runtime.mounts import Mount

pytestmark = pytest.mark.needs_tool("netns")

ALONE = """
import errno, os, sys
from edge.appliance.runtime.namespace import enter
from edge.appliance.runtime.readonly import show
enter()
for _ in range(3):
    show(sys.argv[1], sys.argv[2])
print(os.listdir(sys.argv[2]), os.statvfs(sys.argv[2]).f_flag & os.ST_RDONLY)
print(open("/proc/self/mounts").read().count(sys.argv[2]))
try:
    open(sys.argv[2] + "/new", "w")
except OSError as e:
    print(errno.errorcode[e.errno])
"""
BREAK = (
    "umount v; mount -o remount,rw,bind v; unshare -Ur -m sh -c 'umount v; touch v/x'; touch v/x"
)


@pytest.fixture
async def isolated(tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime with one sandbox, ``a``."""
    runtime = Runtime(tmp_path / "sandboxes", isolated=True)
    await runtime.start()
    await runtime.create("a", envs={}, cwd=None)
    yield runtime
    await runtime.close()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """The directory of a volume, with a file in a directory of it."""
    folder = tmp_path / "volumes" / "one" / "files"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "f").write_text("old")
    return folder


async def _mount(runtime: Runtime, mount: Mount) -> None:
    await runtime.files("a", lambda tree: tree.mount(mount))
    await runtime.show("a")


async def _tries(runtime: Runtime, line: str, cwd: str = "/workspace") -> str:
    """What a line of shell says, in both streams."""
    ran = await runtime.exec("a", Command(shell=f"({line}) 2>&1", cwd=cwd))
    return ran.stdout.decode()


def test_it_is_mounted_once_and_nowhere_else(volume: Path) -> None:
    """Read-only in the namespace, an empty directory here; what is shown already is left alone."""
    at = volume.with_name("read-only")
    at.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, str(volume), str(at)], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert ran.stdout == "['part'] 1\n1\nEROFS\n", ran.stderr
    assert list(at.iterdir()) == []
    (volume / "new").touch()


async def test_processes_read_and_do_not_write(isolated: Runtime, volume: Path) -> None:
    """One that runs already, and later ones; by the link, from within, and as root of the namespace."""
    early = "while [ ! -e v/part/f ]; do sleep 0.02; done; touch v/x; cat v/part/f"
    pid = await isolated.spawn("a", Command(shell=early))
    await _mount(isolated, Mount(("v",), volume, read_only=True))
    await until(lambda: isolated.logs("a", pid).exit_code == 0)
    logs = isolated.logs("a", pid)
    assert logs.stdout == b"old" and b"Read-only file system" in logs.stderr
    for line in ("touch v/x", "rm v/part/f", "echo > v/part/f", BREAK):
        assert "Read-only file system" in await _tries(isolated, line)
    for cwd, name in (("/workspace/v", "part/f"), ("v/part", "f")):
        said = await _tries(isolated, f"cat {name}; touch x; echo > {name}", cwd)
        assert said.startswith("old") and said.count("Read-only file system") == 2
    # Whoever has it to write to does, and it is seen.
    (volume / "part" / "f").write_text("new")
    assert await _tries(isolated, "cat v/part/f") == "new"
    assert [path.name for path in volume.rglob("*")] == ["part", "f"]


async def test_a_part_beside_the_whole(isolated: Runtime, volume: Path) -> None:
    """One volume twice: a part of it read-only, all of it to write to; each place keeps what it is."""
    await _mount(isolated, Mount(("ro",), volume, ("part",), read_only=True))
    await _mount(isolated, Mount(("rw",), volume))
    assert "Read-only" in await _tries(isolated, "echo no > ro/f")
    assert await _tries(isolated, "echo yes > rw/part/f && cat ro/f") == "yes\n"


async def test_the_next_supervisor_shows_it_too(isolated: Runtime, volume: Path) -> None:
    """Its mounts end with it; the first command of the next one finds them made."""
    await _mount(isolated, Mount(("v",), volume, read_only=True))
    assert await _tries(isolated, "cat v/part/f") == "old"
    with suppress(SupervisorLost):
        await isolated.exec("a", Command(shell="kill -9 $PPID; sleep 60"))
    assert "Read-only" in await _tries(isolated, "cat v/part/f; touch v/x")


async def test_one_that_cannot_be_shown_starts_nothing(isolated: Runtime, volume: Path) -> None:
    """Rather than show an empty directory, or one to write to."""
    await _mount(isolated, Mount(("v",), volume, read_only=True))
    volume.with_name("read-only").rmdir()
    with pytest.raises(VolumeLost, match="read-only: No such file"):
        await isolated.exec("a", Command(shell="true"))
