"""Which volumes are at which places in which sandboxes.

Every change is made with the sandbox's lock held, first in its work tree and then in the store; what cannot be
written is undone in the tree. A volume that somebody is about to attach is pinned, and one that is attached is
not deleted, so that an attachment always has a volume. Its directory may be missing all the same, because
directories can be removed behind our back: that is found by `health`, and before a paused sandbox runs on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from edge.appliance.api.faults import told
from edge.appliance.lifecycle import published
from edge.appliance.problems import (
    NOT_IMPLEMENTED,
    SANDBOX_NOT_READY,
    VOLUME_ATTACHMENT_NOT_FOUND,
    VOLUME_BUSY,
    VOLUME_LIMIT_EXCEEDED,
    VOLUME_MOUNT_CONFLICT,
    VOLUME_UNAVAILABLE,
    ApiError,
)
from edge.appliance.runtime import Runtime, RuntimeFault
from edge.appliance.runtime.mounts import Mount
from edge.appliance.sandbox import Sandbox
from edge.appliance.sandboxes import Sandboxes
from edge.appliance.volumes.requests import VolumeMount
from edge.appliance.volumes.shelf import Volumes
from edge.appliance.volumes.volume import Attachment, Volume
from edge.core.records import State

MAX_OF_SANDBOX = 16
MAX_OF_VOLUME = 64
"""Attachments."""


class Attachments:
    """All attachments; they are kept with their sandboxes. ``wall`` is Unix time in seconds."""

    def __init__(
        self,
        volumes: Volumes,
        sandboxes: Sandboxes,
        runtime: Runtime,
        *,
        wall: Callable[[], float],
        log: Callable[..., None],
    ) -> None:
        self._volumes = volumes
        self._sandboxes = sandboxes
        self._runtime = runtime
        self._wall = wall
        self._log = log
        sandboxes.before_resume(self._before_resume)

    def start(self) -> None:
        """The files of sandboxes of an earlier run have their volumes as they had them."""
        for sandbox in self._sandboxes.living():
            self._runtime.know(sandbox.id, self.mounts(sandbox.attachments))

    # --- Reading --------------------------------------------------------------------------------------

    def get(self, sandbox: Sandbox, attachment_id: str) -> Attachment:
        """Raises `ApiError` (volume_attachment_not_found)."""
        for attachment in sandbox.attachments:
            if attachment.id == attachment_id:
                return attachment
        raise ApiError(VOLUME_ATTACHMENT_NOT_FOUND)

    def of_volume(self, volume: Volume) -> list[tuple[Sandbox, Attachment]]:
        """Where it is attached, in the order of the sandboxes."""
        return [
            (sandbox, attachment)
            for sandbox in self._sandboxes.living()
            for attachment in sandbox.attachments
            if attachment.volume_id == volume.id
        ]

    def mounts(self, attachments: Iterable[Attachment]) -> tuple[Mount, ...]:
        """The same for the runtime."""
        return tuple(self._mount(attachment) for attachment in attachments)

    # --- For sandboxes that are about to be made: hold the volumes with `Volumes.pinned` ----------------

    def planned(self, wanted: Sequence[VolumeMount]) -> tuple[Attachment, ...]:
        """New attachments for a new sandbox. Raises `ApiError` (not_found, volume_mount_conflict,
        volume_limit_exceeded, not_implemented).
        """
        planned: list[Attachment] = []
        for one in wanted:
            planned.append(self._new(one, planned))
        return tuple(planned)

    def again(self, attachments: Iterable[Attachment]) -> tuple[Attachment, ...]:
        """The same places in a new sandbox. Raises `ApiError` (volume_unavailable, volume_limit_exceeded)."""
        now = self._wall()
        made = tuple(
            Attachment(
                _new_id(), one.volume_id, one.names, one.below, now, now, read_only=one.read_only
            )
            for one in attachments
        )
        known = {volume.id for volume in self._volumes.all()}
        for attachment in made:
            self._require_enforced(read_only=attachment.read_only)
            if attachment.volume_id not in known:
                raise ApiError(
                    VOLUME_UNAVAILABLE,
                    f"The volume of {self._mount(attachment).path} was deleted.",
                    {"volume_id": attachment.volume_id},
                )
            self._require_room(attachment.volume_id)
        return made

    # --- Changing -------------------------------------------------------------------------------------

    async def attach(self, sandbox: Sandbox, wanted: VolumeMount) -> Attachment:
        """Raises `ApiError` (not_found, sandbox_not_ready, volume_limit_exceeded, volume_mount_conflict,
        volume_unavailable, not_implemented, what the file system refuses), `StoreError`.
        """

        async def attach() -> Attachment:
            if sandbox.state not in (State.RUNNING, State.PAUSED):
                raise ApiError(SANDBOX_NOT_READY, details={"status": published(sandbox.state)})
            attachment = self._new(wanted, sandbox.attachments)
            mount = self._mount(attachment)
            with self._volumes.pinned([attachment.volume_id]), told():
                await self._runtime.files(sandbox.id, lambda tree: tree.mount(mount))
                try:
                    await self._show(sandbox, mount)
                    with self._sandboxes.keeping(sandbox):
                        sandbox.attachments.append(attachment)
                except BaseException:
                    await self._unmount(sandbox, attachment)
                    raise
            return attachment

        return await self._sandboxes.exclusively(sandbox, attach, name="attach")

    async def detach(self, sandbox: Sandbox, attachment_id: str) -> Attachment:
        """From a sandbox in any state. Whoever has files of it open keeps those.

        Raises `ApiError` (volume_attachment_not_found), `StoreError`.
        """

        async def detach() -> Attachment:
            attachment = self.get(sandbox, attachment_id)
            with self._sandboxes.keeping(sandbox):
                sandbox.attachments.remove(attachment)
            # Not the other way round: what is attached according to the store has to be there.
            await self._unmount(sandbox, attachment)
            return replace(attachment, updated_at=self._wall())

        return await self._sandboxes.exclusively(sandbox, detach, name="detach")

    async def health(self, sandbox: Sandbox, attachment_id: str) -> Attachment:
        """As it is found now. Raises `ApiError` (volume_attachment_not_found), `StoreError`."""

        async def look() -> Attachment:
            attachment = self.get(sandbox, attachment_id)
            mount = self._mount(attachment)
            try:
                with told():
                    await self._runtime.files(sandbox.id, lambda tree: tree.check(mount))
            except ApiError as e:
                return self._found(sandbox, attachment, e)
            return self._found(sandbox, attachment, None)

        return await self._sandboxes.exclusively(sandbox, look, name="volume health")

    async def remount(self, sandbox: Sandbox, attachment_id: str) -> Attachment:
        """Put it in its place where it is not. Raises as `attach`, and volume_attachment_not_found."""

        async def remount() -> Attachment:
            attachment = self.get(sandbox, attachment_id)
            try:
                await self._put(sandbox, attachment)
            except ApiError as e:
                self._found(sandbox, attachment, e)
                raise
            return self._found(sandbox, attachment, None)

        return await self._sandboxes.exclusively(sandbox, remount, name="remount")

    async def delete(self, volume: Volume) -> None:
        """The volume and its data. Raises `ApiError` (volume_busy, ...), `StoreError`."""
        users = list(dict.fromkeys(sandbox.id for sandbox, _ in self.of_volume(volume)))
        if users:
            raise ApiError(VOLUME_BUSY, details={"sandbox_ids": users})
        await self._volumes.delete(volume)

    # --- Parts of these ---------------------------------------------------------------------------------

    async def _before_resume(self, sandbox: Sandbox) -> None:
        """Everything in its place, or (`ApiError`, volume_unavailable) the sandbox stays paused."""
        for attachment in list(sandbox.attachments):
            try:
                await self._put(sandbox, attachment)
            except ApiError as e:
                self._found(sandbox, attachment, e)
                text = f"{self._mount(attachment).path}: {e.message or e.problem.message}"
                details = {
                    "attachment_id": attachment.id,
                    "volume_id": attachment.volume_id,
                    "reason": e.problem.code,
                }
                raise ApiError(VOLUME_UNAVAILABLE, text, details) from e
            if attachment.error_code is not None:
                self._found(sandbox, attachment, None)

    async def _put(self, sandbox: Sandbox, attachment: Attachment) -> None:
        mount = self._mount(attachment)
        with told():
            await self._runtime.files(sandbox.id, lambda tree: tree.mount(mount))
            await self._show(sandbox, mount)

    async def _show(self, sandbox: Sandbox, mount: Mount) -> None:
        """To processes that run already. Raises `RuntimeFault`."""
        if mount.read_only:
            await self._runtime.show(sandbox.id)

    async def _unmount(self, sandbox: Sandbox, attachment: Attachment) -> None:
        mount = self._mount(attachment)
        try:
            await self._runtime.files(sandbox.id, lambda tree: tree.unmount(mount))
        except RuntimeFault as e:
            # A link that stays leads processes to what they had anyway; the file calls do not follow it.
            self._log("unmount_incomplete", sandbox=sandbox.id, error=repr(e))

    def _found(
        self, sandbox: Sandbox, attachment: Attachment, trouble: ApiError | None
    ) -> Attachment:
        """Remember what was found, if that is new."""
        code = None if trouble is None else trouble.problem.code
        text = None if trouble is None else trouble.message or trouble.problem.message
        if (code, text) == (attachment.error_code, attachment.error_message):
            return attachment
        found = replace(attachment, error_code=code, error_message=text, updated_at=self._wall())
        with self._sandboxes.keeping(sandbox):
            sandbox.attachments[sandbox.attachments.index(attachment)] = found
        return found

    def _new(self, wanted: VolumeMount, others: Sequence[Attachment]) -> Attachment:
        self._require_enforced(read_only=wanted.read_only)
        volume = self._volumes.of(wanted.ref)
        now = self._wall()
        made = Attachment(
            _new_id(), volume.id, wanted.names, wanted.below, now, now, read_only=wanted.read_only
        )
        if len(others) >= MAX_OF_SANDBOX:
            raise ApiError(VOLUME_LIMIT_EXCEEDED, details={"limit": MAX_OF_SANDBOX})
        self._require_room(volume.id)
        if any(made.in_the_way(other) for other in others):
            raise ApiError(VOLUME_MOUNT_CONFLICT, "Another volume is there, or in there.")
        return made

    def _require_enforced(self, *, read_only: bool) -> None:
        if read_only and not self._runtime.isolated:
            # Processes run as the user who owns the files, so nothing would keep them from writing.
            raise ApiError(
                NOT_IMPLEMENTED,
                "read_only is offered with isolation netns only, which this control plane has not.",
                {"field": "read_only"},
            )

    def _require_room(self, volume_id: str) -> None:
        count = sum(
            attachment.volume_id == volume_id
            for sandbox in self._sandboxes.living()
            # Those that are being made are among the pins.
            if sandbox.state is not State.CREATING
            for attachment in sandbox.attachments
        )
        if count + self._volumes.pins(volume_id) >= MAX_OF_VOLUME:
            raise ApiError(VOLUME_LIMIT_EXCEEDED, details={"limit": MAX_OF_VOLUME})

    def _mount(self, attachment: Attachment) -> Mount:
        return attachment.mount(self._volumes.files(attachment.volume_id))


def _new_id() -> str:
    return f"vat_{secrets.token_hex(8)}"
