"""Ports that are one's own."""

from __future__ import annotations

import socket
import subprocess
import sys

from bench.ports import free_port

ASK = "from bench.ports import free_port; print(*[free_port() for _ in range(2000)]); input()"


def test_processes_get_different_ports() -> None:
    """Two that ask for many at the same time are given none twice."""
    asked = [
        subprocess.Popen(
            [sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ports = []
    for process in asked:
        assert process.stdout is not None
        ports += process.stdout.readline().split()
    for process in asked:
        process.communicate("\n")
        assert process.returncode == 0
    assert len(ports) == len(set(ports)) == 4000


def test_one_where_somebody_listens_is_not_given() -> None:
    """What is taken is left out, and no connection gets it while its server is away."""
    port = free_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        assert free_port() != port
    outgoing = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(50):
            outgoing.append(socket.create_connection(listener.getsockname()))
            assert outgoing[-1].getsockname()[1] > port
    for one in outgoing:
        one.close()
