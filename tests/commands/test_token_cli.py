"""``preview-edge token inspect``: exit status, input, and that the token is not said again."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge.cli import main
from edge.core.credentials import Family
from tests.flows.mint import SITE, Mint
from tests.ops.programs import toml

ID = "sb_0123456789"
HOST = f"3000-sb-0123456789.{SITE}"


@pytest.fixture
def mint() -> Mint:
    """Keys of a control plane and a fleet."""
    return Mint()


@pytest.fixture
def config(tmp_path: Path, mint: Mint) -> str:
    """A settings file of an edge that believes them."""
    (tmp_path / "jwks.json").write_text(json.dumps(mint.jwks))
    file = tmp_path / "edge.toml"
    settings = {
        "public_hostname": SITE,
        "control_plane": {"token": "s" * 32},
        "cookie": {"keys": [{"kid": "fleet", "secret": mint.fleet}]},
        "tokens": {"jwks_file": tmp_path / "jwks.json"},
    }
    file.write_text(toml(settings))
    return str(file)


@pytest.fixture
def inspect(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Run the command; exit status, standard output, standard error."""

    def run(*arguments: str, stdin: bytes = b"") -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status: object = 0
        try:
            main(["token", "inspect", "--config", config, *arguments])
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def signed(mint: Mint, family: Family = Family.EDGE, **changes: Any) -> str:
    """A token of this mint."""
    return mint.sign(mint.claims(ID, 3000, "pvg_1", **changes), family)


def test_good_tokens_however_they_come(inspect: Any, mint: Mint) -> None:
    """As an argument, on standard input, as a URL: status 0, every row ok, and the token not repeated."""
    token = signed(mint)
    url = f"https://{HOST}/?edge_token={token}"
    for arguments, stdin in (
        ((token, "--host", HOST), b""),
        (("-", "--host", HOST), f"  {token}\n".encode()),
        (("--host", HOST), token.encode()),
        ((url,), b""),
        ((), f"{url}\nanother line".encode()),
    ):
        status, out, err = inspect(*arguments, stdin=stdin)
        assert (status, err) == (0, ""), out
        assert "accepted" in out and "\nno " not in out
        assert not any(part in out for part in token.split("."))
    cookie = signed(mint, Family.CONTINUATION)
    assert inspect(cookie, "--host", HOST)[0] == 0


def test_refused_tokens(inspect: Any, mint: Mint) -> None:
    """Status 1, and the code that the edge would answer with."""
    for token, more, code in (
        (signed(mint, exp=time.time() - 1), (), "401 edge_token_expired"),
        (signed(mint), ("--websocket",), "403 edge_token_scope_mismatch"),
        (signed(Mint()), (), "401 edge_token_invalid"),
        (signed(Mint("k2")), (), "401 edge_token_invalid"),
        (signed(mint, Family.PROXY, port=1), (), "403 preview_proxy_token_scope_mismatch"),
        ("nonsense", (), "401 edge_token_invalid"),
    ):
        status, out, err = inspect(token, "--host", HOST, *more)
        assert (status, err) == (1, "") and f"refused: {code}" in out
        assert token not in out


def test_mistakes_do_not_repeat_the_token(inspect: Any, mint: Mint, tmp_path: Path) -> None:
    """Two of them, none, too much, an option that does not exist, keys that are not there: status 2."""
    token = signed(mint)
    for arguments, stdin, said in (
        ((token, token), b"", "one token"),
        ((), b"", "there is no token"),
        ((), b"x" * 70_000, "more than"),
        (("--nothing", token), b"", "--nothing"),
        ((f"--tokem={token}",), b"", "--tokem"),
        ((f"-{token}",), b"", "No such option"),
    ):
        status, out, err = inspect(*arguments, stdin=stdin)
        assert (status, out) == (2, "") and err.count("\n") == 1, (out, err)
        assert said in err
        assert not any(part in err for part in token.split("."))
    (tmp_path / "jwks.json").unlink()
    status, out, err = inspect(token)
    assert (status, out) == (2, "") and "nothing can be said" in err
