"""Reading settings: a TOML file, over it the environment, and errors a person can act on.

A setting ``listen.port`` is ``port = 3001`` below ``[listen]`` in the file and ``PREVIEW_EDGE_LISTEN__PORT``
in the environment, which wins. Lists are written as JSON there. No error text repeats a value of a secret.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from edge.core.group import Group
from edge.core.settings import Settings

PREFIX = "PREVIEW_EDGE_"
CONFIG_VARIABLE = "PREVIEW_EDGE_CONFIG"
"""Names the settings file where no ``--config`` does; it is no setting itself."""

MAX_FILE = 1 << 20
"""Bytes of a settings file that are read: who names a device or a core dump gets an error, not a hang."""


class ConfigurationError(Exception):
    """Settings that cannot be used. The message is one line: which, what is wrong, what to do."""


def load_settings(file: Path | None, environ: Mapping[str, str]) -> Settings:
    """Settings of ``file`` (None = no file) overlaid by ``environ``. Raises `ConfigurationError`."""
    tree = _read(file) if file is not None else {}
    names = dict(setting_names(Settings))
    from_environment = dict(_overlay(tree, environ, names))
    try:
        return Settings.model_validate(tree)
    except ValidationError as e:
        raise ConfigurationError(_first(e, file, from_environment, names)) from None


def setting_names(group: type[Group], above: str = "") -> Iterator[tuple[str, bool]]:
    """Every setting as a dotted name, and whether it is a list (of values or of tables)."""
    for name, field in group.model_fields.items():
        dotted = f"{above}{name}"
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Group):
            yield from setting_names(kind, f"{dotted}.")
        else:
            yield dotted, get_origin(kind) is tuple


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.replace(".", "__").upper()


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise ConfigurationError(f"{file}: too large for a settings file; check the path")
        return tomllib.loads(text.decode())
    except OSError as e:
        raise ConfigurationError(f"{file}: {e.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: not UTF-8; a settings file is TOML text") from None
    except tomllib.TOMLDecodeError as e:
        raise ConfigurationError(f"{file}: not TOML: {e}") from None
    except RecursionError:
        raise ConfigurationError(f"{file}: not TOML: nested too deeply") from None


def _overlay(
    tree: dict[str, Any], environ: Mapping[str, str], names: Mapping[str, bool]
) -> Iterator[tuple[str, str]]:
    """Put the environment's values into ``tree``; yields each setting's name and variable."""
    by_variable = {variable_of(name): name for name in names}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        name = by_variable.get(variable)
        if name is None:
            raise ConfigurationError(
                f"environment variable {variable}: {_unknown(variable, by_variable)}"
            )
        value: Any = environ[variable]
        if names[name]:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ConfigurationError(
                    f'environment variable {variable}: must be a JSON list such as ["..."]'
                ) from None
        _put(tree, name, value)
        yield name, variable


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        inner = tree.setdefault(group, {})
        if not isinstance(inner, dict):
            return  # The file has no table there, which is an error of its own.
        tree = inner
    tree[last] = value


def _first(
    e: ValidationError,
    file: Path | None,
    from_environment: Mapping[str, str],
    names: Mapping[str, bool],
) -> str:
    """One line for the first error; what is missing comes last: a misspelt name may be the cause."""
    errors = e.errors(include_url=False)
    order = {"extra_forbidden": 0, "missing": 2}
    error = min(errors, key=lambda error: order.get(error["type"], 1))
    name = _dotted(error)
    variable = from_environment.get(name)
    if variable is not None:
        where = f"environment variable {variable}"
    else:
        where = f"{file}: {name}" if file is not None and name else str(file or name or "settings")
    more = f" ({len(errors) - 1} more after this one)" if len(errors) > 1 else ""
    return f"{where}: {_sentence(error, name, names)}{more}"


def _dotted(error: ErrorDetails) -> str:
    """``cookie.keys[0].kid`` for ("cookie", "keys", 0, "kid")."""
    name = ""
    for part in error["loc"]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "a text",
    "bool": "true or false",
    "tuple": "a list",
    "model": "a table of settings",
    "path": "a path",
    "ip": "a network such as 10.0.0.0/8",
}


def _sentence(error: ErrorDetails, name: str, names: Mapping[str, bool]) -> str:
    """What is wrong and what to do."""
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown(name, names)
    if kind == "missing":
        return f"missing; set it in the file, or {variable_of(name)} in the environment"
    context = error.get("ctx", {})
    got = _shown(error["input"], name)
    match kind:
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
            bound = next(f"{words[key]} {context[key]}" for key in words if key in context)
            return f"must be {bound}{got}"
        case "finite_number":
            return f"must be a finite number{got}"
        case "literal_error":
            return f"must be one of {context['expected']}{got}"
        case "too_short":
            return f"needs at least {context['min_length']} of them"
        case "value_error":
            return f"{context['error']}{got}"
    for prefix, words_for_type in _TYPES.items():
        if kind.startswith(prefix):
            return f"must be {words_for_type}{got}"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}{got}"


_SECRET_WORDS = ("token", "secret", "password", "keys", "hs256", "control_plane", "redis.url")


def _shown(value: object, name: str) -> str:
    """`` (got 7)``, for plain values of settings that hold no secret."""
    if not isinstance(value, str | int | float) or not name:
        return ""
    if any(word in name for word in _SECRET_WORDS):
        return ""
    text = json.dumps(value)
    return f" (got {text if len(text) <= 60 else text[:57] + '...'})"


def _unknown(name: str, known: Mapping[str, object]) -> str:
    nearest = _nearest(name, known)
    hint = f"did you mean {nearest}?" if nearest else "docs/settings.md lists all settings"
    return f"unknown setting; {hint}"


def _nearest(name: str, known: Mapping[str, object]) -> str | None:
    """The known name most like ``name``: by its whole, else by its last part (the wrong group)."""
    groups = {candidate.rpartition(".")[0] for candidate in known} - {""}
    whole = difflib.get_close_matches(name, [*known, *groups], n=1, cutoff=0.75)
    if whole:
        return whole[0]
    last = name.rpartition(".")[2]
    by_last = {candidate.rpartition(".")[2]: candidate for candidate in reversed(list(known))}
    part = difflib.get_close_matches(last, by_last, n=1, cutoff=0.75)
    return by_last[part[0]] if part else None
