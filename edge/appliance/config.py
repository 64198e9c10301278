"""Settings of the embedded control plane, as one JSON object."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from edge.core.group import Hostname, Secret
from edge.core.redis_settings import RedisSettings

Port = Annotated[int, Field(ge=0, le=65535)]


class ConfigError(Exception):
    """A setting is wrong. The message is one line that says which."""


def _loopback(host: str) -> str:
    """Whoever reaches the API can run commands as us, so it stays on this machine."""
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host == "localhost"
    if not inside:
        raise ValueError("must be a loopback address such as 127.0.0.1")
    return host


class _Group(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class Config(_Group):
    """Everything the process needs to know; read once."""

    host: Annotated[str, AfterValidator(_loopback)] = "127.0.0.1"
    """Loopback address of the API."""
    port: Port = 3000
    """Port of the API; 0 takes a free one."""
    api_key: Annotated[SecretStr, Field(min_length=1)]
    """Key of the public API."""
    service_token: Secret
    """Token of the internal API, for edges."""
    issuer: Annotated[str, Field(min_length=1)] = "nullspace"
    """``iss`` of the preview tokens."""
    public_hostname: Hostname = "localhost"
    """Domain below which previews live."""
    public_scheme: Literal["http", "https"] = "http"
    """Scheme by which the outside reaches the edge."""
    public_port: Port = 0
    """Port by which the outside reaches the edge; 0 = the scheme's own, or said later."""
    data_dir: Annotated[Path, Field(strict=False)]
    """Directory for the keys, the state and the sandboxes."""
    demo: bool = False
    """Whether to start the demo sandbox."""
    reserved_ports: tuple[Port, ...] = ()
    """Ports that cannot be previewed besides the API's own: the edge's and its admin's."""
    redis: RedisSettings = RedisSettings()
    """Redis to publish records to, for many edges; without a URL there is none."""
    isolation: Literal["shared", "netns"] = "shared"
    """Whether sandboxes share this machine's network, or each has a namespace of its own (Linux)."""
    console_hosts: tuple[Hostname, ...] = ()
    """Names under which the console may be opened besides this machine's own: those of a proxy in front."""
    await_edge: bool = False
    """Whether a line on standard input will still name the edge's port; the demo waits for it."""


class EdgeLine(_Group):
    """The line on standard input that says where the edge listens."""

    public_port: Port
    """As in `Config`."""
    reserved_ports: tuple[Port, ...] = ()
    """As in `Config`; in place of what was said there."""


def read_config(text: str | bytes) -> Config:
    """Raises `ConfigError`."""
    try:
        return Config.model_validate_json(text)
    except ValidationError as e:
        raise ConfigError(_first(e)) from None


def read_edge_line(text: str | bytes) -> EdgeLine:
    """Raises `ConfigError`."""
    try:
        return EdgeLine.model_validate_json(text)
    except ValidationError as e:
        raise ConfigError(_first(e)) from None


def _first(error: ValidationError) -> str:
    # Never the input: it may be a secret.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(map(str, first["loc"]))
    return f"config: {name + ': ' if name else ''}{first['msg']}"
