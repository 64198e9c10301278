"""What the handlers share: one object with the parts of the control plane, built in one place."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from edge.appliance.audit import AuditTrail
from edge.appliance.barrier import REJOINING, Edges
from edge.appliance.config import Config, EdgeLine
from edge.appliance.epoch import begin_run, has_run
from edge.appliance.events import EventLog
from edge.appliance.feed import Feed
from edge.appliance.grants import Grants
from edge.appliance.idempotency import Idempotency
from edge.appliance.keys import SigningKeys
from edge.appliance.links import FileLinks
from edge.appliance.minter import Minter
from edge.appliance.pools.pools import Pools
from edge.appliance.problems import ApiError
from edge.appliance.runtime import Runtime
from edge.appliance.sandboxes import Sandboxes
from edge.appliance.snapshots.copier import Copier
from edge.appliance.snapshots.shelf import Copies
from edge.appliance.store import Store
from edge.appliance.subscription import Places
from edge.appliance.tasks import Scope
from edge.appliance.uploads import Uploads
from edge.appliance.usage import UsageCounter
from edge.appliance.volumes.attachments import Attachments
from edge.appliance.volumes.shelf import Volumes
from edge.core.target import Site
from edge.state.redis import LeftUsage, Publisher

Log = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts, by name. ``wall`` is Unix time in seconds; ``streams`` counts open ones by sandbox."""

    config: Config
    runtime: Runtime
    keys: SigningKeys
    store: Store
    scope: Scope
    feed: Feed
    edges: Edges
    events: EventLog
    lifecycle_streams: Places
    audit: AuditTrail
    minter: Minter
    grants: Grants
    sandboxes: Sandboxes
    pools: Pools
    volumes: Volumes
    attachments: Attachments
    copies: Copies
    copier: Copier
    usage: UsageCounter
    links: FileLinks
    uploads: Uploads
    creates: Idempotency[dict[str, object]]
    wall: Callable[[], float]
    log: Log
    streams: Counter[str] = field(default_factory=Counter)
    closing: list[Callable[[], Any]] = field(default_factory=list)

    def set_edge(self, line: EdgeLine, own_port: int) -> None:
        """Where the edge listens has become known."""
        self.minter.site = _site(self.config, line.public_port)
        self.minter.reserved = frozenset({*line.reserved_ports, line.public_port, own_port})


PARTS: web.AppKey[Parts] = web.AppKey("parts")


def build_parts(
    config: Config,
    runtime: Runtime,
    keys: SigningKeys,
    store: Store,
    *,
    log: Log,
    wall: Callable[[], float] = time.time,
) -> Parts:
    """Put the parts together, with what the store has. Sandboxes of an earlier run are in error then.

    Raises `StoreError`.
    """

    def crashed(name: str, error: BaseException) -> None:
        # A refusal was told to whoever asked, and logged where it arose.
        if not isinstance(error, ApiError):
            log("crash", task=name, error=repr(error))

    scope = Scope(crashed)
    edges = Edges(rejoining=REJOINING if has_run(store) else 0.0)
    floor = begin_run(store, wall)
    feed = Feed(start=floor)
    events = EventLog(store, wall)
    minter = Minter(
        lambda: keys.key,
        issuer=config.issuer,
        site=_site(config, config.public_port),
        reserved=frozenset({*config.reserved_ports, config.port, config.public_port}),
    )
    audit = AuditTrail(store, wall)
    grants = Grants(minter, feed, audit, store, wall)
    sandboxes = Sandboxes(
        runtime,
        store,
        feed=feed,
        edges=edges,
        events=events,
        scope=scope,
        wall=wall,
        log=log,
        on_forgotten=grants.forget,
    )
    grants.before_issue = sandboxes.reach
    volumes = Volumes(store, config.data_dir / "volumes", wall)
    attachments = Attachments(volumes, sandboxes, runtime, wall=wall, log=log)
    copies = Copies(store, config.data_dir / "snapshots")
    grants.reconcile(floor, sandboxes.known)
    sandboxes.reconcile(floor)
    usage = UsageCounter(grants, sandboxes, store)
    parts = Parts(
        config=config,
        runtime=runtime,
        keys=keys,
        store=store,
        scope=scope,
        feed=feed,
        edges=edges,
        events=events,
        lifecycle_streams=Places(),
        audit=audit,
        minter=minter,
        grants=grants,
        sandboxes=sandboxes,
        pools=Pools(runtime, store, scope=scope, wall=wall, log=log),
        volumes=volumes,
        attachments=attachments,
        copies=copies,
        copier=Copier(copies, sandboxes, volumes, attachments, runtime, wall=wall),
        usage=usage,
        creates=Idempotency(scope, store, wall),
        links=FileLinks(wall),
        uploads=Uploads(wall),
        wall=wall,
        log=log,
    )
    if config.redis.url is not None:
        _publish(parts)
    return parts


def _publish(parts: Parts) -> None:
    """Tell edges over Redis, too, and take from there what they have left."""
    redis, log, usage = parts.config.redis, parts.log, parts.usage
    sandboxes, grants = parts.sandboxes, parts.grants
    publisher = Publisher(
        redis, lambda: [*sandboxes.records(), *grants.records()], wall=parts.wall, log=log
    )
    parts.feed.listen(publisher.publish)
    parts.edges.elsewhere = lambda: publisher.members
    parts.scope.spawn(publisher.run(), name="publisher")
    parts.scope.spawn(LeftUsage(redis, usage.take, log=log).run(), name="left usage")


def _site(config: Config, public_port: int) -> Site:
    return Site(config.public_hostname, config.public_scheme, public_port)
