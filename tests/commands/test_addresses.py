"""Where dev listens: what cannot be is told in one sentence, before anything is started."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from edge.commands.addresses import check_addresses
from edge.commands.shared import Options
from edge.ops.process import StartError
from tests.commands.test_shared import OPTIONS

FREE = replace(OPTIONS, api_port=0, edge_port=0, admin_port=0)


def test_free_ports_are_never_wrong() -> None:
    """However many edges take one each."""
    check_addresses(replace(FREE, edges=16))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (replace(FREE, host="192.0.2.1"), "--host: 192.0.2.1 is not a loopback address"),
        (
            replace(FREE, api_port=4001, edge_port=4000, edges=2),
            "--api-port, --edge-port and --admi",
        ),
        (
            replace(FREE, edge_port=4000, admin_port=4002, edges=3),
            "--api-port, --edge-port and --adm",
        ),
        (
            replace(FREE, edge_port=65534, edges=3),
            "--edge-port: 3 edges take as many ports, from 6",
        ),
        (
            replace(FREE, admin_port=65535, edges=2),
            "--admin-port: 2 edges take as many ports, from",
        ),
    ],
)
def test_what_cannot_be(options: Options, said: str) -> None:
    """Ports that two would have, ports beyond the last one, addresses others can reach."""
    with pytest.raises(StartError) as caught:
        check_addresses(options)
    assert str(caught.value).startswith(said)


def test_every_port_of_a_fleet_is_tried() -> None:
    """One that is taken in the middle is told by the option it comes from."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=r"^--edge-port: 127.0.0.1:\d+ is in use"):
            check_addresses(replace(FREE, edge_port=port - 1, edges=2))
