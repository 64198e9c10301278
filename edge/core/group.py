"""What every group of settings is, and the kinds of values that are checked by more than a bound."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

_HOSTNAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


def _hostname(value: str) -> str:
    value = value.lower().rstrip(".")
    if not _HOSTNAME.fullmatch(value):
        raise ValueError("must be a DNS name such as preview.example, without scheme or port")
    return value


def _secret_length(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < 32:
        raise ValueError("must have at least 32 characters; `openssl rand -hex 32` makes one")
    if value.get_secret_value().startswith("replace-this"):
        # Anybody can read it in config/edge.toml.
        raise ValueError("is the example's, no secret; `openssl rand -hex 32` makes one")
    return value


Hostname = Annotated[str, AfterValidator(_hostname)]
Secret = Annotated[SecretStr, AfterValidator(_secret_length)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Group(BaseModel):
    """A frozen group of settings that knows no keys but its own."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
