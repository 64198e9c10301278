"""The ports by which sandboxes with networks of their own are reached."""

from __future__ import annotations

import socket

import pytest

from bench.ports import free_port
from edge.appliance.runtime.ports import REST, Ports
from edge.core.settings import CatalogSettings


class Clock:
    """Seconds, by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_port_that_was_given_back_rests() -> None:
    """It is not handed out for longer than an edge goes by an old record; then it is one as any other."""
    clock, number = Clock(), free_port()
    ports = Ports(clock, [number])
    for _ in range(2):
        sock = ports.take()
        assert sock.getsockname() == ("127.0.0.1", number) and not sock.getblocking()
        sock.close()
        ports.give_back(number)
        clock.now += REST - 1
        with pytest.raises(OSError, match="no free port"):
            ports.take()
        clock.now += 1
    assert CatalogSettings().stale_limit < REST


def test_only_those_rest_that_were_given_back() -> None:
    """Another one is handed out meanwhile, every time."""
    clock, numbers = Clock(), [free_port(), free_port()]
    ports = Ports(clock, numbers)
    ports.give_back(numbers[0])
    for _ in range(10):
        with ports.take() as sock:
            assert sock.getsockname()[1] == numbers[1]


def test_a_port_that_somebody_has_is_passed_over() -> None:
    """Whoever listens on this machine keeps what it has."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        number = free_port()
        with Ports(Clock(), [taken, number]).take() as sock:
            assert sock.getsockname()[1] == number
        with pytest.raises(OSError, match="no free port"):
            Ports(Clock(), [taken]).take()
