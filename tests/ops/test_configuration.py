"""Reading settings: the file, the environment over it, and one helpful line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from edge.core.settings import Settings
from edge.ops.configuration import (
    MAX_FILE,
    ConfigurationError,
    load_settings,
    setting_names,
    variable_of,
)

SECRET = "correct-horse-battery-staple-0123456789"
LEAST = f"""
public_hostname = "preview.example"
[control_plane]
token = "{SECRET}"
[tokens]
jwks_url = "http://127.0.0.1:1/jwks"
[cookie]
keys = [{{kid = "a", secret = "{SECRET}"}}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file with what is required."""
    path = tmp_path / "edge.toml"
    path.write_text(LEAST)
    return path


def complaint(file: Path | None, environ: dict[str, str] | None = None) -> str:
    """What loading complains about."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, environ or {})
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_file_and_environment_together(file: Path) -> None:
    """The environment wins over the file, the file over the defaults."""
    loaded = load_settings(
        file,
        {
            "PREVIEW_EDGE_LISTEN__PORT": "4001",
            "PREVIEW_EDGE_PUBLIC_HOSTNAME": "other.example",
            "PREVIEW_EDGE_TRUSTED_PROXIES": '["10.0.0.0/8"]',
            "PREVIEW_EDGE_CONFIG": "/ignored",
            "PATH": "/bin",
        },
    )
    assert (loaded.listen.port, loaded.public_hostname) == (4001, "other.example")
    assert str(loaded.trusted_proxies[0]) == "10.0.0.0/8"
    assert loaded.listen.admin_port == 3002


def test_the_environment_alone_is_enough() -> None:
    """A container needs no file."""
    loaded = load_settings(
        None,
        {
            "PREVIEW_EDGE_PUBLIC_HOSTNAME": "preview.example",
            "PREVIEW_EDGE_CONTROL_PLANE__TOKEN": SECRET,
            "PREVIEW_EDGE_TOKENS__JWKS_FILE": "/keys.json",
            "PREVIEW_EDGE_COOKIE__KEYS": json.dumps([{"kid": "a", "secret": SECRET}]),
        },
    )
    assert loaded.tokens.jwks_file == Path("/keys.json")
    assert loaded.cookie.keys[0].secret.get_secret_value() == SECRET


def test_every_setting_has_a_variable_of_its_own() -> None:
    """No two settings share an environment variable."""
    names = [name for name, _ in setting_names(Settings)]
    assert len({variable_of(name) for name in names}) == len(names) > 50


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        ("[listen]\nprot = 1", "listen.prot: unknown setting; did you mean listen.port?"),
        (
            "[wake]\nadmin_port = 1",
            "wake.admin_port: unknown setting; did you mean listen.admin_port?",
        ),
        ("[listne]\nport = 1", "listne: unknown setting; did you mean"),
        ("[qqq]\nzzz = 1", "qqq: unknown setting; docs/settings.md lists all settings"),
        ('[listen]\nport = "x"', 'listen.port: must be a whole number (got "x")'),
        ("[listen]\nport = 65536", "listen.port: must be at most 65535 (got 65536)"),
        ("[listen]\nworkers = 0", "listen.workers: must be at least 1 (got 0)"),
        ("[wake]\nwindow = 0", "wake.window: must be more than 0"),
        ("[wake]\nwindow = nan", "wake.window: must be"),
        ("[wake]\nwindow = inf", "wake.window: must be a finite number"),
        (
            '[log]\nlevel = "loud"',
            "log.level: must be one of 'debug', 'info', 'warning' or 'error'",
        ),
        ("[log]\naccess = 1", "log.access: must be a text (got 1)"),
        ("[catalog]\nfresh = 9", "catalog: fresh must not be longer than stale_after"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_one_line(file: Path, addition: str, said: str) -> None:
    """Which setting, what is wrong with it, and the nearest right one."""
    file.write_text(f"{LEAST}\n{addition}\n")
    assert complaint(file).startswith(f"{file}: {said}")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LISTEN__PROT", "1", "unknown setting; did you mean PREVIEW_EDGE_LISTEN__PORT?"),
        ("LISTEN__PORT", "x", 'must be a whole number (got "x")'),
        ("TRUSTED_PROXIES", "10.0.0.0/8", "must be a JSON list"),
        ("TRUSTED_PROXIES", "[" * 100_000, "must be a JSON list"),
        ("CONTROL_PLANE__TOKEN", "short", "must have at least 32 characters"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    file: Path, variable: str, value: str, said: str
) -> None:
    """Who set a variable searches for its name, not for a line of a file."""
    line = complaint(file, {f"PREVIEW_EDGE_{variable}": value})
    assert line.startswith(f"environment variable PREVIEW_EDGE_{variable}: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"public_hostname = ", "not TOML: "),
        (b"\xff\xfe", "not UTF-8"),
        (b"a = " + b"[" * 100_000, "not TOML"),
        (b"#" * (MAX_FILE + 1), "too large for a settings file"),
        (b"listen = 3\n", "listen: must be a table of settings"),
        (b"", "public_hostname: missing; set it in the file, or PREVIEW_EDGE_PUBLIC_HOSTNAME"),
    ],
    ids=["cut off", "encoding", "nesting", "size", "no table", "empty"],
)
def test_a_file_that_is_no_settings_file(tmp_path: Path, text: bytes, said: str) -> None:
    """Whatever the file holds, the answer is one line."""
    path = tmp_path / "edge.toml"
    path.write_bytes(text)
    assert complaint(path).startswith(f"{path}: {said}")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing files and directories."""
    assert complaint(tmp_path / "none").endswith("No such file or directory; check the path")
    assert complaint(tmp_path).endswith("Is a directory; check the path")


def test_a_value_of_the_environment_below_a_table_that_is_none(tmp_path: Path) -> None:
    """The file's mistake is told; the overlay does not crash over it."""
    path = tmp_path / "edge.toml"
    path.write_text("listen = 3\n")
    line = complaint(path, {"PREVIEW_EDGE_LISTEN__PORT": "1"})
    assert line.startswith(f"{path}: listen: must be a table of settings")


@pytest.mark.parametrize(
    "text",
    [
        LEAST.replace(f'token = "{SECRET}"', f'token = ["{SECRET}"]'),
        LEAST.replace("keys =", "kesy ="),
        LEAST.replace(f'"{SECRET}"}}', f'"{SECRET[:20]}"}}'),
        LEAST.replace("[cookie]", f'[[cookie]]\nx = "{SECRET}"'),
        f'control_plane = "{SECRET}"',
    ],
)
def test_no_complaint_repeats_a_secret(tmp_path: Path, text: str) -> None:
    """A line in a terminal or a log is no place for a token, not even a refused one."""
    path = tmp_path / "edge.toml"
    path.write_text(text)
    assert SECRET[:20] not in complaint(path)


@given(st.text(max_size=60))
@budget(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_text_is_settings_or_one_line(tmp_path: Path, text: str) -> None:
    """No file content gets past the error we promise."""
    path = tmp_path / "edge.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    complaint(path)
