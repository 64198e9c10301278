"""A network of one's own: who is in it, who listens there, and how a machine says that there is none."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from families import LINUX

from edge.appliance.runtime import namespace
from edge.appliance.runtime.namespace import listening, table, traffic, why_not

ROOT = Path(__file__).parents[3]
ME = os.getpid()


def _try(*lines: str) -> subprocess.CompletedProcess[str]:
    """The attempt, as root of a user namespace in which a shell has said something first."""
    script = "\n".join([*lines, f"exec {sys.executable} -m edge.appliance.runtime.namespace"])
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-ec", script],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.mark.needs_tool("netns", "unshare")
def test_it_is_tried_and_not_guessed() -> None:
    """Where it can be had, and where the kernel says no: one line with the switch that would have to be set."""
    assert why_not() is None and _try(":").returncode == 0
    for switch in ("max_user_namespaces", "max_net_namespaces"):
        refused = _try(f"echo 0 > /proc/sys/user/{switch}")
        assert refused.returncode == 1 and refused.stderr == ""
        assert refused.stdout.count("\n") == 1 and refused.stdout.startswith("unshare(2): ")
        assert refused.stdout.endswith(f"sysctl -w user.{switch}=10000\n")


def test_other_systems_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything of Linux is touched."""
    monkeypatch.setattr(namespace.sys, "platform", "darwin")
    with pytest.raises(namespace.NoNamespace, match="on Linux only"):
        namespace.enter()


@pytest.mark.parametrize(
    ("family", "address", "seen"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "0.0.0.0", True),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::", True),
        (socket.AF_INET, "127.0.0.2", False),
    ],
)
@LINUX
def test_the_table_is_read_right(family: int, address: str, *, seen: bool) -> None:
    """Who can be reached on loopback is seen while they listen, and not before or after."""
    with table() as asked, socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
        port = sock.getsockname()[1]
        assert port not in listening(asked)
        sock.listen()
        assert (port in listening(asked)) is seen
        sock.close()
        assert port not in listening(asked)


@LINUX
def test_of_the_dead_nothing_is_known() -> None:
    """No traffic, and no error."""
    with subprocess.Popen(["true"]) as child:
        pass
    assert traffic(child.pid) is None
    assert traffic(ME) is not None


@LINUX
def test_a_long_table_is_read_whole() -> None:
    """It comes in many datagrams."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(500)]
    try:
        with table() as asked:
            assert {one.getsockname()[1] for one in servers} <= listening(asked)
    finally:
        for one in servers:
            one.close()


@pytest.mark.parametrize("length", [0, 15, 16, 72])
def test_an_answer_that_is_none_is_an_error(length: int) -> None:
    """The kernel gives none like these; whoever took over a supervisor could, to keep the reader busy for ever."""
    answer = struct.pack("=IHHII", length, 20, 0, 0, 0) + bytes(8)
    with pytest.raises(OSError, match="no answer of netlink"):
        namespace._read(answer, set())
