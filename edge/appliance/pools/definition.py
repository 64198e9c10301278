"""What a tenant says about a pool: the body of its create, of its update, and what is kept on disk."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edge.appliance.bodies import parse_object, validated
from edge.appliance.problems import invalid
from edge.appliance.requests import Body, CheckoutMode, Name

MOST_READY = 100
"""Instances of one pool, and of all pools together: each is a process that waits."""

LONGEST_SECONDS = 30 * 24 * 3600

VersionPolicy = Literal["pinned_build", "track_tag"]
Seconds = Annotated[int, Field(ge=1, le=LONGEST_SECONDS)]
Count = Annotated[int, Field(ge=0, le=MOST_READY)]
Labels = Annotated[dict[Name, Annotated[str, Field(max_length=255)]], Field(max_length=64)]


class Resources(Body):
    """What each instance is given; the defaults are those of a create."""

    vcpus: Annotated[int, Field(ge=1, le=256)] = 2
    memory_mb: Annotated[int, Field(ge=1, le=4_194_304)] = 512
    disk_mb: Annotated[int, Field(ge=1)] | None = None


class Definition(Body):
    """``POST /v1/template-warm-pools``.

    ``min_ready`` instances are always there or under way. Creates that wait for one may bring it up to
    ``max_ready``. An instance that nobody claimed for ``idle_timeout_seconds``, or that was begun
    ``stale_after_seconds`` ago, is ended.
    """

    template_ref: Name
    name: Name
    min_ready: Count
    max_ready: Count
    resources: Resources = Resources()
    idle_timeout_seconds: Seconds | None = None
    stale_after_seconds: Seconds | None = None
    checkout_policy: CheckoutMode = "prefer"
    version_policy: VersionPolicy = "pinned_build"
    track_tag: Name | None = None
    labels: Labels = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Definition:
        if self.min_ready > self.max_ready:
            raise ValueError("max_ready must not be less than min_ready")
        if self.version_policy == "track_tag" and self.track_tag is None:
            raise ValueError("track_tag is needed for version_policy track_tag")
        return self

    def makes_the_same(self, other: Definition) -> bool:
        """Whether instances of the one will do for the other."""
        return (self.template_ref, self.resources) == (other.template_ref, other.resources)


NULLABLE = ("idle_timeout_seconds", "stale_after_seconds", "track_tag")
"""What an update takes away by saying null; a null elsewhere says nothing, as at create."""


def defined(body: bytes) -> Definition:
    """Of a create's body. Raises `ApiError` (invalid_request)."""
    return validated(Definition, _said(parse_object(body)))


def updated(old: Definition, body: bytes) -> Definition:
    """With what an update's body changes. Raises `ApiError` (invalid_request)."""
    document = parse_object(body)
    new = old.model_dump() | _said(document)
    new |= {key: None for key in NULLABLE if key in document and document[key] is None}
    resources = document.get("resources")
    if isinstance(resources, dict):
        new["resources"] = old.resources.model_dump() | resources
    return validated(Definition, new)


def label_filter(texts: list[str]) -> dict[str, str]:
    """``label=KEY=VALUE``, any number of times. Raises `ApiError` (invalid_request)."""
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise invalid("label: must be KEY=VALUE")
        labels[key] = value
    return labels


def _said(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}
