"""Walks the published client: its public classes and methods, its command line; and calls any of them with
arguments that are made up from the signature.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import nullspace
from nullspace import cli


def classes() -> dict[str, type]:
    """The public classes that do something, synchronous ones, by name. Each module is looked into."""
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(nullspace.__path__):
        if module.name.startswith("_") or module.name in ("cli", "types", "errors", "client"):
            continue
        inside = vars(importlib.import_module(f"nullspace.{module.name}"))
        for name, one in inside.items():
            if not inspect.isclass(one) or one.__module__ != f"nullspace.{module.name}":
                continue
            if name.startswith("_") or issubclass(one, BaseException | enum.Enum):
                continue
            if methods(one):
                found[name] = one
    return found


def methods(of: type) -> list[str]:
    """Its public methods."""
    return sorted(
        name for name in dir(of) if not name.startswith("_") and callable(getattr(of, name))
    )


def everything() -> dict[str, list[str]]:
    """``Class.method`` of synchronous classes, with the names of the classes that have it (its async twin)."""
    found: dict[str, list[str]] = {}
    for name, one in sorted(classes().items()):
        for method in methods(one):
            found.setdefault(f"{name.removeprefix('Async')}.{method}", []).append(name)
    return found


def commands(
    group: click.Group | None = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """Every command of the command line, with its words."""
    for name, command in sorted((group or cli.main).commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def arguments(call: Callable[..., Any], known: dict[str, Any]) -> dict[str, Any]:
    """Something for every argument that has no default; what is known by its name as it is known."""
    made: dict[str, Any] = {}
    for name, one in inspect.signature(call).parameters.items():
        if name in known and (one.default is one.empty or name in ("base_url", "api_key")):
            made[name] = known[name]
        elif one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            made[name] = _made_up(name, str(one.annotation))
    return made


def _made_up(name: str, annotation: str) -> Any:
    if "int" in annotation and "str" not in annotation:
        return 1
    if "Callable" in annotation:
        return lambda *_: None
    if annotation.startswith(("dict", "Mapping")):
        return {}
    if annotation.startswith(("list", "Sequence")):
        return ["x"]
    if "Path" in annotation or name in ("local_path", "dest", "destination"):
        return str(Path("/nonexistent/x"))
    return "https://example.test/x" if "url" in name else "x"


def instances(sandbox: Any, client: Any) -> dict[str, Any]:
    """What methods are called on, by class: parts of a sandbox, and handles of things there are none of here."""
    made_of = nullspace.types
    volume = nullspace.Volume if "Async" not in type(sandbox).__name__ else nullspace.AsyncVolume
    prefix = "Async" if volume is nullspace.AsyncVolume else ""
    inside = vars(nullspace)
    unknown = volume(
        made_of.VolumeInfo(
            "vol_x", "x", None, 0, 0, 0, None, None, None, None, _first(made_of.VolumeStatus)
        ),
        client,
    )
    deployment = made_of.AgentDeploymentInfo(
        "ad_x", "x", _first(made_of.AgentDeploymentMode), _first(made_of.AgentDeploymentStatus)
    )
    found = {
        "Sandbox": sandbox,
        "Commands": sandbox.commands,
        "Files": sandbox.files,
        "Git": sandbox.git,
        "Process": sandbox.process,
        "Pty": sandbox.pty,
        "Desktop": sandbox.desktop,
        "DesktopStream": sandbox.desktop.stream,
        "CodeInterpreter": sandbox.code_interpreter,
        "Volume": unknown,
        "VolumeFiles": unknown.files,
        "AgentDeployment": inside[f"{prefix}AgentDeployment"](deployment, client),
    }
    return {f"{prefix}{name}": one for name, one in found.items()}


def _first(kind: Any) -> Any:
    return next(iter(kind))


def words_for(command: Any, known: dict[str, str]) -> list[str]:
    """Something for every argument and option that a command of the command line needs."""
    words: list[str] = []
    for one in command.params:
        if one.name in known or one.required:
            value = known.get(one.name) or _word(one.type)
            words += value.split(" ") if isinstance(one, click.Argument) else [one.opts[0], value]
    return words


def _word(kind: Any) -> str:
    if isinstance(kind, click.Choice):
        return str(getattr(kind.choices[0], "value", kind.choices[0]))
    number = isinstance(kind, click.types.IntParamType | click.types.FloatParamType)
    return "1" if number else "x"
