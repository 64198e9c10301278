"""A pool as the public API shows it, key by key as published: the client builds its own from these."""

from __future__ import annotations

from edge.appliance.pools.pool import Pool
from edge.appliance.views import Json, rfc3339


def pool_view(pool: Pool) -> Json:
    """A pool. There are no builds and hosts here, so what is said of them is null."""
    standing = pool.standing
    wanted = standing.definition
    return {
        "id": pool.id,
        "name": wanted.name,
        "template_ref": wanted.template_ref,
        "state": standing.state.value,
        "min_ready": wanted.min_ready,
        "max_ready": wanted.max_ready,
        "resources": wanted.resources.model_dump(exclude_none=True),
        "status": _counts(pool),
        "degraded_reason": pool.degraded_reason,
        "resolved_template": wanted.template_ref,
        "resolved_template_build_id": None,
        "runtime_artifact_id": None,
        "idle_timeout_seconds": wanted.idle_timeout_seconds,
        "stale_after_seconds": wanted.stale_after_seconds,
        "checkout_policy": wanted.checkout_policy,
        "version_policy": wanted.version_policy,
        "track_tag": wanted.track_tag,
        "rollout_generation": standing.generation,
        "labels": wanted.labels,
        "metadata": wanted.metadata,
        "created_at": rfc3339(standing.created_at),
        "updated_at": rfc3339(standing.updated_at),
        "enabled_at": rfc3339(standing.enabled_at),
        "disabled_at": rfc3339(standing.disabled_at),
        "drain_requested_at": rfc3339(standing.drain_requested_at),
        "last_reconciled_at": rfc3339(pool.looked_at),
        "deleted_at": rfc3339(standing.deleted_at),
    }


def _counts(pool: Pool) -> Json:
    """Now: target, ready, warming, draining. Since the start of the process: the others."""
    stock = pool.stock
    return {
        "target": pool.target,
        "ready": stock.ready,
        "warming": stock.warming,
        "claimed": stock.counts.claimed,
        "draining": stock.ending,
        "failed": stock.counts.failed,
        "expired": stock.counts.expired,
        "unavailable": stock.counts.lost,
    }
