"""Who judges answers to bad requests: an error that helps, no fault of ours, and nothing changed."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from typing import Any

from good import Request, World

from edge.appliance.description.answers import CODES
from edge.appliance.events import EventFilter
from tests.flows.rawclient import Answer, RawClient, parse_head

PATIENCE = 20.0
"""Seconds after which an answer will never come."""


class _Client(RawClient):
    """One that takes an answer in HTTP/1.0, which is what aiohttp says to what is no HTTP."""

    async def head(self) -> Answer:
        """The next head alone."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        return parse_head(head.replace(b"HTTP/1.0 ", b"HTTP/1.1 ", 1))


class Judge:
    """Sends requests to one world's control plane. ``faults`` is what was wrong with the answers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults: list[str] = []
        self.answers: Counter[int] = Counter()
        self._before = self.fingerprint()

    async def refused(self, why: str, request: Request, wire: bytes, *codes: str) -> None:
        """It has to be refused; with one of these codes, if there are any."""
        answer = await self.asked(why, request, wire)
        if answer is not None and answer.status < 400:
            self._blame(why, request, f"was accepted: {answer.status} {answer.body[:200]!r}")
        elif answer is not None and codes and answer.code not in codes:
            self._blame(why, request, f"{answer.status} {answer.body[:200]!r}")

    async def asked(self, why: str, request: Request, wire: bytes) -> Answer | None:
        """It may be refused. None when there was no answer that anybody could read."""
        try:
            async with asyncio.timeout(PATIENCE):
                async with await _Client.open(self.world.service.plane.port) as client:
                    answer = await _ask(client, wire)
        except (TimeoutError, AssertionError, OSError, EOFError) as e:
            self._blame(why, request, f"no good answer: {e!r}")
            return None
        self.answers[answer.status] += 1
        for fault in _faults(answer):
            self._blame(why, request, f"{fault}: {answer.status} {answer.body[:300]!r}")
        after = self.fingerprint()
        if answer.status >= 400 and after != self._before:
            changes = {key: (self._before[key], after[key]) for key in after}
            changed = {key: value for key, value in changes.items() if value[0] != value[1]}
            self._blame(why, request, f"{answer.status} {answer.code}, yet it changed {changed}")
        self._before = after
        return answer

    def fingerprint(self) -> dict[str, Any]:
        """Everything that a refused request must leave as it is."""
        parts = self.world.service.plane.parts
        living = parts.sandboxes.living()
        newest, _ = parts.events.select(EventFilter(), offset=0, limit=1, ascending=False)
        folders = [parts.config.data_dir / name for name in ("sandboxes", "volumes", "snapshots")]
        return {
            "sandboxes": [one.record() for one in living],
            "timeouts": [(one.id, one.timeout_ms, one.timeout_at) for one in living],
            "grants": sorted(parts.grants.records(), key=lambda grant: grant.id),
            "pools": [pool.standing for pool in parts.pools.all()],
            "uploads": [
                (upload.id, upload.status, sorted(upload.came))
                for upload in parts.uploads._uploads.values()
            ],
            "events": [event.id for event in newest],
            "volumes": [(volume.id, volume.name) for volume in parts.volumes.all()],
            "attachments": [
                (one.id, at.id, at.names, at.below, at.error_code)
                for one in living
                for at in one.attachments
            ],
            "snapshots": [one.id for _, one in parts.sandboxes.snapshots()],
            "copies": [copy.id for copy in parts.copies.all()],
            "files": sorted(entry for folder in folders for entry in _tree(str(folder))),
        }

    def _blame(self, why: str, request: Request, what: str) -> None:
        self.faults.append(f"{request.call} with {why}: {what}"[:600])

    def verdict(self) -> None:
        """Raises AssertionError with what was wrong."""
        faults, self.faults = self.faults, []
        shown = {fault.partition(" with ")[2][:60]: fault for fault in faults}
        told = "\n".join(shown.values())
        assert not faults, f"{len(faults)} faults, such as\n{told}"


async def _ask(client: RawClient, wire: bytes) -> Answer:
    try:
        await client.send(wire)
    except ConnectionError:
        pass  # It was refused before all of it was sent; the answer may still be there.
    return await client.answer(wire.split(b" ", 1)[0])


def _faults(answer: Answer) -> list[str]:
    if answer.status < 400:
        return []
    if answer.status >= 500 and answer.status != 501:
        return ["a fault of ours"]
    try:
        error = json.loads(answer.body)
    except ValueError:
        return ["no JSON"]
    found = []
    if not isinstance(error, dict) or error.get("code") not in CODES:
        return ["no code"]
    if answer.status == 501 and error["code"] != "not_implemented":
        found.append("501, but not not_implemented")
    if not (error.get("error") and error.get("suggested_action")):
        found.append("does not say what to do")
    if answer.values("x-request-id") != [error.get("request_id")]:
        found.append("has two request ids")
    return found


def _tree(top: str) -> list[tuple[Any, ...]]:
    """Looked at after every request, so it has to be quick: `os.walk` takes three times as long."""
    found: list[tuple[Any, ...]] = []
    folders = [top]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    # Directories change their times with every staged file.
                    found.append((entry.path, status.st_mode))
                else:
                    found.append((entry.path, status.st_mode, status.st_size, status.st_mtime_ns))
    return found
