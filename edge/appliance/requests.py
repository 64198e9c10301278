"""What the public API takes: every body as a model, every rule that needs no state.

Unknown keys are ignored, because newer clients may say more; types are strict, because ``"1"`` and
``true`` are no integers. Times are in the unit their name says.
"""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from edge.appliance.problems import invalid
from edge.appliance.volumes.requests import VolumeMount

DEFAULT_TIMEOUT_MS = 300_000
LONGEST_TIMEOUT_MS = 30 * 24 * 3600 * 1000

DEFAULT_TTL = 900
SHORTEST_TTL, LONGEST_TTL = 60, 86_400
"""Lifetime of preview tokens in seconds; what is asked for is moved into this range."""

LONGEST_REASON = 500
"""Characters of an operator's words."""

# RFC 9110 section 7.2: a name, an IPv4 address or a bracketed IPv6 address, and perhaps a port.
_HOST = re.compile(
    r"(?=.{1,255}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
)


def _plain(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("must not contain lone surrogates")
    return text


def _environment(envs: dict[str, str]) -> dict[str, str]:
    for name in envs:
        if not name or "=" in name:
            raise ValueError("a variable's name must not be empty or contain '='")
    return envs


def _host(text: str) -> str:
    # It becomes a header field of requests to the app.
    match = _HOST.fullmatch(text.replace("${PORT}", "65535"))
    if match is None or not 0 < int(match[1] or 80) < 65536:
        raise ValueError("must be a host name, with :port or :${PORT} if need be")
    return text


Text = Annotated[str, AfterValidator(_plain)]
"""What ends up in system calls."""
Name = Annotated[str, Field(min_length=1, max_length=255)]
Line = Annotated[str, Field(min_length=1), AfterValidator(_plain)]
Envs = Annotated[dict[Text, Text], AfterValidator(_environment)]
TimeoutMs = Annotated[int, Field(ge=1, le=LONGEST_TIMEOUT_MS)]
TimeoutAction = Literal["destroy", "hibernate"]
CheckoutMode = Literal["prefer", "require", "bypass"]


class Body(BaseModel):
    """What all bodies have in common."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Network(Body):
    """``network`` of a create. It restricts: a misspelt name that was ignored would let everybody in."""

    model_config = ConfigDict(extra="forbid")

    allow_public_traffic: bool | None = None
    mask_request_host: Annotated[str, AfterValidator(_host)] | None = None
    allow_out: list[Any] | None = None
    deny_out: list[Any] | None = None

    @property
    def custom(self) -> bool:
        """Whether anything in it is not as it would be without it."""
        return (
            self.allow_public_traffic is False
            or self.mask_request_host is not None
            or bool(self.allow_out or self.deny_out)
        )


class WarmPool(Body):
    """``warm_pool`` of a create. No ``mode`` = what the pool says, `prefer` where it says nothing."""

    id: Name | None = None
    mode: CheckoutMode | None = None
    wait_ms: Annotated[int, Field(ge=0, le=600_000)] | None = None

    @model_validator(mode="after")
    def _named(self) -> WarmPool:
        if self.id is None and self.mode != "bypass":
            raise ValueError("id is needed for mode prefer or require")
        return self


class Lifecycle(Body):
    """``lifecycle`` of a create: the older spelling of ``timeout_action``."""

    on_timeout: Literal["destroy", "pause"] | None = None


class Create(Body):
    """``POST /v1/sandboxes``."""

    template: Name = "base"
    vcpus: Annotated[int, Field(ge=1, le=256)] = 2
    memory_mb: Annotated[int, Field(ge=1, le=4_194_304)] = 512
    disk_mb: Annotated[int, Field(ge=1)] | None = None
    timeout_ms: TimeoutMs | None = None
    inactivity_timeout_ms: TimeoutMs | None = None
    timeout_action: TimeoutAction | None = None
    lifecycle: Lifecycle | None = None
    auto_resume: bool | None = None
    ephemeral: bool | None = None
    envs: Envs | None = None
    metadata: dict[str, Any] | None = None
    network: Network | None = None
    internet_access: bool | None = None
    cwd: Line | None = None
    desktop: dict[str, Any] | None = None
    volumes: Annotated[list[VolumeMount], Field(max_length=64)] | None = None
    warm_pool: WarmPool | None = None
    snapshot_id: Name | None = None

    @property
    def action(self) -> TimeoutAction:
        """What happens at the timeout; ``pause`` and ``hibernate`` are the same."""
        if self.timeout_action is not None:
            return self.timeout_action
        paused = self.lifecycle is not None and self.lifecycle.on_timeout == "pause"
        return "hibernate" if paused else "destroy"

    @model_validator(mode="after")
    def _consistent(self) -> Create:
        said = self.lifecycle.on_timeout if self.lifecycle is not None else None
        if said is not None and (said == "pause") != (self.action == "hibernate"):
            raise ValueError("timeout_action and lifecycle.on_timeout contradict each other")
        if self.auto_resume and self.action == "destroy":
            raise ValueError("auto_resume needs timeout_action hibernate or on_timeout pause")
        if self.auto_resume and self.ephemeral:
            raise ValueError("auto_resume and ephemeral exclude each other")
        return self


class SetTimeout(Body):
    """``POST S/timeout``."""

    timeout_ms: TimeoutMs
    timeout_action: TimeoutAction | None = None


class Exec(Body):
    """``POST S/exec``. ``timeout_secs`` bounds foreground commands only."""

    command: Line
    args: list[Text] | None = None
    timeout_secs: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 30
    background: bool = False
    cwd: Line | None = None
    envs: Envs | None = None
    shell: bool | None = None


class Frame(Body):
    """What every message of a command's WebSocket has. ``id`` is the client's own and comes back."""

    type: Name
    id: Annotated[str, Field(max_length=255)] | None = None


class ExecStart(Exec, Frame):
    """``exec_start``: a command as in ``POST S/exec``; its limit counts whoever listens."""


class ExecConnect(Frame):
    """``exec_connect``: a command that was started before."""

    pid: int


class Stdin(Body):
    """``POST S/processes/{pid}/stdin``, and ``exec_stdin``: text, or bytes as base64."""

    data: str | None = None
    data_base64: str | None = None

    @property
    def content(self) -> bytes:
        """What is to be sent. Raises `ApiError` (invalid_request)."""
        if (self.data is None) == (self.data_base64 is None):
            raise invalid("Either data or data_base64 is needed.")
        try:
            if self.data_base64 is not None:
                return base64.b64decode(self.data_base64, validate=True)
            return (self.data or "").encode("utf-8")
        except ValueError:
            raise invalid("The data cannot be decoded.") from None


class Host(Body):
    """``POST S/host``. The port is judged where all ports are."""

    port: Any


class Signed(Body):
    """``POST S/ports/{p}/signed-preview-url``."""

    expires_in_seconds: int | None = None


class ProxyTarget(Body):
    """``POST S/ports/{p}/preview-proxy-target``. No ``transports`` = both."""

    expires_in_seconds: int | None = None
    transports: (
        Annotated[list[Literal["http", "websocket"]], Field(min_length=1, max_length=16)] | None
    ) = None
    include_traffic_token_hint: bool | None = None


class Switch(Body):
    """An operator's disable or enable. ``reason`` goes to the audit trail."""

    reason: Annotated[Text, Field(max_length=LONGEST_REASON)] | None = None


class Readiness(Body):
    """``POST S/ports/{p}/readiness``."""

    kind: Literal["tcp", "http"] = "tcp"
    path: Annotated[str, Field(max_length=4096)] | None = None
    timeout_secs: Annotated[int, Field(ge=1, le=120)] = 30
    interval_ms: Annotated[int, Field(ge=100, le=5000)] = 500

    @model_validator(mode="after")
    def _origin_form(self) -> Readiness:
        if self.path is not None and not re.fullmatch(r"/[!-~]*", self.path):
            raise ValueError("path must start with / and be printable ASCII without blanks")
        return self


def lifetime(asked: int | None) -> int:
    """Seconds that preview tokens live."""
    return DEFAULT_TTL if asked is None else min(max(asked, SHORTEST_TTL), LONGEST_TTL)
