"""TLS in front of the edge, as in production: takes it off, and passes bytes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.certificates import certificate


@contextmanager
def terminator(folder: Path, edge: str) -> Iterator[str]:
    """Its origin, until the end. ``cert.pem`` in the folder is what its clients have to trust."""
    certificate(folder, "preview.test")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "cert.key")
    address = urlsplit(edge)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        threads: list[threading.Thread] = []

        def spliced() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                stack.enter_context(plain)
                try:
                    secure = stack.enter_context(context.wrap_socket(plain, server_side=True))
                except OSError:
                    continue  # who does not trust us hangs up
                there = socket.create_connection((address.hostname, address.port))
                stack.enter_context(there)
                stack.callback(_hang_up, secure)
                stack.callback(_hang_up, there)
                for pair in ((secure, there), (there, secure)):
                    threads.append(threading.Thread(target=_copy, args=pair, daemon=True))
                    threads[-1].start()

        accepting = threading.Thread(target=spliced, daemon=True)
        accepting.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        _hang_up(listener)
        accepting.join(10)
        stack.close()
        for thread in threads:
            thread.join(10)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    _hang_up(source)
    _hang_up(sink)


def _hang_up(either: socket.socket) -> None:
    try:
        either.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
