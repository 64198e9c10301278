"""Commands of one sandbox: what they start with, how they end, what is kept of what they say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from families import LINUX, NAMES, Family, alive, until

from edge.appliance.runtime import (
    Command,
    ExecTimeout,
    NoSuchDirectory,
    NoSuchSandbox,
    NotExecutable,
    PathEscape,
    ProcessInfo,
    Runtime,
    RuntimeFault,
    SandboxFrozen,
    SupervisorLost,
    TooManyCommands,
    roll,
)
from edge.appliance.runtime.roll import KEPT_ENDED


async def ended(runtime: Runtime, sandbox: str, pid: int) -> int | None:
    """The exit code of a background command, once there is one."""
    await until(lambda: runtime.logs(sandbox, pid).exit_code is not None)
    return runtime.logs(sandbox, pid).exit_code


async def test_exec_tells_both_streams_and_the_code(runtime: Runtime, sandbox: str) -> None:
    """Bytes of any kind come back as they were written, and a foreground command is not listed after."""
    result = await runtime.exec(
        sandbox, Command(shell=r"printf '\377\000out'; printf 'err' >&2; exit 7")
    )
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"\xff\0out", b"err")
    assert not result.truncated and result.pid > 0
    assert runtime.processes(sandbox) == []


async def test_argv_is_no_shell_line(runtime: Runtime, sandbox: str) -> None:
    """Arguments arrive as they are."""
    result = await runtime.exec(sandbox, Command(argv=["printf", "%s|", "$HOME", "a b", "*"]))
    assert result.stdout == b"$HOME|a b|*|"


async def test_death_by_signal_counts_as_shells_count(runtime: Runtime, sandbox: str) -> None:
    """128 + n after signal n."""
    result = await runtime.exec(sandbox, Command(shell="kill -TERM $$"))
    assert result.exit_code == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Command(argv=["no-such-program"]), "no-such-program: No such file"),
        (Command(argv=["/etc/passwd"]), "Permission denied"),
        (Command(argv=[]), "empty"),
        (Command(argv=[""]), "empty"),
        (Command(), "either"),
        (Command(argv=["true"], shell="true"), "either"),
        (Command(argv=["echo", "a\0b"]), "NUL"),
        (Command(argv=["echo", "\ud800"]), "cannot be started"),
        (Command(argv=["echo", "x" * (1 << 22)]), "too long"),
        (Command(argv=["true"], envs={"A=B": "1"}), "environment variable"),
        (Command(argv=["true"], envs={"": "1"}), "environment variable"),
        (Command(argv=["true"], envs={"A": "1\0"}), "environment variable"),
    ],
)
async def test_what_cannot_be_started_is_said(
    runtime: Runtime, sandbox: str, command: Command, message: str
) -> None:
    """A clear sentence, nothing listed, and the next command runs."""
    with pytest.raises(NotExecutable, match=message):
        await runtime.exec(sandbox, command)
    with pytest.raises(NotExecutable, match=message):
        await runtime.spawn(sandbox, command)
    assert runtime.processes(sandbox) == []
    assert (await runtime.exec(sandbox, Command(argv=["true"]))).exit_code == 0


@pytest.mark.parametrize(
    ("cwd", "fault"),
    [
        ("nowhere", NoSuchDirectory),
        ("file", NoSuchDirectory),
        ("..", PathEscape),
        ("/", PathEscape),
        ("/workspace/../..", PathEscape),
        ("out", PathEscape),
    ],
)
async def test_working_directories_stay_inside(
    runtime: Runtime, sandbox: str, cwd: str, fault: type[RuntimeFault]
) -> None:
    """A command starts inside of the tree or not at all."""
    await runtime.exec(sandbox, Command(shell="ln -s / out; touch file"))
    with pytest.raises(fault):
        await runtime.exec(sandbox, Command(argv=["pwd"], cwd=cwd))


async def test_nothing_of_the_control_plane_leaks_in(
    runtime: Runtime, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly the variables promised; no secret in them nor in the supervisor's; stdin and files closed."""
    monkeypatch.setenv("NULLSPACE_API_KEY", "secret-1")
    monkeypatch.setenv("SERVICE_TOKEN", "secret-2")
    inheritable = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    await runtime.create("sb_clean001", envs={"A": "1", "PREVIEW_SANDBOX_ID": "no"}, cwd=None)
    script = (
        "import os, sys, json\n"
        "fds = [n for n in range(3, 256) if os.path.exists(f'/dev/fd/{n}')]\n"
        "print(json.dumps([dict(os.environ), os.getsid(0) == os.getpid(), sys.stdin.read(), fds]))"
    )
    code = Command(argv=[sys.executable, "-S", "-c", script], envs={"B": "2"})
    result = await runtime.exec("sb_clean001", code)
    words = await runtime.exec("sb_clean001", Command(shell="tr '\\0' '\\n' < /proc/$PPID/environ"))
    os.close(inheritable)
    environment, leads_session, stdin, fds = json.loads(result.stdout)
    assert set(environment) - {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"} == {
        "PATH", "HOME", "LANG", "A", "B", "PREVIEW_SANDBOX_ID", "PREVIEW_SANDBOX_MARK",
    }  # fmt: skip
    assert environment["HOME"] == str(root / "sb_clean001" / "workspace")
    assert environment["PREVIEW_SANDBOX_ID"] == "sb_clean001"
    assert leads_session and stdin == "" and len(fds) <= 1, "one is the listing itself"
    assert b"secret" not in result.stdout + words.stdout


async def test_ignored_signals_are_not_inherited(runtime: Runtime, sandbox: str) -> None:
    """What the supervisor shrugs off ends a command as usual."""
    for name in ("HUP", "INT", "TERM", "PIPE"):
        result = await runtime.exec(sandbox, Command(shell=f"kill -{name} $$; echo survived"))
        assert (result.exit_code > 128, result.stdout) == (True, b""), name


async def test_a_background_process_does_not_hold_up_exec(runtime: Runtime, sandbox: str) -> None:
    """Exec ends with its process though the pipe stays open, and the process left behind may go on writing."""
    line = "(echo ready; while :; do echo more || { touch broken; exit; }; [ -e stop ] && break; done; touch done) & echo $!"
    result = await runtime.exec(sandbox, Command(shell=line, timeout_secs=20))
    assert result.exit_code == 0 and b"\n" in result.stdout
    await runtime.files(sandbox, lambda tree: tree.write("stop", b""))
    await until(lambda: _exists(runtime, sandbox, "done"))
    assert not _exists(runtime, sandbox, "broken")


def _exists(runtime: Runtime, sandbox: str, name: str) -> bool:
    return (runtime._sandboxes[sandbox].tree.root / name).exists()


async def test_output_is_complete_at_the_end_and_bounded(runtime: Runtime, sandbox: str) -> None:
    """All of a long output comes, up to 8 MiB of it; more is cut and said to be."""
    program = "head -c {} /dev/zero; printf end >&2"
    whole = await runtime.exec(sandbox, Command(shell=program.format(3_000_000)))
    assert (len(whole.stdout), whole.stderr, whole.truncated) == (3_000_000, b"end", False)
    cut = await runtime.exec(sandbox, Command(shell=program.format(9 << 20)))
    assert (len(cut.stdout), cut.stderr, cut.truncated) == (8 << 20, b"end", True)


@LINUX
async def test_a_timeout_kills_all_that_was_started(runtime: Runtime, sandbox: str) -> None:
    """The command, what it put into other sessions, and its daemons; what it had said is in the exception."""
    line = (
        "echo said; setsid sleep 987 & echo $! >> pids;"
        "(setsid sh -c 'sleep 986 & echo $! >> pids' &); sleep 985"
    )
    tree = runtime._sandboxes[sandbox].tree.root
    with pytest.raises(ExecTimeout, match=r"within 0\.5 seconds") as caught:
        await runtime.exec(sandbox, Command(shell=line, timeout_secs=0.5))
    assert caught.value.stdout == b"said\n"
    pids = [int(line) for line in (tree / "pids").read_text().split()]
    assert len(pids) == 2 and not any(alive(pid) for pid in pids)
    assert await runtime.memory_bytes(sandbox) == 0


async def test_a_cancelled_exec_is_killed(runtime: Runtime, sandbox: str) -> None:
    """A caller who leaves takes the command along."""
    tree = runtime._sandboxes[sandbox].tree.root
    waiting = asyncio.create_task(
        runtime.exec(sandbox, Command(shell="echo $$ > pid.new; mv pid.new pid; sleep 984"))
    )
    await until((tree / "pid").exists)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    pid = int((tree / "pid").read_text())
    await until(lambda: not alive(pid))
    assert runtime.processes(sandbox) == []


async def test_an_exec_cancelled_before_it_began_is_killed(runtime: Runtime, sandbox: str) -> None:
    """Also when its pid has not been heard of yet."""
    for _ in range(5):
        waiting = asyncio.create_task(runtime.exec(sandbox, Command(argv=["sleep", "983"])))
        await asyncio.sleep(0)  # It runs up to the request that is under way.
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await runtime.exec(sandbox, Command(argv=["true"]))  # Answered after the kills.
    assert runtime.processes(sandbox) == []
    assert await runtime.memory_bytes(sandbox) == 0


async def test_background_commands_are_listed_with_their_logs(
    runtime: Runtime, sandbox: str
) -> None:
    """Running, then ended with a code; both streams alone, and as one in the order written."""
    await runtime.exec(sandbox, Command(argv=["mkfifo", "go"]))
    # The pipe is held open both ways, or a reader could meet the end of an earlier writer.
    line = "exec 3<> go; echo one; read word <&3; echo two >&2; read word <&3; exit 5"
    pid = await runtime.spawn(sandbox, Command(shell=line))
    for said in (b"one\n", b"one\ntwo\n"):
        await until(lambda said=said: runtime.logs(sandbox, pid).output == said)
        assert runtime.processes(sandbox) == [ProcessInfo(pid, line, running=True, exit_code=None)]
        await runtime.exec(sandbox, Command(shell="echo go > go", timeout_secs=20))
    assert await ended(runtime, sandbox, pid) == 5
    logs = runtime.logs(sandbox, pid)
    assert (logs.stdout, logs.stderr, logs.output) == (b"one\n", b"two\n", b"one\ntwo\n")
    assert runtime.processes(sandbox) == [ProcessInfo(pid, line, running=False, exit_code=5)]


async def test_ended_commands_are_forgotten_in_turn(runtime: Runtime, sandbox: str) -> None:
    """Only so many logs are kept; running commands are always listed."""
    lasting = await runtime.spawn(sandbox, Command(argv=["sleep", "982"]))
    pids = []
    for _ in range(KEPT_ENDED + 5):
        pids.append(await runtime.spawn(sandbox, Command(argv=["true"])))
        await ended(runtime, sandbox, pids[-1])
    pids.append(await runtime.spawn(sandbox, Command(argv=["true"])))
    await ended(runtime, sandbox, pids[-1])
    listed = runtime.processes(sandbox)
    assert listed[0] == ProcessInfo(lasting, "sleep 982", running=True, exit_code=None)
    # Room is made when a command starts; the one before may have ended by then, or after.
    assert KEPT_ENDED <= len(listed) - 1 <= KEPT_ENDED + 1
    assert [one.pid for one in listed[1:]] == pids[1 - len(listed) :]
    with pytest.raises(RuntimeFault, match="no process"):
        runtime.logs(sandbox, pids[0])


@LINUX
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
async def test_kill_ends_a_command_and_its_family_only(
    runtime: Runtime, sandbox: str, root: Path, frozen: bool
) -> None:
    """All but a daemon that wiped its environment die with the command; other commands stay."""
    family = await Family.start(runtime, sandbox, root)
    other = await runtime.spawn(sandbox, Command(argv=["sleep", "981"]))
    if frozen:
        await runtime.freeze(sandbox)
    assert await runtime.kill(sandbox, family.leader)
    assert [name for name in NAMES if alive(family.pids[name])] == ["nameless"]
    assert alive(other)
    assert not await runtime.kill(sandbox, family.leader), "nothing left to kill"
    assert not await runtime.kill(sandbox, os.getpid()), "not a command of this sandbox"
    assert await ended(runtime, sandbox, family.leader) == 128 + signal.SIGKILL


@LINUX
async def test_kill_finds_what_an_ended_command_left(runtime: Runtime, sandbox: str) -> None:
    """A server put into the background dies when its command, long over, is killed."""
    pid = await runtime.spawn(sandbox, Command(shell="sleep 980 & echo $!"))
    await ended(runtime, sandbox, pid)
    server = int(runtime.logs(sandbox, pid).stdout)
    assert alive(server)
    assert await runtime.kill(sandbox, pid)
    assert not alive(server)


async def test_nothing_starts_in_a_frozen_sandbox(runtime: Runtime, sandbox: str) -> None:
    """With and without processes: an error at once; after the thaw it works."""
    for _ in range(2):
        await runtime.freeze(sandbox)
        await runtime.freeze(sandbox)
        with pytest.raises(SandboxFrozen):
            await runtime.exec(sandbox, Command(argv=["true"]))
        await runtime.thaw(sandbox)
        await runtime.thaw(sandbox)
        await runtime.spawn(sandbox, Command(argv=["sleep", "979"]))


@LINUX
async def test_memory_is_that_of_the_processes(runtime: Runtime, sandbox: str) -> None:
    """None without processes; more than a process holds while it runs; all the same while frozen."""
    assert await runtime.memory_bytes(sandbox) == 0
    hold = "held = b'x' * (32 << 20); print('held', flush=True); import time; time.sleep(978)"
    pid = await runtime.spawn(sandbox, Command(argv=[sys.executable, "-S", "-c", hold]))
    await until(lambda: runtime.logs(sandbox, pid).stdout)
    assert await runtime.memory_bytes(sandbox) > 32 << 20
    await runtime.files(sandbox, lambda tree: tree.write("file", bytes(1 << 20)))
    assert await runtime.freeze(sandbox) > 33 << 20


@LINUX
async def test_memory_survives_a_freeze(runtime: Runtime, sandbox: str) -> None:
    """A counter in a process's memory goes on from where it was."""
    line = "exec 3<> asked; n=0; while read word <&3; do n=$((n+1)); echo $n; done"
    await runtime.exec(sandbox, Command(argv=["mkfifo", "asked"]))
    pid = await runtime.spawn(sandbox, Command(shell=line))
    ask = Command(shell="echo next > asked", timeout_secs=20)
    for count in (b"1\n", b"1\n2\n", b"1\n2\n3\n"):
        await runtime.exec(sandbox, ask)
        await until(lambda count=count: runtime.logs(sandbox, pid).stdout == count)
        await runtime.freeze(sandbox)
        await runtime.thaw(sandbox)


@LINUX
async def test_a_dead_supervisor_takes_its_sandbox_along_and_is_replaced(
    runtime: Runtime, sandbox: str, root: Path
) -> None:
    """Waiting callers hear of it, the marked family is swept up, and the next command just works."""
    family = await Family.start(runtime, sandbox, root)
    pids = family.pids
    running = asyncio.create_task(runtime.exec(sandbox, Command(argv=["sleep", "977"])))
    await until(lambda: len(runtime.processes(sandbox)) == 2)
    link = runtime._sandboxes[sandbox]._link
    assert link is not None
    os.kill(link.pid, signal.SIGKILL)
    assert (await running).exit_code == 128 + signal.SIGKILL
    assert runtime.logs(sandbox, family.leader).exit_code == 128 + signal.SIGKILL
    assert (await runtime.exec(sandbox, Command(argv=["echo", "again"]))).stdout == b"again\n"
    assert not await runtime.kill(sandbox, family.leader)
    # Without a cgroup, nothing ties a process that wiped its environment to a supervisor that is dead.
    swept = [name for name in NAMES if name != "nameless" or runtime._cgroups]
    await until(lambda: not any(alive(pids[name]) for name in swept))
    if alive(pids["nameless"]):
        os.kill(pids["nameless"], signal.SIGKILL)


@LINUX
async def test_a_request_to_a_dead_supervisor_fails(runtime: Runtime, sandbox: str) -> None:
    """Who was waiting for an answer gets a fault, not silence."""
    await runtime.spawn(sandbox, Command(argv=["sleep", "976"]))
    link = runtime._sandboxes[sandbox]._link
    assert link is not None
    os.kill(link.pid, signal.SIGSTOP)
    asked = asyncio.create_task(runtime.freeze(sandbox))
    await asyncio.sleep(0)
    os.kill(link.pid, signal.SIGKILL)
    with pytest.raises(SupervisorLost):
        await asked
    assert (await runtime.exec(sandbox, Command(argv=["true"]))).exit_code == 0


@LINUX
async def test_commands_are_bounded(
    runtime: Runtime, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running ones count, and ended ones that left somebody with their output; then one more may start."""
    monkeypatch.setattr(roll, "MAX_COMMANDS", 3)
    running = await runtime.spawn(sandbox, Command(argv=["sleep", "961"]))
    await runtime.exec(sandbox, Command(shell="sleep 960 & echo $! > left"))
    silent = await runtime.spawn(sandbox, Command(shell="exec sleep 959 >&- 2>&-"))
    output = runtime._sandboxes[sandbox]._roll._started[3].output
    await until(lambda: not output.reading)
    for call in (runtime.exec, runtime.spawn, runtime.stream):
        with pytest.raises(TooManyCommands, match="3 commands"):
            await call(sandbox, Command(argv=["true"]))
    await runtime.kill(sandbox, silent)
    assert (await runtime.exec(sandbox, Command(argv=["true"]))).exit_code == 0
    await runtime.kill(sandbox, running)


async def test_a_killed_command_is_listed_as_ended(runtime: Runtime, sandbox: str) -> None:
    """Whoever has killed finds it ended in the next list."""
    for _ in range(10):
        pid = await runtime.spawn(sandbox, Command(argv=["sleep", "958"]))
        assert await runtime.kill(sandbox, pid)
        assert not any(process.running for process in runtime.processes(sandbox))


async def test_a_warm_sandbox_has_its_supervisor_already(runtime: Runtime, sandbox: str) -> None:
    """The first command finds it there; it freezes and thaws with nothing in it."""
    cooled = asyncio.Event()
    await runtime.warm(sandbox, cooled.set)
    link = runtime._sandboxes[sandbox]._link
    assert link is not None and alive(link.pid)
    assert await runtime.freeze(sandbox) >= 0
    await runtime.thaw(sandbox)
    parent = await runtime.exec(sandbox, Command(shell="echo $PPID"))
    assert int(parent.stdout) == link.pid
    assert not cooled.is_set()
    await runtime.destroy(sandbox)
    assert cooled.is_set() and not alive(link.pid)
    with pytest.raises(NoSuchSandbox):
        await runtime.warm(sandbox, cooled.set)


async def test_a_warm_sandbox_that_cools_says_so_once(runtime: Runtime, sandbox: str) -> None:
    """When its supervisor dies; the one that comes after it is nobody's concern."""
    cooled: asyncio.Queue[str] = asyncio.Queue()
    await runtime.warm(sandbox, lambda: cooled.put_nowait("cooled"))
    link = runtime._sandboxes[sandbox]._link
    assert link is not None
    os.kill(link.pid, signal.SIGKILL)
    assert await cooled.get() == "cooled"
    assert (await runtime.exec(sandbox, Command(argv=["true"]))).exit_code == 0
    await runtime.destroy(sandbox)
    assert cooled.empty()
