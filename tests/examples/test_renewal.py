"""Tokens expire after a day at the latest: how each example gets new ones without a visitor noticing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.examples.conftest import Start
from tests.examples.proxies import EXAMPLES, Proxy, cleaned
from tests.examples.world import Sandbox
from tests.ops.programs import Program, eventually

RENEW = (sys.executable, str(EXAMPLES / "renew.py"))
OFTEN = ("--lifetime", "60", "--before", "59.5")


def only(*kinds: str) -> pytest.MarkDecorator:
    """Some of the examples."""
    return pytest.mark.parametrize("kind", kinds, indirect=True, scope="session")


def grants(sandbox: Sandbox) -> set[str]:
    """Those that stand."""
    items = sandbox.call("GET", "/preview-urls")["items"]
    return {item["id"] for item in items if item["status"] == "active"}


def welcomed(proxy: Proxy) -> bool:
    """Whether a new WebSocket gets through."""
    try:
        with proxy.socket() as opened:
            return bool(opened.recv())
    except InvalidStatus:
        return False


@only("caddy", "nginx")
def test_new_tokens_take_over(start: Start, sandbox: Sandbox) -> None:
    """With the old grant gone the proxy goes on with the new one; sockets stay open while the old one stands."""
    target = sandbox.target()
    with start(sandbox.environ(target)) as proxy, proxy.visitor() as visitor:
        with proxy.socket() as opened:
            opened.recv()
            subprocess.run(
                [*RENEW, sandbox.id, str(sandbox.port), "--once", "--", "sh", "-c", 'eval "$RELOAD"'],
                check=True, cwd=EXAMPLES, env=cleaned() | sandbox.world.login | dict(proxy.reload),
            )  # fmt: skip
            assert visitor.get("/").status_code == 200
            opened.send("still here")
            assert opened.recv() == "still here"
            sandbox.call("DELETE", f"/preview-urls/{target['grant']['id']}")
            with pytest.raises(ConnectionClosed):
                opened.recv()
        # A reload is done a little later than its command: until then the old tokens are shown now and then.
        assert eventually(lambda: visitor.get("/").status_code == 200)
        assert eventually(lambda: welcomed(proxy))


@only("fastapi")
def test_the_app_renews_by_itself_and_wakes_nothing(start: Start, sandbox: Sandbox) -> None:
    """The FastAPI example asks again before the expiry, also while the sandbox sleeps."""
    before, wakes = grants(sandbox), sandbox.wakes
    sandbox.pause()
    often = sandbox.by_sdk(PREVIEW_LIFETIME="60", PREVIEW_RENEW_BEFORE="59.5")
    with start(often) as proxy, proxy.visitor() as visitor:
        (first,) = grants(sandbox) - before
        assert eventually(lambda: len(grants(sandbox) - before) > 1)
        assert (sandbox.state, sandbox.wakes) == ("paused", wakes)
        sandbox.call("DELETE", f"/preview-urls/{first}")
        assert visitor.get("/").status_code == 200
        assert sandbox.wakes == wakes + 1


def test_renew_runs_its_command_before_each_expiry(sandbox: Sandbox, tmp_path: Path) -> None:
    """Each time with other tokens, and it wakes nothing."""
    file, wakes = tmp_path / "tokens", sandbox.wakes
    sandbox.pause()
    command = ("sh", "-c", f"echo $PREVIEW_HTTP_TOKEN $PREVIEW_ORIGIN >> {file}")
    with Program(
        tmp_path / "renew", sandbox.id, str(sandbox.port), *OFTEN, "--", *command,
        command=RENEW, environ=sandbox.world.login,
    ) as program:  # fmt: skip
        program.until(lambda: file.exists() and len(file.read_text().splitlines()) > 1)
    tokens = [line.split() for line in file.read_text().splitlines()]
    assert len({token for token, _ in tokens}) == len(tokens)
    assert {origin for _, origin in tokens} == {f"http://{sandbox.environ()['PREVIEW_HOST']}"}
    assert (sandbox.state, sandbox.wakes) == ("paused", wakes)


@pytest.mark.parametrize(
    ("name", "port", "key", "said"),
    [
        ("sb_nobodys00", 8000, None, "renew: The sandbox does not exist"),
        (None, 8000, "nsk_wrong", "renew: "),
        (None, 70000, None, "renew: "),
    ],
    ids=["sandbox", "key", "port"],
)
def test_what_cannot_be_done_is_one_line(
    sandbox: Sandbox, name: str | None, port: int, key: str | None, said: str
) -> None:
    """With --once: what went wrong, no traceback, and nothing has been run."""
    environ = cleaned() | sandbox.world.login | ({"NULLSPACE_API_KEY": key} if key else {})
    done = subprocess.run(
        [*RENEW, name or sandbox.id, str(port), "--once", "--", "echo", "run"],
        check=False, env=environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1, done.stderr
