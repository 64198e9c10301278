"""Where everything that ``dev`` starts shall listen, and what is wrong with that, told before anything is started."""

from __future__ import annotations

import ipaddress
import socket

from edge.commands.shared import Options
from edge.ops.process import StartError, cannot_listen

LAST_PORT = 65535


def check_addresses(options: Options) -> None:
    """Raises `StartError` for addresses that cannot be listened on, or not by all who are to."""
    if not _is_loopback(options.host):
        raise StartError(
            f"--host: {options.host} is not a loopback address; sandboxes run commands as you, so "
            "dev stays on this machine (127.0.0.1)"
        )
    asked = {"--api-port": [options.api_port], "--edge-port": [], "--admin-port": []}
    for number in range(options.edges):
        edge, admin = options.ports_of(number)
        asked["--edge-port"].append(edge)
        asked["--admin-port"].append(admin)
    for name, ports in asked.items():
        if max(ports) > LAST_PORT:
            raise StartError(
                f"{name}: {options.edges} edges take as many ports, from {ports[0]} on, and the last "
                f"one there is is {LAST_PORT}; choose a lower one"
            )
    fixed = [port for ports in asked.values() for port in ports if port]
    if len(set(fixed)) != len(fixed):
        also = f" (each of {options.edges} edges has the next one)" if options.edges > 1 else ""
        raise StartError(
            f"--api-port, --edge-port and --admin-port must differ from each other{also}"
        )
    for name, ports in asked.items():
        for port in filter(None, ports):
            _try_port(name, options.host, port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _try_port(name: str, host: str, port: int) -> None:
    """Raises `StartError` when nobody could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as e:
            raise cannot_listen(name, host, port, e) from None
