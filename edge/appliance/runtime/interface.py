"""What the runtime is given, what it gives back, and every way it says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Command:
    """One command: either ``argv`` or ``shell`` (a line for bash, or sh where there is no bash).

    ``cwd`` is resolved in the work tree like every path; None is the sandbox's own. ``envs`` go on top
    of the sandbox's. ``timeout_secs`` bounds `Runtime.exec` in wall-clock time (a freeze does not stop
    the clock) and `Runtime.stream` in time that the sandbox is not frozen; None is no limit, and
    `Runtime.spawn` ignores it.
    """

    argv: list[str] | None = None
    shell: str | None = None
    cwd: str | None = None
    envs: Mapping[str, str] = field(default_factory=dict)
    timeout_secs: float | None = None


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended. ``exit_code`` is 128 + n after signal n, as shells count.

    ``truncated`` says that at least one of the streams was longer than what was kept of it.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    pid: int
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A command that was started: a running one, or one of the newest that have ended."""

    pid: int
    command: str
    running: bool
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Logs:
    """The newest output of a command; ``output`` is both streams in the order they were read."""

    stdout: bytes
    stderr: bytes
    output: bytes
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a listing. ``type`` is file, dir, symlink or other; a link is never followed.

    ``path`` starts with ``/workspace``; ``size`` is in bytes; ``mode`` holds the permission bits only,
    ``permissions`` says them as ``ls -l`` does; ``owner`` and ``group`` are names, or numbers where there
    is no name; ``modified_time`` is Unix time in seconds. Bytes of a name that are not UTF-8 show as U+FFFD.
    """

    name: str
    path: str
    is_dir: bool
    size: int
    type: str
    mode: int
    permissions: str
    owner: str
    group: str
    modified_time: float
    symlink_target: str | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A line of a file that holds what was searched for; ``line`` counts from 1."""

    file: str
    line: int
    content: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a replacement did, or would do."""

    replacements: int
    files_modified: int
    files_skipped: int
    binary_files_skipped: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a sandbox use now. ``cpu_percent`` is 100 for each processor that is fully busy.

    ``memory`` is resident bytes, ``disk`` bytes of files in the work tree. ``network`` is bytes received and sent
    since the sandbox's network is there; None where it has none of its own, because nobody counts then.
    The totals are this machine's: nothing keeps a sandbox from using all of it.
    """

    cpu_percent: float
    cpu_count: int
    memory: int
    memory_total: int
    disk: int
    disk_total: int
    network: tuple[int, int] | None


class RuntimeFault(Exception):
    """The base of everything below; its text is a sentence for the caller of the API."""


class UsageUnknown(RuntimeFault):
    """This operating system does not tell what processes use."""


class NoSuchSandbox(RuntimeFault):
    """The runtime has no sandbox of that id (any more)."""


class SandboxFrozen(RuntimeFault):
    """Nothing can be started in a sandbox while it is frozen."""


class FreezeFailed(RuntimeFault):
    """The processes could not all be stopped in time; those that were are running again."""


class SupervisorLost(RuntimeFault):
    """The sandbox's supervisor died, and its processes with it; the next command gets a new one."""


class NotExecutable(RuntimeFault):
    """The command could not be started: not found, not permitted, or not a command at all."""


class ExecTimeout(RuntimeFault):
    """The command ran out of time and was killed, with everything it had started.

    ``stdout`` and ``stderr`` are what it had written by then.
    """

    def __init__(self, message: str, *, stdout: bytes = b"", stderr: bytes = b"") -> None:
        super().__init__(message)
        self.stdout = stdout
        self.stderr = stderr


class NoSuchProcess(RuntimeFault):
    """The sandbox lists no command of this pid."""


class TooManyCommands(RuntimeFault):
    """So many commands run, or have left processes that hold their output open, that no more may start."""


class InputClosed(RuntimeFault):
    """The command reads no input: it was started without, closed it, or has ended."""


class InputFull(RuntimeFault):
    """The command has not read what was sent before. Nothing of this was sent."""


class PathEscape(RuntimeFault):
    """The path leads out of the work tree, by ``..``, by a link or by being absolute."""


class FileNotFound(RuntimeFault):
    """There is nothing at the path."""


class NoSuchDirectory(RuntimeFault):
    """The path should be a directory, and is none or does not exist."""


class FileTooLarge(RuntimeFault):
    """The file, or the listing, is larger than the caller takes."""


class FileDenied(RuntimeFault):
    """The permissions of a file or directory are in the way."""


class FileConflict(RuntimeFault):
    """Something at the path is in the way."""


class DiskFull(RuntimeFault):
    """There is no room for it; what was there before is still there."""


class FileFailed(RuntimeFault):
    """The operating system refused for another reason, which the message names."""


class VolumeLost(RuntimeFault):
    """The directory that is to be mounted is not there."""


class MountMissing(RuntimeFault):
    """At a mount's place there is nothing any more."""


class MountTaken(RuntimeFault):
    """At a mount's place, or on the way to it, there is something else."""
