"""The nginx configuration of docs/operations.md, run as it stands there but for names and places."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from websockets.sync.client import connect

from tests.certificates import certificate
from tests.development import development

pytestmark = pytest.mark.needs_tool("nginx")

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
DOMAIN = "preview.example"


def test_previews_through_the_terminator_on_the_page(tmp_path: Path, unused_tcp_port: int) -> None:
    """Over TLS: the page by its token, a Secure cookie that is enough from then on, a WebSocket."""
    tls = certificate(tmp_path, DOMAIN)
    with (
        development(
            tmp_path,
            "--public-hostname",
            DOMAIN,
            PREVIEW_EDGE_PUBLIC_SCHEME="https",
            PREVIEW_EDGE_TRUSTED_PROXIES='["127.0.0.0/8"]',
        ) as said,
        _nginx(tmp_path, unused_tcp_port, urlsplit(said["edge"]).netloc) as errors,
    ):
        link = urlsplit(said["preview"])
        host = link.netloc.partition(":")[0]
        with httpx.Client(
            base_url=f"https://127.0.0.1:{unused_tcp_port}",
            headers={"Host": host},
            verify=tls,
            timeout=30,
        ) as client:
            request = {"extensions": {"sni_hostname": host}}
            first = client.get(f"/?{link.query}", **request)
            assert first.status_code == 200, errors.read_text()
            cookie, _, attributes = first.headers["set-cookie"].partition(";")
            assert cookie.startswith("__Host-ns_preview=") and "Secure" in attributes
            assert client.post("/add", **request).json()["count"] == 2, "the cookie was not enough"
            client.cookies.clear()
            assert client.get("/", **request).json()["code"] == "edge_token_missing"
        address = urlsplit(unquote(link.fragment.removeprefix("ws=")))
        with (
            socket.create_connection(("127.0.0.1", unused_tcp_port), 30) as plain,
            connect(f"wss://{host}/?{address.query}", sock=plain, ssl=tls, proxy=None) as ticking,
        ):
            assert '"tick"' in ticking.recv(30)
    log = (tmp_path / "data" / "access.log").read_text()
    assert '"tunnel":true' in log


def test_a_visitor_cannot_say_where_it_comes_from(tmp_path: Path, unused_tcp_port: int) -> None:
    """The edge believes this nginx, so what a visitor says about hosts and addresses must end here."""
    tls = certificate(tmp_path, DOMAIN)
    host = f"3000-sb-1a2b3c4d.{DOMAIN}"
    lies = {"Forwarded": "host=evil", "Via": "1.1 first"}
    lies |= {f"X-Forwarded-{name}": "evil" for name in ("For", "Proto", "Host", "Port", "Prefix")}
    with (
        socket.create_server(("127.0.0.1", 0)) as edge,
        _nginx(tmp_path, unused_tcp_port, f"127.0.0.1:{edge.getsockname()[1]}"),
        ThreadPoolExecutor(1) as pool,
        httpx.Client(verify=tls, timeout=30) as visitor,
    ):
        edge.settimeout(30)
        heard = pool.submit(_one_head, edge)
        answer = visitor.get(
            f"https://127.0.0.1:{unused_tcp_port}/",
            headers={"Host": host} | lies,
            extensions={"sni_hostname": host},
        )
        assert answer.status_code == 204
        head = heard.result().lower()
    assert b"via: 1.1 first" in head
    assert b"evil" not in head
    assert f"x-forwarded-host: {host}".encode() in head


def _one_head(edge: socket.socket) -> bytes:
    """What the first client sends, answered with nothing."""
    connection, _ = edge.accept()
    with connection:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    return head


@contextmanager
def _nginx(folder: Path, port: int, edge: str) -> Iterator[Path]:
    """Nginx with the page's configuration until the end; the path of its error log."""
    text = PAGE.partition("```nginx\n")[2].partition("```")[0]
    for there, here in (
        ("server 127.0.0.1:3001;", f"server {edge};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/preview.example", f"{folder}/cert"),
    ):
        assert there in text
        text = text.replace(there, here)
    temporary = "client_body proxy fastcgi uwsgi scgi".split()
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in temporary)
    # The workers of a root's nginx may not read a test's folder, unless they are root's too.
    user = "user root;\n" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        f"{user}daemon off;\nmaster_process off;\nworker_processes 1;\npid {folder}/pid;\nevents {{ }}\n"
        f"http {{\naccess_log off;\n{paths}{text}}}\n"
    )
    errors = folder / "nginx.log"
    child = subprocess.Popen(
        ["nginx", "-p", folder, "-c", config, "-e", errors], stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    try:
        while child.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        assert child.poll() is None, child.stderr.read()
        yield errors
    finally:
        child.terminate()
        child.communicate(timeout=30)
