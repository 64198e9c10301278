"""What may be said of a pool, and what an update changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from warehouse import definition

from edge.appliance.pools.definition import MOST_READY, defined, label_filter, updated
from edge.appliance.problems import ApiError

GOOD = {"template_ref": "base", "name": "n", "min_ready": 1, "max_ready": 2}


def _refusal(body: object) -> str:
    with pytest.raises(ApiError) as refused:
        defined(json.dumps(body).encode())
    assert refused.value.problem.code == "invalid_request"
    return refused.value.message


def test_the_least_that_can_be_said() -> None:
    """The rest has the defaults of a create; nulls say nothing."""
    made = defined(json.dumps(GOOD | {"labels": None, "checkout_policy": None}).encode())
    assert (made.resources.vcpus, made.resources.memory_mb, made.resources.disk_mb) == (
        2,
        512,
        None,
    )
    assert (made.checkout_policy, made.version_policy) == ("prefer", "pinned_build")
    assert (made.labels, made.metadata, made.idle_timeout_seconds) == ({}, {}, None)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"template_ref": None}, "template_ref"),
        ({"template_ref": ""}, "template_ref"),
        ({"name": 5}, "name"),
        ({"min_ready": -1}, "min_ready"),
        ({"min_ready": "1"}, "min_ready"),
        ({"min_ready": True}, "min_ready"),
        ({"min_ready": None}, "min_ready"),
        ({"max_ready": 0}, "max_ready"),
        ({"max_ready": MOST_READY + 1}, "max_ready"),
        ({"resources": []}, "resources"),
        ({"resources": {"vcpus": 0}}, "resources.vcpus"),
        ({"resources": {"memory_mb": 1.5}}, "resources.memory_mb"),
        ({"resources": {"disk_mb": 0}}, "resources.disk_mb"),
        ({"idle_timeout_seconds": 0}, "idle_timeout_seconds"),
        ({"stale_after_seconds": 10**9}, "stale_after_seconds"),
        ({"checkout_policy": "often"}, "checkout_policy"),
        ({"version_policy": "latest"}, "version_policy"),
        ({"version_policy": "track_tag"}, "track_tag"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": {str(n): "" for n in range(65)}}, "labels"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], field: str) -> None:
    """A 400 whose message names the field."""
    assert field in _refusal(GOOD | wrong)


def test_an_update_changes_what_it_names() -> None:
    """Parts of resources too; a null takes away what can be absent, and says nothing elsewhere."""
    old = definition(
        idle_timeout_seconds=60,
        stale_after_seconds=60,
        resources={"vcpus": 4, "memory_mb": 1024, "disk_mb": 100},
    )
    body = {"name": None, "max_ready": 9, "idle_timeout_seconds": None, "resources": {"vcpus": 1}}
    new = updated(old, json.dumps(body).encode())
    assert (new.name, new.min_ready, new.max_ready) == ("n", 1, 9)
    assert (new.idle_timeout_seconds, new.stale_after_seconds) == (None, 60)
    assert new.resources.model_dump() == {"vcpus": 1, "memory_mb": 1024, "disk_mb": 100}
    assert updated(old, b"") == old


def test_an_update_is_judged_with_what_stays() -> None:
    """The limits have to fit together afterwards."""
    with pytest.raises(ApiError, match="max_ready"):
        updated(definition(), b'{"min_ready": 5}')
    with pytest.raises(ApiError, match="resources"):
        updated(definition(), b'{"resources": 5}')
    with pytest.raises(ApiError, match="object"):
        updated(definition(), b"[]")


def test_which_instances_will_do() -> None:
    """Template and resources decide, nothing else."""
    old = definition()
    assert old.makes_the_same(definition(max_ready=9, name="other"))
    assert not old.makes_the_same(definition(template_ref="other"))
    assert not old.makes_the_same(definition(resources={"vcpus": 1}))


def test_label_filters() -> None:
    """KEY=VALUE, where a value may hold an equals sign."""
    assert label_filter(["a=1", "b=c=d", "e="]) == {"a": "1", "b": "c=d", "e": ""}
    for text in ("a", "=1", ""):
        with pytest.raises(ApiError, match="label"):
            label_filter([text])
