"""Sandboxes on one machine: a directory, and the processes started in it.

Each sandbox that has started a process has one *supervisor* (``supervisor.py``), a small process of
the standard library only. It starts the sandbox's processes, is the parent that orphans fall to
(child subreaper), freezes, thaws and kills them, and ends them all when this process goes away. It
stands outside of what it freezes. Why a process of its own, and not the control plane as subreaper:

- ``kill -9`` of the control plane must leave nothing behind, so somebody else has to be alive then;
- the parent of an orphan says which sandbox it belongs to, whatever the orphan did to get away;
- starting, scanning and waiting block, which the control plane's loop must not.

What it is not: a security boundary. Commands run as the user who runs the control plane, and may
read what that user may read, its processes included. Only the file calls are confined (``files.py``).

Off Linux there is no subreaper and no ``/proc``: a process that leaves its session *and* loses its
parent (a daemon) escapes freezing and killing there.

The names are loaded when first asked for: a supervisor imports its modules from this package too, and
the control plane's libraries would double the memory and the start-up time of every sandbox.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.appliance.runtime.host import Runtime
    from edge.appliance.runtime.interface import (
        Command,
        DiskFull,
        ExecResult,
        ExecTimeout,
        FileConflict,
        FileDenied,
        FileEntry,
        FileFailed,
        FileNotFound,
        FileTooLarge,
        FreezeFailed,
        InputClosed,
        InputFull,
        Logs,
        Match,
        MountMissing,
        MountTaken,
        NoSuchDirectory,
        NoSuchProcess,
        NoSuchSandbox,
        NotExecutable,
        PathEscape,
        ProcessInfo,
        Replaced,
        RuntimeFault,
        SandboxFrozen,
        SupervisorLost,
        TooManyCommands,
        Usage,
        UsageUnknown,
        VolumeLost,
    )
    from edge.appliance.runtime.started import Stream

__all__ = [
    "Command",
    "DiskFull",
    "ExecResult",
    "ExecTimeout",
    "FileConflict",
    "FileDenied",
    "FileEntry",
    "FileFailed",
    "FileNotFound",
    "FileTooLarge",
    "FreezeFailed",
    "InputClosed",
    "InputFull",
    "Logs",
    "Match",
    "MountMissing",
    "MountTaken",
    "NoSuchDirectory",
    "NoSuchProcess",
    "NoSuchSandbox",
    "NotExecutable",
    "PathEscape",
    "ProcessInfo",
    "Replaced",
    "Runtime",
    "RuntimeFault",
    "SandboxFrozen",
    "Stream",
    "SupervisorLost",
    "TooManyCommands",
    "Usage",
    "UsageUnknown",
    "VolumeLost",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"Runtime": "host", "Stream": "started"}.get(name, "interface")
    return getattr(import_module(f"{__name__}.{module}"), name)
