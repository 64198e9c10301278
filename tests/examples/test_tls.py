"""The examples towards an edge behind TLS, as it is in production."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.certificates import certificate
from tests.examples.conftest import Start
from tests.examples.terminator import terminator
from tests.examples.world import Sandbox


def test_both_transports_over_tls(start: Start, sandbox: Sandbox, tmp_path: Path) -> None:
    """The edge's certificate is checked, and requests, bodies and WebSockets pass."""
    with terminator(tmp_path, sandbox.world.edge) as origin:
        environ = sandbox.environ(PREVIEW_ORIGIN=origin, SSL_CERT_FILE=f"{tmp_path}/cert.pem")
        with start(environ) as proxy, proxy.visitor() as visitor:
            assert visitor.post("/", content="body").json()["body"] == "body"
            with proxy.socket() as opened:
                assert json.loads(opened.recv())["target"] == "/socket"
                opened.send("hello")
                assert opened.recv() == "hello"


def test_somebody_elses_certificate_gets_no_token(
    start: Start, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Whoever is not known to be the edge gets nothing but a handshake, for both transports."""
    (tmp_path / "other").mkdir()
    certificate(tmp_path / "other", "other.test")
    trusted = str(tmp_path / "other" / "cert.pem")
    came = []
    with socket.create_server(("127.0.0.1", 0)) as edge:

        def listen() -> None:
            while True:
                try:
                    client, _ = edge.accept()
                except OSError:
                    return
                with client:
                    came.append(client.recv(65536))

        listening = threading.Thread(target=listen)
        with terminator(tmp_path, f"http://127.0.0.1:{edge.getsockname()[1]}") as origin:
            listening.start()
            environ = sandbox.environ(PREVIEW_ORIGIN=origin, SSL_CERT_FILE=trusted)
            with start(environ) as proxy, proxy.visitor() as visitor:
                assert visitor.get("/").status_code == 502
                with pytest.raises(InvalidStatus) as refused, proxy.socket():
                    pass
                assert refused.value.response.status_code == 502
        edge.shutdown(socket.SHUT_RDWR)
        listening.join(10)
    assert not any(came)
