"""The command line: every mistake is one line that says what to do and exit status 2, never a traceback."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge import __version__
from edge.cli import main
from tests.ops.programs import MODULE, PREVIEW_EDGE, Program, fetch, toml

SECRET = "correct-horse-battery-staple-0123456789"
LEAST: dict[str, Any] = {
    "public_hostname": "preview.example",
    "control_plane": {"token": SECRET, "url": "http://127.0.0.1:9"},
    "cookie": {"keys": [{"kid": "a", "secret": SECRET}]},
    "tokens": {"hs256": [{"kid": "k", "secret": SECRET}]},
    "listen": {"port": 0, "admin_port": 0},
    "log": {"access": "", "level": "error"},
}
FREE = ("--api-port", "0", "--edge-port", "0", "--admin-port", "0")


def config(folder: Path, **groups: Any) -> str:
    """A settings file with what is required, and changes."""
    file = folder / "edge.toml"
    merged = {
        name: LEAST.get(name, {}) | value if isinstance(value, dict) else value
        for name, value in (LEAST | groups).items()
    }
    file.write_text(toml(merged))
    return str(file)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command line is answered with."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    assert ended.value.code == 2, said
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("preview-edge: ")
    return said.err.removeprefix("preview-edge: ").rstrip("\n")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Relative paths, such as dev's data directory, shall not meet the developer's own.
    monkeypatch.chdir(tmp_path)


# --- Processes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [PREVIEW_EDGE, MODULE], ids=["script", "module"])
def test_both_ways_to_start_it(command: Sequence[str]) -> None:
    """``preview-edge`` and ``python -m edge`` are one program: its version, its help, its mistakes."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=Path(__file__).parents[1],
        )

    version = run("--version")
    assert (version.returncode, version.stdout) == (0, f"preview-edge, version {__version__}\n")
    wrong = run("serve", "--config", "no-such-file.toml")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    line = "preview-edge: no-such-file.toml: No such file or directory; check the path\n"
    assert wrong.stderr == line


def test_serve_check_and_health(tmp_path: Path) -> None:
    """One settings file for all three commands; port 0 takes a free one and prints it."""
    with socket.socket() as held:  # A port for the admin listener that `healthcheck` can know.
        held.bind(("127.0.0.1", 0))
        admin_port = held.getsockname()[1]
    file = config(tmp_path, listen={"port": 0, "admin_port": admin_port})
    assert run_here("check-config", file) == 0
    assert run_here("healthcheck", "--config", file) == 1
    with Program(tmp_path / "serve", "serve", "--config", file) as edge:
        said = edge.said()
        assert said == {"event": "listening", "port": said["port"], "admin_port": admin_port}
        assert said["port"] not in (0, 3001)
        assert fetch(f"http://127.0.0.1:{said['port']}/")[0] == 404
        assert run_here("healthcheck", "--config", file) == 0
        edge.signal(signal.SIGTERM)
        assert edge.ended() == 0
        assert edge.err == ""
    assert run_here("healthcheck", "--config", file) == 1


def run_here(*arguments: str) -> object:
    """The exit status of a command that does not serve."""
    try:
        main(list(arguments))
    except SystemExit as ended:
        return ended.code
    return 0


def test_settings_may_come_from_the_environment_alone(tmp_path: Path) -> None:
    """A container needs no file; PREVIEW_EDGE_CONFIG names one for those who have it."""
    file = config(tmp_path)
    with Program(
        tmp_path / "a",
        "serve",
        environ={"PREVIEW_EDGE_CONFIG": file, "PREVIEW_EDGE_LISTEN__ADMIN_HOST": "127.0.0.2"},
    ) as edge:
        edge.said()
        edge.signal(signal.SIGTERM)
        assert edge.ended() == 0
    environ = {
        "PREVIEW_EDGE_PUBLIC_HOSTNAME": "preview.example",
        "PREVIEW_EDGE_LISTEN__PORT": "0",
        "PREVIEW_EDGE_LISTEN__ADMIN_PORT": "0",
        "PREVIEW_EDGE_CONTROL_PLANE__TOKEN": SECRET,
        "PREVIEW_EDGE_CONTROL_PLANE__URL": "http://127.0.0.1:9",
        "PREVIEW_EDGE_TOKENS__HS256": json.dumps(LEAST["tokens"]["hs256"]),
        "PREVIEW_EDGE_COOKIE__KEYS": json.dumps(LEAST["cookie"]["keys"]),
    }
    with Program(tmp_path / "b", "serve", environ=environ) as edge:
        edge.said()
        edge.signal(signal.SIGINT)
        assert edge.ended() == 0


def test_output_that_nobody_reads_is_no_traceback() -> None:
    """``preview-edge --help | head -0``: silence."""
    reading, writing = socket.socketpair()
    reading.close()
    with writing:
        done = subprocess.run(
            [*MODULE, "--help"], stdout=writing, stderr=subprocess.PIPE, timeout=50, check=False
        )
    assert done.stderr == b""


# --- Mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'; `preview-edge --help` lists"),
        (["sevre"], "No such command 'sevre'"),
        (
            ["dev", "--windw", "1"],
            "No such option '--windw'. Did you mean '--window'? `preview-edge d",
        ),
        (["dev", "--edge-port", "70000"], "Invalid value for '--edge-port': 70000 is not in the"),
        (["dev", "--edge-port", "x"], "Invalid value for '--edge-port': 'x' is not a valid"),
        (["dev", "--edge-port"], "Option '--edge-port' requires an argument"),
        (["dev", "--workers", "0"], "Invalid value for '--workers': 0 is not in the range"),
        (["dev", "--edges", "0"], "Invalid value for '--edges': 0 is not in the range 1<=x<=16"),
        (["dev", "--edges", "17"], "Invalid value for '--edges': 17 is not in the range 1<=x<="),
        (["dev", "--redis-url", "localhost"], "--redis-url: must begin with redis:// or red"),
        (["dev", "--edges", "2", "--edge-port", "65535"], "--edge-port: 2 edges take as many por"),
        (["dev", "--window", "soon"], "Invalid value for '--window': 'soon' is not a valid"),
        (["dev", "--window", "0"], "--window: must be more than 0"),
        (["dev", "--window", "nan"], "--window: must be a finite number"),
        (["dev", "--public-hostname", "http://x"], "--public-hostname: must be a DNS name such as"),
        (["dev", "--host", "0.0.0.0"], "--host: 0.0.0.0 is not a loopback address"),
        (["dev", "--host", "example.org"], "--host: example.org is not a loopback address"),
        (["dev", "--data-dir", "/dev/null/x"], "--data-dir: /dev/null/x cannot be made: Not a dir"),
        (["dev", "--api-port", "4711", "--edge-port", "4711"], "--api-port, --edge-port and --ad"),
        (["dev", "extra"], "Got unexpected extra argument (extra); `preview-edge dev --help`"),
        (["serve"], "public_hostname: missing; set it in the file, or PREVIEW_EDGE_PUBLIC_HOSTNA"),
        (["serve", "--config", "."], ".: Is a directory; check the path"),
        (["serve", "--config", "none.toml"], "none.toml: No such file or directory; check the"),
        (["healthcheck"], "public_hostname: missing; set it in the file, or PREVIEW_EDGE_PUBLIC"),
        (["check-config"], "Missing argument 'FILE'; `preview-edge check-config --help` lists"),
        (["check-config", "none.toml"], "none.toml: No such file or directory; check the path"),
        (["check-config", "a", "b"], "Got unexpected extra argument (b)"),
        (["worker"], "Missing option '--status-fd'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong and what to do, and nothing was started."""
    if arguments[0] == "dev":  # Free ports first, so that nobody else's port decides.
        arguments = ["dev", *FREE, *arguments[1:]]
    assert complaint(capsys, *arguments).startswith(said)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"listen": {"prot": 1}}, "listen.prot: unknown setting; did you mean listen.port?"),
        ({"listn": {"port": 1}}, "listn: unknown setting; did you mean listen"),
        ({"wake": {"window": 0}}, "wake.window: must be more than 0"),
        ({"public_scheme": "gopher"}, "public_scheme: must be one of 'http' or 'https'"),
        ({"control_plane": {"token": "short"}}, "control_plane.token: must have at least 32"),
    ],
)
@pytest.mark.parametrize(
    "command", [["check-config"], ["serve", "--config"]], ids=["check", "serve"]
)
def test_a_wrong_setting(
    command: list[str],
    groups: dict[str, Any],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """File, setting, what is wrong; and the nearest known name."""
    file = config(tmp_path, **groups)
    assert complaint(capsys, *command, file).startswith(f"{file}: {said}")


def test_settings_that_do_not_fit_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is right by itself, and an edge cannot be built of them."""
    keys = [{"kid": "a", "secret": SECRET}, {"kid": "a", "secret": SECRET}]
    said = complaint(capsys, "check-config", config(tmp_path, cookie={"keys": keys}))
    assert said.startswith("cookie.keys") and SECRET not in said


@pytest.mark.parametrize(
    ("redis", "said"),
    [
        ({"url": "http://u:hunter2@h"}, "redis.url: must begin with redis:// or rediss://"),
        ({"url": "redis://u:hunter2@h:63x"}, "redis.url: must be like redis://"),
        ({"url": "redis://u:hunter2@"}, "redis.url: must name a host"),
        ({"url": "redis://u:hunter2@h/x"}, "redis.url: what follows the host must be the number"),
        ({"url": "redis://u:hunter2@h?ssl_cert_reqs=none"}, "redis.url: takes no options"),
        ({"url": "redis://u:hunter2@h/3", "cluster": True}, "redis: a Cluster has only"),
        ({"url": "redis://u:hunter2@h", "sentinels": ["h"]}, "redis: sentinels: each must be"),
        ({"url": "redis://u:hunter2@h", "ca_file": "ca.pem"}, "redis: ca_file is of no use"),
        (
            {"url": "rediss://u:hunter2@h", "ca_file": "none.pem"},
            "redis.ca_file: none.pem: No such",
        ),
        ({"url": "rediss://u:hunter2@h", "ca_file": __file__}, "redis.ca_file: "),
        ({"sentinels": ["h:1"], "sentinel_password": "hunter2"}, "redis: url is missing"),
    ],
)
def test_a_redis_that_can_never_be_reached(
    redis: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and the password is not in it."""
    file = config(tmp_path, redis=redis)
    line = complaint(capsys, "check-config", file)
    assert line.removeprefix(f"{file}: ").startswith(said) and "hunter2" not in line


def test_a_wrong_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told by the variable's name, for a command that has no file too."""
    monkeypatch.setenv("PREVIEW_EDGE_LISTEN__PROT", "1")
    line = "environment variable PREVIEW_EDGE_LISTEN__PROT: unknown setting; did you mean PREVIEW_"
    assert complaint(capsys, "check-config", config(tmp_path)).startswith(line)
    assert complaint(capsys, "dev", *FREE).startswith(line)


def test_a_key_that_is_no_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NULLSPACE_API_KEY goes into a header; and it is not repeated."""
    monkeypatch.setenv("NULLSPACE_API_KEY", "two words")
    said = complaint(capsys, "dev", *FREE)
    assert "NULLSPACE_API_KEY must be printable ASCII" in said and "two words" not in said


@pytest.mark.parametrize("which", ["port", "admin_port"])
def test_serve_on_a_taken_port(
    which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The setting, the address, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = config(tmp_path, listen={"port": 0, "admin_port": 0} | {which: port})
        said = complaint(capsys, "serve", "--config", file)
    assert said.startswith(f"listen.{which}: 127.0.0.1:{port} is in use; stop what listens there")


@pytest.mark.parametrize("option", ["--api-port", "--edge-port", "--admin-port"])
def test_dev_on_a_taken_port(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Told by the option, before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = complaint(capsys, "dev", *FREE, option, str(port))
    assert said.startswith(f"{option}: 127.0.0.1:{port} is in use; stop what listens there")
    assert not Path(".preview-edge").exists()


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Who names none wants to know which there are."""
    with pytest.raises(SystemExit) as ended:
        main([])
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == ""
    for command in ("dev", "serve", "check-config", "healthcheck"):
        assert f"\n  {command} " in said.err
    assert "worker" not in said.err.partition("Commands:")[2]


def test_a_worker_by_hand() -> None:
    """It wants what only a supervisor gives: one line."""
    done = subprocess.run(
        [sys.executable, "-m", "edge", "worker", "--status-fd", "2"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("preview-edge: worker: started by `serve`, never by hand")


def test_the_file_that_comes_with_the_sources_can_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """config/edge.toml needs only its secrets; those that everybody can read there are refused."""
    file = Path(__file__).parents[1] / "config" / "edge.toml"
    assert run_here("check-config", str(file)) == 2
    said = capsys.readouterr().err
    assert (
        "control_plane.token: is the example's, no secret; `openssl rand -hex 32` makes one" in said
    )
    monkeypatch.setenv("PREVIEW_EDGE_CONTROL_PLANE__TOKEN", SECRET)
    monkeypatch.setenv("PREVIEW_EDGE_COOKIE__KEYS", json.dumps(LEAST["cookie"]["keys"]))
    assert run_here("check-config", str(file)) == 0, capsys.readouterr().err
