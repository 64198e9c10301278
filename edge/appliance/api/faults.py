"""The runtime's refusals in the API's terms, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge.appliance import runtime
from edge.appliance.problems import (
    COMMAND_NOT_FOUND,
    EXEC_TIMEOUT,
    FILE_CONFLICT,
    FILE_NOT_FOUND,
    INSUFFICIENT_STORAGE,
    INVALID_REQUEST,
    NOT_IMPLEMENTED,
    PAYLOAD_TOO_LARGE,
    PERMISSION_DENIED,
    PROCESS_NOT_FOUND,
    QUOTA_EXCEEDED,
    RUNTIME_LOST,
    SANDBOX_NOT_FOUND,
    SANDBOX_NOT_READY,
    STDIN_CLOSED,
    STDIN_FULL,
    VOLUME_MOUNT_CONFLICT,
    VOLUME_MOUNT_MISSING,
    VOLUME_UNAVAILABLE,
    ApiError,
)
from edge.core.errors import Problem

FAULTS: dict[type[runtime.RuntimeFault], Problem] = {
    runtime.NoSuchSandbox: SANDBOX_NOT_FOUND,
    # An ordered pause came between our look at the state and the call.
    runtime.SandboxFrozen: SANDBOX_NOT_READY,
    runtime.SupervisorLost: RUNTIME_LOST,
    runtime.NotExecutable: COMMAND_NOT_FOUND,
    runtime.ExecTimeout: EXEC_TIMEOUT,
    runtime.NoSuchProcess: PROCESS_NOT_FOUND,
    runtime.TooManyCommands: QUOTA_EXCEEDED,
    runtime.InputClosed: STDIN_CLOSED,
    runtime.InputFull: STDIN_FULL,
    runtime.PathEscape: INVALID_REQUEST,
    runtime.FileNotFound: FILE_NOT_FOUND,
    runtime.NoSuchDirectory: FILE_NOT_FOUND,
    runtime.FileDenied: PERMISSION_DENIED,
    runtime.FileConflict: FILE_CONFLICT,
    runtime.DiskFull: INSUFFICIENT_STORAGE,
    runtime.FileTooLarge: PAYLOAD_TOO_LARGE,
    runtime.VolumeLost: VOLUME_UNAVAILABLE,
    runtime.MountMissing: VOLUME_MOUNT_MISSING,
    runtime.MountTaken: VOLUME_MOUNT_CONFLICT,
    runtime.FileFailed: INVALID_REQUEST,
    runtime.UsageUnknown: NOT_IMPLEMENTED,
}


@contextmanager
def told() -> Iterator[None]:
    """Within, a `RuntimeFault` becomes an `ApiError`; its text is meant for the caller."""
    try:
        yield
    except runtime.RuntimeFault as e:
        problem = FAULTS.get(type(e))
        if problem is None:
            raise
        raise ApiError(problem, str(e)) from None
