"""Imports go one way, and ``core`` stays free of clocks, sockets and loops."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "edge").rglob("*.py"))

ALLOWED = {
    "__init__": ("edge.core.redact",),
    "core": ("edge.core",),
    "state": ("edge.core", "edge.state"),
    "wake": ("edge.core", "edge.state", "edge.wake"),
    "traffic": ("edge.core", "edge.state.port", "edge.wake", "edge.traffic"),
    "ops": ("edge.core", "edge.state", "edge.wake", "edge.traffic", "edge.ops"),
    "commands": ("edge.core", "edge.state", "edge.wake", "edge.ops", "edge.commands"),
    "cli": ("edge.core", "edge.ops", "edge.commands", "edge.cli"),
    "appliance": (
        "edge.core",
        "edge.state.wire",
        "edge.state.port",
        "edge.state.keyfiles",
        "edge.state.redis",
        "edge.appliance",
    ),
}
"""Which modules (by prefix) each room may import; `edge` itself, for the version, may be used by all."""

IMPURE = frozenset(
    "aiohttp asyncio concurrent http httptools multiprocessing os pathlib random secrets selectors "
    "signal socket ssl subprocess tempfile threading time urllib.request uvloop".split()
)
"""What core may not import. (Settings name pathlib's Path as a type; they open nothing.)"""

MAY_NAME_PATHS = frozenset({"settings.py", "redis_settings.py"})


def imports_of(path: Path) -> list[str]:
    """The dotted names a module imports anywhere in its text, `from a import b` as ``a.b``."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def room_of(path: Path) -> str:
    """The room a module lives in; the command line is ``cli.py`` and ``__main__.py``."""
    parts = path.relative_to(ROOT / "edge").parts
    return parts[0] if len(parts) > 1 else {"__main__.py": "cli"}.get(parts[0], parts[0][:-3])


def forbidden_imports(path: Path) -> list[str]:
    """The imports of a module that its room does not allow."""
    room = room_of(path)
    allowed = ALLOWED.get(room, ())
    inside = [name for name in imports_of(path) if name == "edge" or name.startswith("edge.")]
    wrong = [
        name
        for name in inside
        if name not in ("edge", "edge.__version__")
        and not any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed)
    ]
    if room == "core":
        for name in imports_of(path):
            top = name.split(".")[0]
            if top == "pathlib" and path.name in MAY_NAME_PATHS:
                continue
            if top in IMPURE or name.startswith("urllib.request"):
                wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    """A module imports only what its room allows."""
    assert forbidden_imports(path) == []


def test_a_wrong_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself sees an import against the direction, and a clock in core."""
    room = tmp_path / "edge" / "core"
    room.mkdir(parents=True)
    bad = room / "bad.py"
    bad.write_text("import time\nfrom edge.traffic import flow\nfrom edge.core import errors\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert forbidden_imports(bad) == ["edge.traffic.flow", "time"]


def test_rooms_are_all_known() -> None:
    """A new folder under edge/ needs a row in the table before anything may import."""
    rooms = {room_of(path) for path in MODULES}
    assert rooms <= ALLOWED.keys()


def test_the_public_functions_are_light() -> None:
    """A program that only wants to redact imports a little of the standard library, and nothing of others."""
    script = (
        "import sys; before = set(sys.modules); import edge; "
        "print(edge.redact_preview_url('http://x/?edge_token=y'), edge.redact_preview_token('y')); "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    shown, loaded = said.stdout.splitlines()
    assert shown == "http://x/?edge_token=<redacted> <redacted>"
    assert {"edge"} <= set(loaded.split()) <= {"edge"} | sys.stdlib_module_names
    assert not {"asyncio", "http", "ssl", "logging"} & set(loaded.split())
