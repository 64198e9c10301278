"""Sandboxes whole: nothing escapes a freeze, a kill, or the death of the control plane."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from families import LINUX, NAMES, Family, alive, until

from edge.appliance.runtime import (
    Command,
    NoSuchSandbox,
    PathEscape,
    Runtime,
    RuntimeFault,
    SandboxFrozen,
    VolumeLost,
)
from edge.appliance.runtime.mounts import Mount

ROOT = Path(__file__).resolve().parents[3]


@LINUX
async def test_a_frozen_family_stands_still_and_goes_on(
    runtime: Runtime, sandbox: str, root: Path
) -> None:
    """Children, own sessions, daemons and daemons without environment stop, and count on after the thaw."""
    await runtime.create("sb_witness1", envs={}, cwd=None)
    family = await Family.start(runtime, sandbox, root)
    witness = await Family.start(runtime, "sb_witness1", root)
    pids = family.pids

    size = await runtime.freeze(sandbox)
    frozen = family.beats()
    # A family of the same kind that is not frozen says that there was time enough to move.
    await witness.moved_on(witness.beats(), 50)
    assert family.beats() == frozen
    assert size > 1 << 20, "five interpreters take more than a MiB"

    await runtime.thaw(sandbox)
    await family.moved_on(frozen)
    assert family.pids == pids, "the same processes, not new ones"


@LINUX
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
async def test_destroy_leaves_nothing(
    runtime: Runtime, sandbox: str, root: Path, frozen: bool
) -> None:
    """Every member of a family is dead and the directory gone when destroy returns, frozen or not."""
    family = await Family.start(runtime, sandbox, root)
    pids = family.pids
    if frozen:
        await runtime.freeze(sandbox)
    await runtime.destroy(sandbox)
    assert [name for name in NAMES if alive(pids[name])] == []
    assert not (root / sandbox).exists()
    with pytest.raises(NoSuchSandbox):
        await runtime.exec(sandbox, Command(argv=["true"]))


@LINUX
async def test_close_kills_and_keeps_files(runtime: Runtime, sandbox: str, root: Path) -> None:
    """After close no process is left, frozen ones included; what they wrote is still there."""
    await runtime.create("sb_test0002", envs={}, cwd=None)
    first = await Family.start(runtime, sandbox, root)
    second = await Family.start(runtime, "sb_test0002", root)
    await runtime.freeze("sb_test0002")
    pids = [*first.pids.values(), *second.pids.values()]
    await runtime.close()
    assert [pid for pid in pids if alive(pid)] == []
    assert (first.tree / "family.py").exists()


CHAIN = """
import os
beats = open("chain.beats", "ab", buffering=0)
while True:
    if os.fork():
        os._exit(0)  # Each lives for an instant only, as the parent of the next.
    beats.write(b".")
"""


@LINUX
async def test_a_chain_of_forks_is_caught(runtime: Runtime, sandbox: str, root: Path) -> None:
    """Processes that do nothing but fork and die, faster than a scan, stop, go on and die for good."""
    beats = root / sandbox / "workspace" / "chain.beats"
    await runtime.spawn(sandbox, Command(argv=[sys.executable, "-S", "-c", CHAIN]))
    await runtime.create("sb_witness1", envs={}, cwd=None)
    witness = await Family.start(runtime, "sb_witness1", root)
    await until(lambda: beats.exists() and beats.stat().st_size > 100)
    for _ in range(3):
        await runtime.freeze(sandbox)
        frozen = beats.stat().st_size
        await witness.moved_on(witness.beats(), 20)
        assert beats.stat().st_size == frozen
        await runtime.thaw(sandbox)
        await until(lambda frozen=frozen: beats.stat().st_size > frozen)
    handle = beats.open()
    await runtime.destroy(sandbox)
    last = os.fstat(handle.fileno()).st_size
    await witness.moved_on(witness.beats(), 20)
    assert os.fstat(handle.fileno()).st_size == last
    handle.close()


OWNER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from families import Family
from edge.appliance.runtime import Runtime

async def main():
    root = Path(sys.argv[1])
    runtime = Runtime(root, cgroups=sys.argv[2] == "True")
    await runtime.start()
    pids = []
    for name in ("sb_running1", "sb_frozen01"):
        await runtime.create(name, envs={}, cwd=None)
        family = await Family.start(runtime, name, root)
        pids += family.pids.values()
        pids.append(runtime._sandboxes[name]._link.pid)
    await runtime.freeze("sb_frozen01")
    print(*pids, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@LINUX
async def test_kill_9_of_the_owner_leaves_nothing(root: Path, cgroups: bool) -> None:
    """The control plane is killed without warning: running and frozen families die, supervisors too."""
    command = [sys.executable, "-c", OWNER, str(root), str(cgroups), str(Path(__file__).parent)]
    owner = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    assert owner.stdout is not None
    line = await owner.stdout.readline()
    owner.send_signal(signal.SIGKILL)
    await owner.communicate()
    pids = [int(word) for word in line.split()]
    assert len(pids) == 2 * (len(NAMES) + 1)
    await until(lambda: not any(alive(pid) for pid in pids))


async def test_create_makes_a_private_tree_with_its_working_directory(
    runtime: Runtime, root: Path
) -> None:
    """The tree is its owner's alone, and commands start in the directory that was asked for."""
    await runtime.create("sb_test0003", envs={"GREETING": "hello"}, cwd="/workspace/app/src")
    result = await runtime.exec("sb_test0003", Command(shell='echo "$GREETING"; pwd -P'))
    tree = (root / "sb_test0003" / "workspace").resolve()
    assert result.stdout.decode() == f"hello\n{tree}/app/src\n"
    assert tree.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("sandbox_id", ["", ".", "..", "a/b", "../up", "a\0b", "x" * 65, "ä"])
async def test_ids_that_are_no_file_names_are_refused(runtime: Runtime, sandbox_id: str) -> None:
    """An id cannot lead out of the data directory."""
    with pytest.raises(RuntimeFault, match="cannot be the id"):
        await runtime.create(sandbox_id, envs={}, cwd=None)


async def test_a_second_sandbox_of_one_id_is_refused(runtime: Runtime, sandbox: str) -> None:
    """Creating what exists changes nothing."""
    await runtime.files(sandbox, lambda tree: tree.write("kept", b"1"))
    with pytest.raises(RuntimeFault, match="already"):
        await runtime.create(sandbox, envs={}, cwd=None)
    assert await runtime.files(sandbox, lambda tree: tree.read("kept", 10)) == b"1"


async def test_a_working_directory_outside_creates_nothing(runtime: Runtime, root: Path) -> None:
    """A refused create leaves neither a directory nor a sandbox."""
    with pytest.raises(PathEscape):
        await runtime.create("sb_test0004", envs={}, cwd="/etc")
    assert list(root.iterdir()) == []
    with pytest.raises(NoSuchSandbox):
        runtime.processes("sb_test0004")


async def test_destroy_removes_what_resists(runtime: Runtime, sandbox: str, root: Path) -> None:
    """Directories made read-only, and a tree deeper than any path may be long, are removed."""
    line = (
        "mkdir -p locked/in && touch locked/in/file && chmod 500 locked/in locked;"
        "name=$(printf 'd%.0s' $(seq 200)); for i in $(seq 25); do mkdir $name && cd -P $name; done"
    )
    assert (await runtime.exec(sandbox, Command(shell=line))).exit_code == 0
    assert await runtime.freeze(sandbox) >= 0
    await runtime.destroy(sandbox)
    assert not (root / sandbox).exists()


async def test_files_of_an_unknown_sandbox(runtime: Runtime) -> None:
    """Every call about a sandbox that is not there says so."""
    for call in (
        runtime.freeze("sb_nobody00"),
        runtime.thaw("sb_nobody00"),
        runtime.destroy("sb_nobody00"),
        runtime.spawn("sb_nobody00", Command(argv=["true"])),
        runtime.kill("sb_nobody00", 1),
        runtime.files("sb_nobody00", lambda tree: tree.exists("x")),
        runtime.search("sb_nobody00", lambda tree: tree.exists("x")),
        runtime.memory_bytes("sb_nobody00"),
    ):
        with pytest.raises(NoSuchSandbox, match="sb_nobody00"):
            await call


async def test_files_of_an_earlier_run_are_taken_over(root: Path) -> None:
    """Those asked for can be read and destroyed, made anew if somebody removed them; the rest goes."""
    before = Runtime(root)
    await before.start()
    for name in ("sb_kept00001", "sb_other0001"):
        await before.create(name, envs={}, cwd=None)
        await before.files(name, lambda tree: tree.write("file", b"here"))
        (root / name / "aside" / "half of an upload").write_bytes(b"")
    (root / "sb_other0001" / "workspace").chmod(0o500)
    (root / "stray").write_text("x")
    after = Runtime(root)
    await after.start(["sb_kept00001", "sb_lost00001"])
    assert sorted(path.name for path in root.iterdir()) == ["sb_kept00001", "sb_lost00001"]
    assert await after.files("sb_kept00001", lambda tree: tree.read("file", 100)) == b"here"
    assert [path.name for path in (root / "sb_kept00001").iterdir()] == ["workspace"]
    assert await after.files("sb_lost00001", lambda tree: tree.entries(".", 1)) == []
    with pytest.raises(NoSuchSandbox):
        await after.files("sb_other0001", lambda tree: tree.read("file", 100))
    for name in ("sb_kept00001", "sb_lost00001"):
        await after.destroy(name)
    assert list(root.iterdir()) == []


@LINUX
async def test_a_family_stands_still_for_a_while(
    runtime: Runtime, sandbox: str, root: Path
) -> None:
    """Nobody moves in between, calls wait for the end of it, and everybody goes on then."""
    family = await Family.start(runtime, sandbox, root)
    async with runtime.still(sandbox) as tree:
        before = family.beats()
        assert tree.root == family.tree
        waiting = [
            asyncio.create_task(runtime.exec(sandbox, Command(argv=["true"]))),
            asyncio.create_task(runtime.spawn(sandbox, Command(argv=["true"]))),
            asyncio.create_task(runtime.files(sandbox, lambda tree: tree.write("late", b""))),
            asyncio.create_task(runtime.search(sandbox, lambda tree: tree.exists("late"))),
        ]
        await runtime.create("sb_witness2", envs={}, cwd=None)
        for _ in range(3):
            await runtime.exec("sb_witness2", Command(argv=["true"]))
        assert family.beats() == before and not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)
    await family.moved_on(before)


async def test_a_frozen_one_is_still_and_stays_frozen(runtime: Runtime, sandbox: str) -> None:
    """And one without processes is, too."""
    async with runtime.still(sandbox):
        pass
    await runtime.spawn(sandbox, Command(argv=["sleep", "600"]))
    await runtime.freeze(sandbox)
    async with runtime.still(sandbox):
        pass
    with pytest.raises(SandboxFrozen):
        await runtime.exec(sandbox, Command(argv=["true"]))


async def test_what_fills_a_place_may_fail(runtime: Runtime, root: Path, tmp_path: Path) -> None:
    """Files and mounts are there before the first command, or there is no place."""
    volume = tmp_path / "volume"
    volume.mkdir()

    async def fill(tree: Path) -> None:
        (tree / "file").write_text("file")

    async def fail(tree: Path) -> None:
        (tree / "file").write_text("file")
        raise ZeroDivisionError

    mounts = [Mount(("v",), volume)]
    made = {"envs": {}, "cwd": "/workspace/v/in", "mounts": mounts, "fill": fill}
    await runtime.create("sb_filled", **made)
    result = await runtime.exec("sb_filled", Command(shell="cat $HOME/file; pwd"))
    assert result.stdout == f"file{volume}/in\n".encode()
    with pytest.raises(ZeroDivisionError):
        await runtime.create("sb_failed", **(made | {"fill": fail}))
    with pytest.raises(VolumeLost):
        await runtime.create("sb_failed", **(made | {"mounts": [Mount(("v",), root / "none")]}))
    assert sorted(path.name for path in root.iterdir()) == ["sb_filled"]
    # A working directory that the files have made something else is only told by commands.
    await runtime.create("sb_other", envs={}, cwd="/workspace/file", fill=fill)
    with pytest.raises(RuntimeFault):
        await runtime.exec("sb_other", Command(argv=["true"]))
