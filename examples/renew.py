"""Runs a command with a fresh preview proxy target in its environment: now, and before each expiry.

    export NULLSPACE_API_URL=... NULLSPACE_API_KEY=...
    python renew.py sb_1a2b3c4d 8080 -- sh -c 'envsubst ... && nginx -s reload'

The command sees PREVIEW_HOST, PREVIEW_HTTP_TOKEN, PREVIEW_WEBSOCKET_TOKEN, and PREVIEW_ORIGIN unless it is set
already. With ``--once`` that is all; otherwise it goes on until it is ended. Needs `nullspace-sdk`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

from nullspace import Sandbox
from nullspace.client import NullspaceClient
from nullspace.errors import SandboxError
from nullspace.types import PreviewProxyTarget

RETRY = 10.0
"""Seconds until the next try after one that failed. What runs goes on with the tokens it has."""


def main() -> None:
    """The command line."""
    options = parsed()
    # `Sandbox.connect` would wake the sandbox, if it is paused. That is for visitors to do.
    try:
        info = Sandbox.get_info_by_id(options.sandbox)
    except SandboxError as e:
        raise SystemExit(f"renew: {e}") from None
    sandbox = Sandbox(info, NullspaceClient())
    while True:
        try:
            target = sandbox.create_preview_proxy_target(
                options.port, expires_in_seconds=options.lifetime
            )
            subprocess.run(options.command, check=True, env=environment(target))
        except Exception as e:
            if options.once:
                raise SystemExit(f"renew: {e!r}") from None
            print(f"renew: {e!r}; trying again in {RETRY:.0f} s", flush=True)
            time.sleep(RETRY)
            continue
        if options.once:
            return
        print(f"renew: good until {target.expires_at}", flush=True)
        remaining = (target.expires_at - datetime.now(UTC)).total_seconds()
        time.sleep(max(remaining - options.before, 1.0))


def environment(target: PreviewProxyTarget) -> dict[str, str]:
    """What the command is told."""
    url = urlsplit(target.http_url)
    return {
        "PREVIEW_ORIGIN": f"{url.scheme}://{url.netloc}",
        **os.environ,
        "PREVIEW_HOST": url.netloc,
        "PREVIEW_HTTP_TOKEN": target.http_token,
        "PREVIEW_WEBSOCKET_TOKEN": target.websocket_token,
    }


def parsed() -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sandbox", help="the sandbox's id")
    parser.add_argument("port", type=int, help="the app's port in the sandbox")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    parser.add_argument("--lifetime", type=int, default=86400, help="seconds, 60 to 86400")
    parser.add_argument("--before", type=float, default=300, help="seconds before expiry to renew")
    parser.add_argument("--once", action="store_true", help="do not wait for the expiry")
    return parser.parse_args()


if __name__ == "__main__":
    main()
