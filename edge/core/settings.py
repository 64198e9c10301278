"""Settings: small frozen groups, parsed once, handed down as arguments.

Every field says what it bounds, in which unit, and what zero means; ``docs/settings.md`` is checked
against these texts by a test. Reading files and the environment is ``load_settings``'s business in
``edge/ops/configuration.py``; nothing here does I/O.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edge.core.group import Count, Group, Hostname, Port, Seconds, Secret
from edge.core.redis_settings import RedisSettings


class ListenSettings(Group):
    """Where the edge listens."""

    host: str = "127.0.0.1"
    """Address for client traffic."""
    port: Port = 3001
    """Port for client traffic; 0 takes a free one."""
    admin_host: str = "127.0.0.1"
    """Address of the admin listener (/healthz, /readyz, /metrics). Keep it private."""
    admin_port: Port = 3002
    """Port of the admin listener; 0 takes a free one."""
    backlog: Annotated[int, Field(ge=1)] = 1024
    """Connections the kernel may hold before the edge accepts them."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that share the port (SO_REUSEPORT)."""


class ControlPlaneSettings(Group):
    """The control plane behind the HTTP state port."""

    url: str = "http://127.0.0.1:3000"
    """Base URL of the control plane."""
    token: Secret
    """Service bearer token for /internal/edge/v1/."""
    timeout: Annotated[float, Field(gt=0)] = 5.0
    """Seconds for one look-up, report or ack. Resumes have the wake window instead."""
    # 255 characters are the wire's limit, and workers add their number.
    edge_id: Annotated[str, Field(max_length=250)] = ""
    """Name of this edge towards the control plane; empty makes one of host name and process id."""
    usage_dir: Path | None = None
    """Directory where usage that is not acknowledged outlives a restart; unset = it ends with the process."""


class HmacKey(Group):
    """A shared secret with a name."""

    kid: str
    """Key id."""
    secret: Secret
    """The secret, at least 32 characters."""


class TokenSettings(Group):
    """Whose edge tokens are believed."""

    issuer: str = "nullspace"
    """The only accepted ``iss``."""
    jwks_file: Path | None = None
    """File with the public keys (JWKS). Exactly one of jwks_file and jwks_url is needed."""
    jwks_url: str | None = None
    """URL of the public keys, usually the control plane's /.well-known/jwks.json."""
    jwks_refresh: Annotated[float, Field(gt=0)] = 60.0
    """Seconds between refreshes of the keys. The last good set is kept when a refresh fails."""
    hs256: tuple[HmacKey, ...] = ()
    """Shared-secret keys; each accepts HS256 only, and asymmetric keys never do."""
    max_bytes: Annotated[int, Field(ge=256)] = 4096
    """Longest token that is looked at, in bytes."""
    cache_entries: Annotated[int, Field(ge=1)] = 65536
    """Verified tokens remembered, so that each signature is checked once."""
    failures_per_minute: Count = 60
    """Failed signature checks allowed per client address and minute (behind trusted proxies: per address in X-Forwarded-For); 0 = no limit."""


class CookieSettings(Group):
    """The continuation cookie."""

    keys: Annotated[tuple[HmacKey, ...], Field(min_length=1)]
    """Keys of the edge fleet; the first signs, all of them verify."""


class WakeSettings(Group):
    """Waking and waiting."""

    window: Annotated[float, Field(gt=0)] = 20.0
    """Seconds an exchange may wait for resume plus the app's port accepting."""
    failure_memory: Seconds = 1.0
    """Seconds a failed wake answers for further requests; 0 = every request tries anew."""
    refused_retry: Seconds = 1.0
    """Seconds a refused port is retried in a sandbox that has long been running; 0 = not at all."""
    budget_per_hour: Count = 60
    """Wakes one grant may trigger per hour; 0 = no limit."""
    held_bytes: Annotated[int, Field(ge=1)] = 16384
    """Bytes of a waiting client that are read and held, so that its leaving is noticed."""


class WakePolicySettings(Group):
    """Which kinds of requests wake a paused sandbox; the others get ``wake_suppressed_by_policy``."""

    prefetch: bool = False
    """Whether a prefetch wakes (``Sec-Purpose: prefetch``, also ``Purpose`` and ``X-Moz``)."""
    preflight: bool = True
    """Whether a CORS preflight wakes (OPTIONS with Origin and Access-Control-Request-Method)."""
    head: bool = True
    """Whether HEAD wakes."""
    favicon: bool = True
    """Whether the icons that browsers ask for by themselves wake (``/favicon.ico``, ``/apple-touch-icon*``)."""
    monitors: bool = True
    """Whether requests of the monitors in ``monitor_agents`` wake."""
    monitor_agents: tuple[str, ...] = (
        "Better Stack",
        "Blackbox-Exporter",
        "DatadogSynthetics",
        "ELB-HealthChecker",
        "GoogleHC",
        "GoogleStackdriverMonitoring",
        "HetrixTools",
        "Pingdom",
        "Site24x7",
        "StatusCake",
        "Uptime-Kuma",
        "UptimeRobot",
        "kube-probe",
        "updown.io",
    )
    """Parts of the User-Agent, in any letter case, by which monitors are known."""


class CatalogSettings(Group):
    """How long records are believed without word from the control plane."""

    fresh: Annotated[float, Field(gt=0)] = 1.0
    """Seconds since the last heartbeat during which every record is served as it is."""
    stale_after: Annotated[float, Field(gt=0)] = 5.0
    """Seconds since the last heartbeat after which the control plane counts as silent."""
    stale_limit: Seconds = 60.0
    """Seconds since the last heartbeat up to which running sandboxes are served all the same."""
    absent_ttl: Seconds = 1.0
    """Seconds a "no such sandbox" is remembered."""
    max_entries: Annotated[int, Field(ge=1)] = 200_000
    """Records kept; the ones unused for longest go first."""

    @model_validator(mode="after")
    def _ordered(self) -> CatalogSettings:
        if not self.fresh <= self.stale_after:
            raise ValueError("fresh must not be longer than stale_after")
        return self


class AdmissionSettings(Group):
    """Room for connections, running exchanges and waiting ones."""

    connections: Count = 10_000
    """Client connections in all; 0 = no limit."""
    connections_per_address: Count = 0
    """Client connections per peer address; 0 = no limit (right behind a load balancer)."""
    in_flight_per_sandbox: Count = 2_000
    """Exchanges and tunnels running or waiting per sandbox; 0 = no limit."""
    in_flight_per_grant: Count = 0
    """Exchanges and tunnels running on one grant; 0 = no limit but the sandbox's."""
    waiting: Count = 5_000
    """Exchanges waiting for wakes in all; 0 = no limit."""
    waiting_per_sandbox: Count = 1_000
    """Exchanges waiting for one sandbox's wake; 0 = no limit."""
    waiting_per_grant: Count = 1_000
    """Exchanges waiting on one grant; 0 = no limit."""
    memory_bytes: Count | None = None
    """Resident bytes of a process above which new work is refused and the old goes on; 0 = no limit, unset = nine tenths of the container's limit (cgroup v2), shared by the workers."""


class DeadlineSettings(Group):
    """How long each side may take. All in seconds."""

    header: Seconds = 10.0
    """From the first byte of a request head (or the connection's start) to its last; 0 = any time."""
    idle: Seconds = 75.0
    """A kept-alive client connection without a request; 0 = any time."""
    body_stall: Seconds = 60.0
    """A request body or an answer that does not move because of the client, or that may have nobody to read it: its client has sent a FIN; 0 = any time."""
    connect: Annotated[float, Field(gt=0)] = 2.0
    """One attempt to connect to an app."""
    first_byte: Seconds = 300.0
    """From the request's last byte to the first byte of the app's answer; 0 = any time."""
    upstream_idle: Seconds = 15.0
    """A kept-alive connection to an app without a request; 0 = any time."""
    linger: Seconds = 2.0
    """Reading on after an answer that ends a connection, so that the answer is not lost to a reset; 0 = the least, which is 0.25."""


class LimitSettings(Group):
    """Sizes of what a client or an app may send."""

    header_bytes: Annotated[int, Field(ge=1024)] = 65536
    """Bytes of a head (request line and fields) from a client or an app."""
    header_count: Annotated[int, Field(ge=8)] = 128
    """Header fields of a head."""
    request_line: Annotated[int, Field(ge=1024)] = 16384
    """Bytes of a request line."""
    buffer_bytes: Annotated[int, Field(ge=4096)] = 65536
    """Bytes held for a peer that reads slowly before the other side is told to wait."""
    pipelined: Count = 32
    """Requests of one connection that are started in one go before others have their turn; 0 = no limit."""
    requests_per_connection: Count = 0
    """Requests served on one client connection before it is closed; 0 = no limit."""


class TcpSettings(Group):
    """Finding out that a client or an app has vanished without a word, however silent it may be."""

    keepalive_idle: Annotated[int, Field(ge=0, le=32767)] = 60
    """Seconds of silence after which the kernel asks a peer whether it is there; 0 = it never asks."""
    keepalive_interval: Annotated[int, Field(ge=1, le=32767)] = 15
    """Seconds between two such questions."""
    keepalive_count: Annotated[int, Field(ge=1, le=127)] = 4
    """Questions without an answer after which a connection to an app ends; with a user_timeout, that decides."""
    user_timeout: Annotated[float, Field(ge=0, le=86400)] = 120.0
    """Seconds for which a client, or either end of a WebSocket, may acknowledge nothing or take no byte before the connection ends; 0 = as long as the kernel tries, about 15 minutes."""


class UpstreamSettings(Group):
    """Connections to apps."""

    idle_per_route: Count = 32
    """Idle connections kept per incarnation and port; 0 = none is kept."""
    dials_per_route: Annotated[int, Field(ge=1)] = 64
    """Connection attempts under way at once per incarnation and port."""


class LogSettings(Group):
    """What is written down."""

    access: str = "-"
    """File for the JSON access log; "-" = standard output, empty = none."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity of the event log on standard error."""


class DrainSettings(Group):
    """Shutting down."""

    wait: Seconds = 0.0
    """Seconds between "not ready" and the end of accepting, for load balancers to notice."""
    timeout: Seconds = 30.0
    """Seconds exchanges under way may still take; 0 = they are cut at once."""
    waiters: Seconds = 5.0
    """Seconds waiting exchanges may still wait before they are answered ``edge_draining``."""
    tunnels: Seconds = 5.0
    """Seconds over which the closing of tunnels is spread."""


class Settings(Group):
    """All settings of one edge."""

    public_hostname: Hostname
    """Domain below which previews live: https://{PORT}-{LABEL}.{public_hostname}/."""
    public_scheme: Literal["http", "https"] = "https"
    """Scheme by which the outside reaches the edge; behind a TLS terminator that is https."""
    public_port: Port = 0
    """Port by which the outside reaches the edge; 0 = the scheme's own."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Peers whose X-Forwarded-For/-Proto/-Host are believed and appended to."""
    websocket_continuation: Literal["never", "same_origin"] = "never"
    """Whether the continuation cookie may authorise a WebSocket upgrade of the preview's own origin."""
    unauthenticated_preflight: Literal["refuse", "running"] = "refuse"
    """Whether a CORS preflight without any credential is forwarded to a sandbox that is known to run: the one exception to "no credential, no traffic"."""
    listen: ListenSettings = ListenSettings()
    control_plane: ControlPlaneSettings
    redis: RedisSettings = RedisSettings()
    tokens: TokenSettings = TokenSettings()
    cookie: CookieSettings
    wake: WakeSettings = WakeSettings()
    wake_policy: WakePolicySettings = WakePolicySettings()
    catalog: CatalogSettings = CatalogSettings()
    admission: AdmissionSettings = AdmissionSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    limits: LimitSettings = LimitSettings()
    tcp: TcpSettings = TcpSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    log: LogSettings = LogSettings()
    drain: DrainSettings = DrainSettings()

    @model_validator(mode="after")
    def _one_key_source(self) -> Settings:
        sources = (self.tokens.jwks_file, self.tokens.jwks_url)
        if all(sources) or not (any(sources) or self.tokens.hs256):
            raise ValueError(
                "tokens: give exactly one of jwks_file and jwks_url (or hs256 keys alone)"
            )
        return self
