"""Snapshots, forks, and what sandboxes are created from: all of them are copies of files.

A sandbox stands still while it is copied, so that the copy is of one point in time, and goes on without
noticing. Its lock is held meanwhile: no pause, resume or end of it comes in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge.appliance.api.faults import FAULTS
from edge.appliance.events import Operation, Status
from edge.appliance.lifecycle import published
from edge.appliance.pools.checkout import COLD
from edge.appliance.problems import (
    CREATE_FAILED,
    FORK_FAILED,
    INCOMPATIBLE_SNAPSHOT,
    SANDBOX_NOT_READY,
    SNAPSHOT_FAILED,
    ApiError,
)
from edge.appliance.runtime import DiskFull, FileDenied, FileTooLarge, Runtime, RuntimeFault
from edge.appliance.runtime.copying import copy_tree
from edge.appliance.runtime.mounts import Mounts
from edge.appliance.sandbox import Origin, Plan, Sandbox, Setup
from edge.appliance.sandboxes import Sandboxes
from edge.appliance.snapshots.shelf import Copies
from edge.appliance.snapshots.snapshot import Copy
from edge.appliance.volumes.attachments import Attachments
from edge.appliance.volumes.shelf import Volumes
from edge.appliance.volumes.volume import Attachment
from edge.core.errors import Problem
from edge.core.records import State
from edge.core.redact import TRAFFIC_PREFIX

AT_ONCE = 2
"""Copies that are made at once: each keeps a thread and the disk busy."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a sandbox can be created from, and what the sandbox behind it was."""

    plan: Plan
    attachments: tuple[Attachment, ...]
    origin: Origin


class Copier:
    """Makes them. ``wall`` is Unix time in seconds."""

    def __init__(
        self,
        copies: Copies,
        sandboxes: Sandboxes,
        volumes: Volumes,
        attachments: Attachments,
        runtime: Runtime,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._copies = copies
        self._sandboxes = sandboxes
        self._volumes = volumes
        self._attachments = attachments
        self._runtime = runtime
        self._wall = wall
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def snapshot(self, sandbox: Sandbox, kept: Callable[[Copy], None]) -> Copy:
        """Copy the files of a running or paused sandbox; ``kept`` as in `Copies.add`.

        Raises `ApiError` (sandbox_not_ready, quota_exceeded, snapshot_failed, insufficient_storage,
        payload_too_large, permission_denied), `StoreError`.
        """

        async def make() -> Copy:
            _require_files(sandbox)
            with self._failing(sandbox, Operation.SNAPSHOT_CREATED, SNAPSHOT_FAILED):
                async with self._copies.room() as (snapshot_id, folder):
                    size, roots = await self._copy_of(sandbox, folder, moved=False)
                    copy = Copy(
                        snapshot_id,
                        sandbox.id,
                        size,
                        self._wall(),
                        sandbox.plan,
                        tuple(sandbox.attachments),
                        roots,
                    )
                    self._copies.add(copy, kept)
            self._sandboxes.emit(
                sandbox,
                Operation.SNAPSHOT_CREATED,
                Status.SUCCEEDED,
                snapshot_id=copy.id,
                source_sandbox_id=sandbox.id,
                metadata={"created_via": "api", "memory": "not_carried", "size_bytes": size},
            )
            return copy

        return await self._sandboxes.exclusively(sandbox, make, name="snapshot")

    async def fork(
        self, source: Sandbox, kept: Callable[[Sandbox], None]
    ) -> tuple[Sandbox, str | None]:
        """A new sandbox with the files of a running or paused one, and its own traffic access token if it is private.

        Raises `ApiError` as `snapshot` (fork_failed), volume_unavailable, volume_mount_conflict.
        """
        plan, token = _forked(source.plan)

        async def fill(folder: Path) -> None:
            with _refusals(FORK_FAILED):
                await self._copy_of(source, folder, moved=True)

        async def make() -> Sandbox:
            _require_files(source)
            self._tell_fork(source, Status.REQUESTED)
            with self._failing(source, Operation.FORK, FORK_FAILED):
                attachments = self._attachments.again(source.attachments)
                setup = Setup(
                    attachments,
                    self._attachments.mounts(attachments),
                    Origin("fork", fill, source.id),
                    source.previews_disabled,
                )
                with self._volumes.pinned(one.volume_id for one in attachments):
                    made = await self._sandboxes.create(
                        plan,
                        envs=self._runtime.envs(source.id),
                        cwd=plan.cwd,
                        timeout_ms=source.timeout_ms,
                        timeout_action=source.timeout_action,
                        kept=kept,
                        setup=setup,
                    )
            self._tell_fork(source, Status.SUCCEEDED, made.id)
            return made

        return await self._sandboxes.exclusively(source, make, name="fork"), token

    def pattern(self, snapshot_id: str) -> Pattern:
        """What a create from this snapshot copies. Raises `ApiError` (snapshot_not_found,
        incompatible_snapshot); its origin's ``fill`` raises as `snapshot` (create_failed).
        """
        copy = self._copies.find(snapshot_id)
        if copy is not None:
            origin = Origin("snapshot", partial(self._copy_in, copy), copy.sandbox_id, copy.id)
            return Pattern(copy.plan, copy.attachments, origin)
        sandbox = self._sandboxes.of_snapshot(snapshot_id)
        _require_current(sandbox, snapshot_id)

        async def fill(folder: Path) -> None:
            async def make() -> None:
                _require_current(sandbox, snapshot_id)
                with _refusals(CREATE_FAILED):
                    await self._copy_of(sandbox, folder, moved=True)

            await self._sandboxes.exclusively(sandbox, make, name="copy")

        origin = Origin("snapshot", fill, sandbox.id, snapshot_id)
        return Pattern(sandbox.plan, tuple(sandbox.attachments), origin)

    async def _copy_in(self, copy: Copy, folder: Path) -> None:
        with _refusals(CREATE_FAILED), self._copies.used(copy) as source:
            async with self._slots:
                await _copied(source, folder, None, dict.fromkeys(copy.roots, str(folder)))

    async def _copy_of(
        self, sandbox: Sandbox, folder: Path, *, moved: bool
    ) -> tuple[int, tuple[str, ...]]:
        """Bytes, and the real paths of the original, which the copy's links name if it is not ``moved``."""
        async with self._slots, self._runtime.still(sandbox.id) as tree:
            roots = tuple({str(tree.root): None, str(tree.root.resolve()): None})
            relocate = dict.fromkeys(roots, str(folder)) if moved else {}
            return await _copied(tree.root, folder, tree.mounts, relocate), roots

    def _tell_fork(self, source: Sandbox, status: Status, target: str | None = None) -> None:
        self._sandboxes.emit(
            source,
            Operation.FORK,
            status,
            source_sandbox_id=source.id,
            target_sandbox_id=target,
            metadata={"memory": "not_carried"},
        )

    @contextmanager
    def _failing(self, sandbox: Sandbox, operation: Operation, problem: Problem) -> Iterator[None]:
        """What goes wrong within is an `ApiError`, and an event of the sandbox."""
        try:
            with _refusals(problem):
                yield
        except Exception as e:
            told = e.problem if isinstance(e, ApiError) else problem
            text = e.message if isinstance(e, ApiError) and e.message else told.message
            self._sandboxes.emit(
                sandbox,
                operation,
                Status.FAILED,
                source_sandbox_id=sandbox.id,
                error=(told.code, text),
            )
            raise


def _require_files(sandbox: Sandbox) -> None:
    if sandbox.state not in (State.RUNNING, State.PAUSED):
        raise ApiError(SANDBOX_NOT_READY, details={"status": published(sandbox.state)})


def _require_current(sandbox: Sandbox, snapshot_id: str) -> None:
    current = sandbox.snapshot is not None and sandbox.snapshot.id == snapshot_id
    if not current or sandbox.state is not State.PAUSED:
        raise ApiError(
            INCOMPATIBLE_SNAPSHOT,
            "The sandbox has run since it was paused with this snapshot, or ended; its files are not those any more.",
        )


def _forked(plan: Plan) -> tuple[Plan, str | None]:
    """The plan of a fork. A private one gets a token of its own: nobody knows the other's any more."""
    private = plan.traffic_token_sha256 is not None
    token = TRAFFIC_PREFIX + secrets.token_urlsafe(32) if private else None
    digest = None if token is None else hashlib.sha256(token.encode()).hexdigest()
    return replace(plan, checkout=COLD.view, traffic_token_sha256=digest), token


@contextmanager
def _refusals(problem: Problem) -> Iterator[None]:
    """A `RuntimeFault` as an `ApiError`: one that the caller can do something about, or ``problem``."""
    try:
        yield
    except (DiskFull, FileTooLarge, FileDenied) as e:
        raise ApiError(FAULTS[type(e)], str(e)) from e
    except RuntimeFault as e:
        raise ApiError(problem) from e
    except ApiError as e:
        if e.problem is CREATE_FAILED:
            raise ApiError(problem) from e
        raise


async def _copied(
    source: Path, target: Path, mounts: Mounts | None, relocate: dict[str, str]
) -> int:
    """`copy_tree` in a thread, which has ended when this has."""
    stop = threading.Event()
    call = partial(copy_tree, source, target, mounts=mounts, relocate=relocate, stop=stop)
    copying = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(copying)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([copying])
        copying.exception()
        raise
