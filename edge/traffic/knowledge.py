"""What the edge knows at a moment, as `decide` reads it: none of it is asked for on the spot."""

from __future__ import annotations

from collections.abc import Callable

from edge.core.credentials import Expectation, Keys
from edge.core.errors import EdgeError
from edge.core.head import Head
from edge.core.policy import WakePolicy, is_bare_preflight
from edge.core.records import GrantRecord, Missing, SandboxRecord
from edge.core.settings import Settings
from edge.core.target import Target, target_reader
from edge.core.token_cache import TokenCache
from edge.wake.admission import Admission
from edge.wake.catalog import Catalog


class Knowledge:
    """The `View` of `edge.core.decide`."""

    def __init__(
        self,
        settings: Settings,
        *,
        keys: Callable[[], Keys],
        tokens: TokenCache,
        catalog: Catalog,
        admission: Admission,
    ) -> None:
        self._keys = keys
        self.tokens = tokens
        self.expect = Expectation(
            settings.tokens.issuer, settings.public_hostname, settings.tokens.max_bytes
        )
        self.websocket_cookie = settings.websocket_continuation == "same_origin"
        self.target: Callable[[bytes], Target | EdgeError] = target_reader(settings.public_hostname)
        self.sandbox: Callable[[str], SandboxRecord | Missing] = catalog.sandbox
        self.grant: Callable[[str], GrantRecord | Missing] = catalog.grant
        self.has_room: Callable[[str], bool] = admission.has_room
        policy = WakePolicy(settings.wake_policy)
        opened = settings.unauthenticated_preflight == "running"
        self.passes_bare: Callable[[Head], bool] = is_bare_preflight if opened else _nothing
        self.sleeps_through: Callable[[Head], str | None] = policy.sleeps_through

    @property
    def keys(self) -> Keys:
        """The keys believed at this moment."""
        return self._keys()


def _nothing(_: Head) -> bool:
    return False
