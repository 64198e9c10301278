"""What the transitions of sandboxes ask of a runtime. `runtime.Runtime` is the one there is; tests have others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from edge.appliance.runtime.mounts import Mount


class Executions(Protocol):
    """Directories and processes."""

    @property
    def isolated(self) -> bool:
        """Whether each sandbox has a network of its own."""

    def publish(self, sandbox_id: str, port: int) -> int:
        """The port here that leads to this port of an isolated sandbox."""

    async def create(
        self,
        sandbox_id: str,
        *,
        envs: dict[str, str],
        cwd: str | None,
        mounts: Sequence[Mount] = (),
        fill: Callable[[Path], Awaitable[object]] | None = None,
    ) -> None:
        """Make the sandbox's place."""

    async def freeze(self, sandbox_id: str) -> int:
        """Stop all its processes; the memory they hold, in bytes."""

    async def thaw(self, sandbox_id: str) -> None:
        """Let them run on."""

    async def destroy(self, sandbox_id: str) -> None:
        """End them and remove the place."""
