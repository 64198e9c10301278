"""Settings of Redis: where it is, which kind of it, and which of these do not go together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from edge.core.group import Group


def _redis_url(value: SecretStr) -> SecretStr:
    # Never the URL itself in a message: there is a password in it.
    try:
        parts = urlsplit(value.get_secret_value())
        port = parts.port
    except ValueError:
        raise ValueError("must be like redis://user:password@host:6379/0") from None
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("must begin with redis:// or rediss://")
    if not parts.hostname or port == 0:
        raise ValueError("must name a host, and perhaps a port, as in redis://host:6379/0")
    if not re.fullmatch(r"/?|/[0-9]{1,5}", parts.path):
        raise ValueError("what follows the host must be the number of a database, as in /0")
    if parts.query or parts.fragment:
        raise ValueError(
            "takes no options after ? or #; a password's special characters are %-coded"
        )
    return value


class RedisSettings(Group):
    """Redis or Valkey between the control plane and many edges. It spares look-ups and thins out wakes."""

    url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    """Like redis://user:password@host:6379/0, or rediss:// for TLS; unset = none, the control plane alone is asked."""
    cluster: bool = False
    """Whether it is a Cluster; the URL names one of its nodes."""
    sentinels: tuple[str, ...] = ()
    """Sentinels as host:port, which are asked for the primary in place of the URL's host."""
    sentinel_service: str = "mymaster"
    """The name under which the Sentinels watch the primary."""
    sentinel_password: SecretStr | None = None
    """The Sentinels' own password, where they have one."""
    sentinel_tls: bool = False
    """Whether the Sentinels, too, are reached by TLS."""
    ca_file: Path | None = None
    """Certificates that are trusted with rediss://; unset = the system's."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "edge"
    """What the names of all keys begin with, so that fleets can share a server."""
    timeout: Annotated[float, Field(gt=0)] = 0.5
    """Seconds for one command; later the control plane is asked."""
    connections: Annotated[int, Field(ge=4)] = 32
    """Connections per process (and node of a Cluster) for look-ups and leases. Changes take 2, in a Cluster 17."""
    lease: Annotated[float, Field(ge=0.5)] = 2.0
    """Seconds after which another edge takes over from one that wakes a sandbox and has fallen silent."""

    @model_validator(mode="after")
    def _one_kind(self) -> RedisSettings:
        url = self.url.get_secret_value() if self.url is not None else ""
        if self.cluster and self.sentinels:
            raise ValueError("a Cluster has no Sentinels: give cluster or sentinels, not both")
        if self.cluster and urlsplit(url).path.strip("/0"):
            raise ValueError("a Cluster has only the database 0")
        if (self.cluster or self.sentinels) and not url:
            raise ValueError(
                "url is missing; it names the user, the password and whether TLS is used"
            )
        if self.ca_file is not None and not (url.startswith("rediss://") or self.sentinel_tls):
            raise ValueError("ca_file is of no use without TLS: url begins with rediss:// then")
        for sentinel in self.sentinels:
            host, _, port = sentinel.rpartition(":")
            if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
                raise ValueError("sentinels: each must be like host:26379")
        return self
