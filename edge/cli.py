"""The command line. Whatever a person got wrong is answered with one line and exit status 2."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

import click

from edge import __version__
from edge.commands.dev import Dev
from edge.commands.keys_cli import keys
from edge.commands.operator import OperatorError
from edge.commands.operator_cli import operator
from edge.commands.probe import alive
from edge.commands.shared import REDIS_VARIABLE, Options
from edge.commands.token_cli import token
from edge.core.redact import redact_text
from edge.core.settings import Settings
from edge.ops.configuration import CONFIG_VARIABLE, ConfigurationError, load_settings
from edge.ops.process import StartError, run
from edge.ops.serve import serve as serve_edge
from edge.ops.serve import work
from edge.ops.server import build_edge

PORT = click.IntRange(0, 65535)
CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    metavar="FILE",
    help="Settings file (TOML). Without one, all settings come from the environment.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="preview-edge")
def cli() -> None:
    """Front door of sandboxes' preview URLs, which wakes the ones that sleep."""


@cli.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Loopback address for all listeners."
)
@click.option(
    "--api-port", type=PORT, default=3000, show_default=True, help="Control plane; 0 = a free one."
)
@click.option(
    "--edge-port", type=PORT, default=3001, show_default=True, help="Edge; 0 = a free one."
)
@click.option(
    "--admin-port",
    type=PORT,
    show_default="3001 + edges",
    help="Edge's admin; 0 = a free one.",
)
@click.option(
    "--public-hostname", default="localhost", show_default=True, help="Domain of the previews."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".preview-edge"),
    show_default=True,
    help="Where sandboxes, their state and the access log live; the only thing that remains.",
)
@click.option("--demo/--no-demo", default=True, show_default=True, help="Start a demo sandbox.")
@click.option(
    "--window", type=float, default=20.0, show_default=True, help="Wake window in seconds."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes of an edge, behind one port.",
)
@click.option(
    "--edges",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="A fleet of that many, each with the next port.",
)
@click.option(
    "--redis-url",
    envvar=REDIS_VARIABLE,
    show_envvar=True,
    metavar="URL",
    help="Redis or Valkey between control plane and edges. Without it edges follow the control plane over HTTP.",
)
@click.option(
    "--isolation",
    type=click.Choice(["shared", "netns"]),
    default="shared",
    show_default=True,
    help="netns: a network of its own for each sandbox (Linux).",
)
def dev(admin_port: int | None, **options: Any) -> None:
    """Control plane, edge (or several) and a demo sandbox on this machine.

    The API key is taken from NULLSPACE_API_KEY, or made and printed.
    """
    if admin_port is None:
        admin_port = 3001 + options["edges"]  # behind the edges, where they have their usual ports
    api_key = os.environ.get("NULLSPACE_API_KEY") or f"nsk_{secrets.token_hex(16)}"
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise click.UsageError("NULLSPACE_API_KEY must be printable ASCII without blanks")
    settled = Options(api_key=api_key, admin_port=admin_port, **options)
    sys.exit(run(Dev(settled, os.environ).run()))


@cli.command()
@CONFIG
@click.option("--tied", is_flag=True, hidden=True, help="End when standard input does.")
def serve(config: Path | None, tied: bool) -> None:
    """The edge alone, against a control plane that serves the HTTP state port."""
    settings = load_settings(config, os.environ)
    sys.exit(run(serve_edge(settings, tied=tied)))


@cli.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Say whether the settings in FILE (and the environment) can be used."""
    settings = load_settings(file, os.environ)
    run(_built(settings))
    click.echo(f"{file}: ok")


@cli.command()
@CONFIG
def healthcheck(config: Path | None) -> None:
    """Ask a running edge on this machine whether it is alive: exit status 0, else 1."""
    listen = load_settings(config, os.environ).listen
    trouble = alive(listen.admin_host, listen.admin_port)
    if trouble is not None:
        click.echo(f"preview-edge: {trouble}", err=True)
        sys.exit(1)


@cli.command(hidden=True)
@click.option("--status-fd", type=int, required=True)
def worker(status_fd: int) -> None:
    """One of several edge processes; started by `serve`, never by hand."""
    sys.exit(run(work(status_fd)))


cli.add_command(keys)
cli.add_command(operator)
cli.add_command(token)


async def _built(settings: Settings) -> int:
    build_edge(settings)
    return 0


def main(arguments: list[str] | None = None) -> None:
    """The entry point. Ends the process."""
    try:
        cli.main(arguments, prog_name="preview-edge", standalone_mode=False)
    except (StartError, ConfigurationError, OperatorError) as e:
        _fail(str(e))
    except click.exceptions.NoArgsIsHelpError as e:
        e.show()  # No mistake yet: whoever names no command wants to know which there are.
        sys.exit(2)
    except click.ClickException as e:
        _fail(_with_help(e))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Nobody reads our output any more; without this, Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _with_help(error: click.ClickException) -> str:
    """What click says, and which help to read."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context is not None else "preview-edge"
    said = error.format_message().rstrip(".")
    return f"{said}{'' if said.endswith('?') else ';'} `{command} --help` lists what there is"


def _fail(line: str) -> None:
    # Redacted, because click quotes what it did not understand, and that may be a token.
    click.echo("preview-edge: " + " ".join(redact_text(line).split()), err=True)
    sys.exit(2)
