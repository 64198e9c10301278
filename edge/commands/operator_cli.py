"""``preview-edge operator``: previews switched off and on, and the audit trail."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edge.commands.operator import Operator, find
from edge.commands.screen import printable


@click.group()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".preview-edge"),
    show_default=True,
    help="Data directory of a running `preview-edge dev`.",
)
@click.pass_context
def operator(context: click.Context, data_dir: Path) -> None:
    """Switch previews off and on, and see who did what.

    For the embedded control plane. It is found through --data-dir, or by PREVIEW_EDGE_CONTROL_PLANE__URL
    and PREVIEW_EDGE_CONTROL_PLANE__TOKEN.
    """
    context.obj = lambda: Operator(find(os.environ, data_dir))


REASON = click.option("--reason", metavar="TEXT", help="For the audit trail.")


def _switch_grant(context: click.Context, grant: str, reason: str | None, *, enable: bool) -> None:
    view = context.obj().switch_grant(grant, enable=enable, reason=reason)
    click.echo(f"{view['id']}: {view['status']}")


def _switch_previews(
    context: click.Context, sandbox: str, reason: str | None, *, enable: bool
) -> None:
    view = context.obj().switch_previews(sandbox, enable=enable, reason=reason)
    click.echo(f"{view['sandbox_id']}: previews {_SWITCHED[view['previews_disabled']]}")


_SWITCHED = {True: "disabled", False: "enabled"}


@operator.command("disable-grant")
@click.argument("grant")
@REASON
@click.pass_context
def disable_grant(context: click.Context, grant: str, reason: str | None) -> None:
    """Refuse everybody who comes by GRANT, and end what is under way by it."""
    _switch_grant(context, grant, reason, enable=False)


@operator.command("enable-grant")
@click.argument("grant")
@REASON
@click.pass_context
def enable_grant(context: click.Context, grant: str, reason: str | None) -> None:
    """Take `disable-grant` back. What was revoked or has expired stays so."""
    _switch_grant(context, grant, reason, enable=True)


@operator.command("disable-previews")
@click.argument("sandbox")
@REASON
@click.pass_context
def disable_previews(context: click.Context, sandbox: str, reason: str | None) -> None:
    """Refuse everybody at every port of SANDBOX, and end what is under way there."""
    _switch_previews(context, sandbox, reason, enable=False)


@operator.command("enable-previews")
@click.argument("sandbox")
@REASON
@click.pass_context
def enable_previews(context: click.Context, sandbox: str, reason: str | None) -> None:
    """Take `disable-previews` back. Grants disabled one by one stay so."""
    _switch_previews(context, sandbox, reason, enable=True)


@operator.command()
@click.option("--sandbox", "sandbox_id", metavar="ID", help="Of this sandbox only.")
@click.option("--grant", "grant_id", metavar="ID", help="Of this grant only.")
@click.option(
    "--event",
    type=click.Choice(["created", "used", "failed", "revoked", "disabled", "enabled"]),
    help="Of this kind only.",
)
@click.option("--actor", type=click.Choice(["user", "operator", "visitor"]), help="By these only.")
@click.option("--from", "from_", metavar="TIME", help="Not before, e.g. 2026-01-31T12:00:00Z.")
@click.option("--to", metavar="TIME", help="Not after.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def audit(context: click.Context, /, *, as_json: bool, **asked: Any) -> None:
    """What became of grants, newest last: created, used, failed, revoked, disabled, enabled."""
    for event in reversed(context.obj().audit(**asked)):
        click.echo(json.dumps(event) if as_json else audit_line(event))


def audit_line(event: Mapping[str, object]) -> str:
    """One entry of the audit trail for a terminal: when, what, who, whose, and what was said to it."""
    grant = [event.get("grant_id"), event.get("auth_mode"), event.get("port")]
    about = " ".join(str(part) for part in grant if part is not None) or "all previews"
    said = event.get("code") or event.get("reason")
    return printable(
        f"{event.get('occurred_at')}  {event.get('event')!s:<8}  {event.get('actor')!s:<8}  "
        f"{event.get('sandbox_id')}  {about}{f'  ({said})' if said else ''}"
    )
