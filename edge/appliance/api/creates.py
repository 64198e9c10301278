"""Creating sandboxes: cold, from a warm pool, or from a snapshot; once for each idempotency key."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from edge.appliance.api.http import (
    answer,
    parts,
    read_json_body,
)
from edge.appliance.bodies import parse, read_json
from edge.appliance.idempotency import Keep
from edge.appliance.parts import Parts
from edge.appliance.pools.pools import refuse_unpoolable
from edge.appliance.problems import (
    NOT_IMPLEMENTED,
    ApiError,
    invalid,
)
from edge.appliance.requests import DEFAULT_TIMEOUT_MS, Create
from edge.appliance.sandbox import Plan, Sandbox, Setup
from edge.appliance.snapshots.copier import Pattern
from edge.appliance.views import Json, sandbox_view
from edge.appliance.volumes.requests import VolumeMount
from edge.core.redact import TRAFFIC_PREFIX

WORK_TREE = "/workspace"


async def create(request: web.Request) -> web.Response:
    """``POST /v1/sandboxes``: 201 with the sandbox, running."""
    body = await read_json_body(request)
    wanted = parse(Create, body)
    refuse_unpoolable(wanted)
    the_parts = parts(request)
    _offered(wanted, isolated=the_parts.runtime.isolated)
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        return answer(await _create(the_parts, wanted, lambda: _gone(request)), 201)
    if len(key) > 255:
        raise invalid("Idempotency-Key: at most 255 characters")
    # Of the meaning, not of the bytes: a client may write the same object in another order.
    meaning = json.dumps(read_json(body or b"{}"), sort_keys=True).encode()
    made = await the_parts.creates.once(
        # Whoever has left may come back with the key: the create goes on.
        key,
        hashlib.sha256(meaning).digest(),
        lambda keep: _create(the_parts, wanted, lambda: False, keep),
    )
    return answer(made, 201)


def _offered(wanted: Create, *, isolated: bool) -> None:
    """Refuse what this control plane does not do, above all limits it cannot enforce.

    Raises `ApiError` (not_implemented).
    """
    network = wanted.network
    missing = {
        "desktop": wanted.desktop,
        "internet_access": wanted.internet_access is False and not isolated,
        "network.allow_out": network and network.allow_out,
        "network.deny_out": network and network.deny_out,
    }
    for field, asked in missing.items():
        if asked:
            raise ApiError(NOT_IMPLEMENTED, f"{field} is not offered here.", {"field": field})


def _forget(_: Json) -> None:
    """There is no key to keep the answer under."""


def _gone(request: web.Request) -> bool:
    """Whether the client has left; a handler is not told."""
    return request.transport is None or request.transport.is_closing()


async def _create(
    the_parts: Parts,
    wanted: Create,
    gone: Callable[[], bool],
    keep: Keep[Json] = _forget,
) -> Json:
    pattern = the_parts.copier.pattern(wanted.snapshot_id) if wanted.snapshot_id else None
    private, mask = _network(wanted, pattern)
    token = TRAFFIC_PREFIX + secrets.token_urlsafe(32) if private else None
    inactive = wanted.inactivity_timeout_ms
    view: Json = {}

    def kept(sandbox: Sandbox) -> None:
        # As it is now: a moment later its timeout may have come already.
        view.update(sandbox_view(sandbox))
        # Without the token: only its digest is ever written. A repeat while we run gets it from memory; after
        # a restart it would open a sandbox that runs no more.
        keep(dict(view))

    with _setup(the_parts, wanted.volumes, pattern) as setup:
        # From here to the sandbox nothing is awaited: an instance always has an owner.
        checkout = await the_parts.pools.checkout(wanted, gone)
        # What is not said is as it was in the snapshot.
        said, like = wanted.model_fields_set, wanted if pattern is None else pattern.plan
        plan = Plan(
            template=(wanted if "template" in said else like).template,
            vcpus=(wanted if "vcpus" in said else like).vcpus,
            memory_mb=(wanted if "memory_mb" in said else like).memory_mb,
            cwd=wanted.cwd or like.cwd or WORK_TREE,
            metadata=wanted.metadata or {},
            auto_resume=bool(wanted.auto_resume),
            inactivity_timeout=None if inactive is None else inactive / 1000,
            checkout=checkout.view,
            mask_request_host=mask,
            traffic_token_sha256=hashlib.sha256(token.encode()).hexdigest() if token else None,
            ephemeral=bool(wanted.ephemeral),
        )
        await the_parts.sandboxes.create(
            plan,
            envs=wanted.envs or {},
            cwd=plan.cwd,
            timeout_ms=wanted.timeout_ms or DEFAULT_TIMEOUT_MS,
            timeout_action=wanted.action,
            place=checkout.place,
            kept=kept,
            setup=setup,
        )
    return view if token is None else view | {"traffic_access_token": token}


def _network(wanted: Create, pattern: Pattern | None) -> tuple[bool, str | None]:
    """Whether traffic is private, and what apps are told as their host; as in the snapshot if nothing is said."""
    network = wanted.network
    public = network.allow_public_traffic if network is not None else None
    mask = network.mask_request_host if network is not None else None
    if pattern is not None:
        if public is None:
            # With a token of its own: nobody knows the other's any more.
            public = pattern.plan.traffic_token_sha256 is None
        mask = mask or pattern.plan.mask_request_host
    return public is False, mask


@contextmanager
def _setup(
    the_parts: Parts, volumes: list[VolumeMount] | None, pattern: Pattern | None
) -> Iterator[Setup]:
    """With the volumes that are asked for, or those of the snapshot; they are not deleted meanwhile."""
    attachments = the_parts.attachments
    if volumes is None and pattern is not None:
        places = attachments.again(pattern.attachments)
    else:
        places = attachments.planned(volumes or ())
    with the_parts.volumes.pinned([place.volume_id for place in places]):
        origin = None if pattern is None else pattern.origin
        yield Setup(places, attachments.mounts(places), origin)


ROUTES = [("POST", "/v1/sandboxes", create)]
