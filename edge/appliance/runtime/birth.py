"""How a command begins: in its directory, its cgroup, and with no more rights than it shall have.

Standard library only, as everything that a supervisor imports.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from edge.appliance.runtime.cgroup import Cgroup

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAPBSET_DROP = 24
_CAP_SYS_ADMIN = 21


class NotBorn(Exception):
    """The command cannot be started; the text says why."""


class Births:
    """Starts commands for one supervisor. ``own``: in namespaces of the sandbox's own."""

    def __init__(self, cgroup: Cgroup | None, *, own: bool) -> None:
        self._cgroup = cgroup
        self._own = own
        self._prctl = _prctl()

    def adopt(self) -> None:
        """Orphans of what is started fall to this process, and it does not outlive its parent."""
        self._prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        descriptors: Sequence[int],
        seen: str | None,
    ) -> int:
        """The pid; whoever started it waits for it. Raises `NotBorn`.

        ``descriptors`` of its directory and its three streams; ``seen``: the path of the directory, where it
        has to be entered as the sandbox sees it.
        """
        cwd, stdin, stdout, stderr = descriptors

        def prepare() -> None:
            os.fchdir(cwd)
            if seen is not None:
                # The descriptor leads to a mount of another namespace, where all may be written.
                os.chdir(seen)
            if self._cgroup is not None:
                try:
                    self._cgroup.join()
                except OSError:
                    pass  # Outside of it, it is found by descent and stopped by signals.
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if self._own:
                # Root in there would be root of its mounts, and could write to what is to be read only.
                self._prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN)

        try:
            process = subprocess.Popen(
                argv,
                env=env,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 - one thread only, so no lock can be held.
            )
        except OSError as error:
            raise NotBorn(f"{argv[0]}: {error.strerror or error}") from None
        except (ValueError, subprocess.SubprocessError) as error:
            raise NotBorn(f"The command cannot be started: {error}") from None
        # A Popen that thinks it still runs would wait for it too, and swallow the end.
        process.returncode = 0
        return process.pid


def _prctl() -> Callable[[int, int], None]:
    """``prctl(2)``, loaded before any fork; does nothing where there is none."""
    if sys.platform != "linux":
        return lambda *_: None
    function = ctypes.CDLL(None).prctl
    function.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return lambda option, value: function(option, value, 0, 0, 0)
