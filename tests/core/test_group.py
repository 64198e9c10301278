"""Groups of settings: frozen, strict about keys, and about the values that a bound does not check."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edge.core.group import Count, Group, Hostname, Port, Seconds, Secret

SECRET = "s" * 32


class Some(Group):
    """One field of each kind."""

    host: Hostname = "preview.example"
    secret: Secret | None = None
    seconds: Seconds = 0.0
    count: Count = 0
    port: Port = 0
    """The port."""


@pytest.mark.parametrize(
    "values",
    [
        {"host": "https://preview.example"},
        {"host": "preview.example:443"},
        {"host": "-a.example"},
        {"host": "a-.example"},
        {"host": "a" * 64 + ".example"},
        {"host": ""},
        {"secret": "s" * 31},
        {"secret": "replace-this-" + SECRET},
        {"seconds": -1},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"count": -1},
        {"port": -1},
        {"port": 65536},
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(values: dict[str, Any]) -> None:
    """A value that cannot be meant, and a key that is not known, are refused when they are read."""
    with pytest.raises(ValidationError):
        Some.model_validate(values)


def test_hostnames_are_compared_in_one_spelling() -> None:
    """Case and a trailing dot do not matter in DNS."""
    assert Some(host="Preview.Example.").host == "preview.example"


def test_groups_do_not_change() -> None:
    """They are frozen: what was checked at start stays true."""
    with pytest.raises(ValidationError):
        Some().port = 1  # type: ignore[misc]


def test_what_stands_below_a_field_describes_it() -> None:
    """The page of settings is compared with these words."""
    assert Some.model_fields["port"].description == "The port."


def test_secrets_are_not_shown() -> None:
    """Neither repr nor str tells a secret."""
    filled = Some.model_validate({"secret": SECRET})
    assert filled.secret is not None and filled.secret.get_secret_value() == SECRET
    assert SECRET not in repr(filled) + str(filled)
