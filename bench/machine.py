"""This machine: which core is whose, and what processes cost. Linux has it all; elsewhere ``ps`` serves."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
ON_LINUX = sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of the proxy under test, and the ones of everything else; None = not pinned, and why."""

    proxy: frozenset[int] | None
    load: frozenset[int] | None
    remark: str

    @property
    def pinned(self) -> bool:
        return self.proxy is not None


def share_cores() -> Cores:
    """The last core for the proxy, the others for load generator, upstream and control plane."""
    if not ON_LINUX:
        return Cores(None, None, f"not pinned: {sys.platform} cannot bind a process to a core")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        return Cores(None, None, "not pinned: one core only, shared by proxy and load")
    *load, proxy = usable
    return Cores(
        frozenset({proxy}),
        frozenset(load),
        f"proxy pinned to core {proxy}, everything else to {', '.join(map(str, load))}",
    )


@contextmanager
def confined(cores: frozenset[int] | None) -> Iterator[None]:
    """Processes started inside this block run on ``cores`` only, with all the threads they will have."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment. ``cpu`` is user plus system time in seconds."""

    pid: int
    parent: int
    cpu: float


def cpu_of_tree(root: int) -> float:
    """CPU seconds used so far by a process and its living descendants."""
    processes = _processes()
    return sum(processes[pid].cpu for pid in family(root, processes))


def rss_of_tree(root: int) -> int:
    """Bytes of memory held now by a process and its living descendants."""
    return sum(_rss(pid) for pid in family(root, _processes()))


def peak_rss(pid: int) -> int | None:
    """Bytes a single process held at most since `forget_peak`; None where the system does not tell."""
    return _status_bytes(pid, "VmHWM") if ON_LINUX else None


def forget_peak(pid: int) -> None:
    """Begin `peak_rss` anew. Needs Linux; elsewhere nothing happens."""
    if ON_LINUX:
        (PROC / str(pid) / "clear_refs").write_text("5")


def family(root: int, processes: Mapping[int, Process]) -> list[int]:
    """``root`` and its descendants, as far as they are in ``processes``."""
    found = [root] if root in processes else []
    for member in found:
        found += [p.pid for p in processes.values() if p.parent == member]
    return found


def parse_stat(text: str, ticks: float) -> Process:
    """One line of ``/proc/PID/stat`` (proc_pid_stat(5)); the name in it may hold blanks and brackets."""
    pid = int(text.split(" ", 1)[0])
    fields = text[text.rindex(")") + 2 :].split()
    return Process(pid, int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks)


def parse_ps_time(text: str) -> float:
    """Seconds of a CPU time as ``ps`` prints it: ``[[dd-]hh:]mm:ss[.cc]``."""
    days, _, clock = text.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds + 86400 * int(days or 0)


def describe() -> dict[str, str]:
    """What a reader of the figures wants to know about the machine."""
    model = platform.processor() or platform.machine()
    if ON_LINUX:
        lines = (PROC / "cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": f"{model}, {os.cpu_count()} cores",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processes() -> dict[int, Process]:
    found = list(_from_proc() if ON_LINUX else _from_ps())
    return {process.pid: process for process in found}


def _from_proc() -> Iterator[Process]:
    ticks = os.sysconf("SC_CLK_TCK")
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                yield parse_stat((entry / "stat").read_text(), ticks)
            except (FileNotFoundError, ProcessLookupError):
                continue  # It ended between the listing and the look.


def _from_ps() -> Iterator[Process]:
    for line in _ps("-axo", "pid=,ppid=,time="):
        pid, parent, time = line.split()
        yield Process(int(pid), int(parent), parse_ps_time(time))


def _rss(pid: int) -> int:
    if ON_LINUX:
        return _status_bytes(pid, "VmRSS") or 0
    lines = _ps("-o", "rss=", "-p", str(pid))
    return int(lines[0]) * 1024 if lines else 0


def _ps(*arguments: str) -> list[str]:
    return subprocess.run(
        ["ps", *arguments], check=False, capture_output=True, text=True
    ).stdout.splitlines()


def _status_bytes(pid: int, name: str) -> int | None:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
