"""``preview-edge token``: what is the matter with a link that does not work."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import click

from edge.commands.inspection import Beliefs, Inspection, inspect
from edge.commands.question import question
from edge.core.credentials import Expectation
from edge.core.settings import Settings
from edge.ops.configuration import CONFIG_VARIABLE, ConfigurationError, load_settings
from edge.ops.process import StartError
from edge.state.keys import KeysUnusable, keys_now

MAX_INPUT = 64 * 1024
"""Bytes of a token or URL that are read."""


@click.group()
def token() -> None:
    """Look at preview tokens."""


@token.command("inspect")
@click.argument("tokens", nargs=-1, metavar="[TOKEN]")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    metavar="FILE",
    help="Settings file (TOML) of the edge. Without one, all settings come from the environment.",
)
@click.option("--host", help="Host of the request; a URL brings its own.")
@click.option("--websocket", is_flag=True, help="Ask about a WebSocket upgrade.")
def inspect_command(
    tokens: tuple[str, ...], config: Path | None, host: str | None, *, websocket: bool
) -> None:
    """Say why TOKEN (or a whole preview URL) is accepted or refused: exit status 0 or 1.

    Without TOKEN, or with "-", one line of standard input is read; other users of this machine can see
    arguments. The token is never printed, nor anything that could be used instead of it.
    """
    # More than one is our own error, because click would quote them.
    if len(tokens) > 1:
        raise StartError("token inspect: give one token, or one URL in quotes")
    settings = load_settings(config, os.environ)
    text = _read() if tokens in ((), ("-",)) else tokens[0].strip()
    if not text:
        raise StartError(
            "token inspect: there is no token; give one, or one line of standard input"
        )
    asked = question(text, host, websocket=websocket)
    _show(inspect(asked, _beliefs(settings), time.time()))


def _read() -> str:
    if sys.stdin.isatty():
        click.echo("Token or preview URL:", err=True)
    line = sys.stdin.buffer.readline(MAX_INPUT + 1)
    if len(line) > MAX_INPUT:
        raise StartError(f"token inspect: more than {MAX_INPUT} bytes on standard input")
    return line.decode("utf-8", "replace").strip()


def _beliefs(settings: Settings) -> Beliefs:
    try:
        keys = asyncio.run(keys_now(settings.tokens, settings.cookie))
    except KeysUnusable as e:
        raise StartError(f"{e}; without the keys nothing can be said") from None
    except ValueError as e:
        raise ConfigurationError(str(e)) from None
    tokens = settings.tokens
    return Beliefs(
        keys,
        Expectation(tokens.issuer, settings.public_hostname, tokens.max_bytes),
        settings.websocket_continuation == "same_origin",
    )


def _show(found: Inspection) -> None:
    for row in found.rows:
        click.echo(f"{row.mark}  {row.name:<10} {row.text}")
    if found.problem is None:
        click.echo("accepted, as long as its grant and its sandbox stand")
        return
    problem = found.problem
    click.echo(f"refused: {problem.status} {problem.code}. {problem.message}")
    sys.exit(1)
