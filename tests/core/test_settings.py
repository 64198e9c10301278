"""Settings: bounds, defaults, and a page that says the same as the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from edge.core.group import Group
from edge.core.settings import HmacKey, Settings

SECRET = "s" * 32
LEAST: dict[str, Any] = {
    "public_hostname": "preview.example",
    "control_plane": {"token": SECRET},
    "tokens": {"jwks_url": "http://127.0.0.1:1/jwks"},
    "cookie": {"keys": [{"kid": "a", "secret": SECRET}]},
}


def rows(group: type[Group] = Settings, above: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting as docs/settings.md has to list it: name, default, meaning. Top level first."""
    nested = []
    for name, field in group.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Group):
            nested.append((kind, f"{above}{name}."))
            continue
        meaning = " ".join((field.description or "").split())
        yield f"{above}{name}", shown(field.default), meaning
    for kind, prefix in nested:
        yield from rows(kind, prefix)


def shown(default: object) -> str:
    """A default as TOML, in code marks; words for none."""
    match default:
        case _ if default is PydanticUndefined:
            return "required"
        case None:
            return "none"
        case tuple():
            return "the list below" if default else "`[]`"
        case str():
            return f'`"{default}"`'
        case _:
            return f"`{default}`"


def settings(**changes: Any) -> Settings:
    """The least settings there can be, with changes."""
    return Settings.model_validate(LEAST | changes)


@pytest.mark.parametrize(("name", "default", "meaning"), list(rows()), ids=lambda value: value[:40])
def test_every_setting_is_documented(name: str, default: str, meaning: str) -> None:
    """docs/settings.md has a row with the name, the default and the very words of the code."""
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert meaning, f"{name} has no docstring"
    assert f"| `{name}` | {default} | {meaning} |" in page.read_text().splitlines()


def test_no_row_is_left_of_a_setting_that_is_gone() -> None:
    """docs/settings.md documents nothing that does not exist."""
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    listed = {
        line.split("`")[1] for line in page.read_text().splitlines() if line.startswith("| `")
    }
    assert listed == {name for name, _, _ in rows()}


def test_the_monitors_that_are_known_are_listed() -> None:
    """docs/settings.md names each of them and no other, in their order."""
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    listed = page.partition("The monitors known by default: ")[2].partition(".\n\n")[0]
    assert tuple(" ".join(listed.split()).split(", ")) == settings().wake_policy.monitor_agents


def test_the_least_settings_are_enough() -> None:
    """Four required settings; everything else has a default within its own bounds."""
    filled = settings()
    assert Settings.model_validate(filled.model_dump()) == filled


@pytest.mark.parametrize(
    "changes",
    [
        {"public_scheme": "ftp"},
        {"public_port": 65536},
        {"trusted_proxies": ["10.0.0.0/33"]},
        {"websocket_continuation": "always"},
        {"listen": {"workers": 0}},
        {"listen": {"port": -1}},
        {"control_plane": {"token": "short"}},
        {"control_plane": {"token": "x" * 40, "edge_id": "x" * 251}},
        {"redis": {"cluster": True}},
        {"cookie": {"keys": []}},
        {"tokens": {}},
        {"tokens": {"jwks_url": "http://a", "jwks_file": "/b"}},
        {"wake": {"window": 0}},
        {"catalog": {"fresh": 6.0}},
        {"limits": {"header_bytes": 1}},
        {"log": {"level": "chatty"}},
        {"drain": {"timeout": -1}},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(changes: dict[str, Any]) -> None:
    """A value out of bounds is refused when it is read, not when it first hurts."""
    with pytest.raises(ValidationError):
        settings(**changes)


def test_secrets_are_not_shown() -> None:
    """Neither repr nor str of any group tells a secret."""
    filled = settings(tokens={"hs256": [{"kid": "k", "secret": SECRET}]})
    assert SECRET not in repr(filled) + str(filled) + repr(HmacKey(kid="k", secret=SECRET))  # type: ignore[arg-type]


def test_shared_secrets_alone_are_a_key_source() -> None:
    """A fleet may verify with configured HS256 keys and no key set at all."""
    assert settings(tokens={"hs256": [{"kid": "k", "secret": SECRET}]}).tokens.hs256[0].kid == "k"
