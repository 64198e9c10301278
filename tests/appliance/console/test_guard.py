"""The guard: names, sites and ways from which the console is not to be had."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from service import KEY, Service
from whole import Whole, request

from edge.appliance.console.guard import FIELDS
from tests.appliance.console.desk import Desk


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),  # a tunnel from elsewhere has another port
        ("localhost:3000", 200),
        ("LocalHost", 200),
        ("[::1]:3000", 200),
        ("rebound.example:3000", 421),
        ("127.0.0.1.rebound.example", 421),
        ("localhost.rebound.example:3000", 421),
        ("8000-sb-12345678.localhost:3001", 421),
        ("user@localhost", 421),
        ("127.0.0.2", 421),
        ("0.0.0.0:3000", 421),
        ("[::1", 421),
        ("localhost:", 421),
    ],
)
async def test_only_names_of_this_machine(service: Service, host: str, status: int) -> None:
    """A name that somebody else points to this machine does not even see the log-in page."""
    for path in ("/login", "/console.css"):
        page = await Desk(service).get(path, Host=host)
        assert page.status == status
        assert FIELDS.items() <= dict(page.headers).items()


async def test_a_proxy_in_front_may_have_a_name(tmp_path: Path) -> None:
    """The one that was configured, where TLS makes the cookie one for TLS."""
    async with Service(tmp_path, console_hosts=["console.example"]) as service:
        desk = Desk(service)
        assert (await desk.get("/login", Host="console.example")).status == 200
        assert (await desk.get("/login", Host="other.example")).status == 421
        own = {"Host": "console.example", "Origin": "https://console.example"}
        page = await desk.post("/login", {"key": KEY}, **own)
        assert page.status == 303
        cookie = page.headers["Set-Cookie"]
        assert cookie.startswith("preview_console_web=") and "Secure" in cookie


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n"],
)
async def test_no_host_and_two_hosts_are_none(service: Service, head: bytes) -> None:
    """Nobody can say what a browser meant."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.plane.port)
    writer.write(b"GET /console/login " + head + b"\r\n")
    answer = await reader.read()
    assert answer.split()[1] in (b"400", b"421")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        ("http://evil.example", "cross-site"),
        ("http://evil.example", "same-origin"),
        ("http://127.0.0.1:1", "same-site"),  # another port is another app
        ("http://127.0.0.1:1", ""),
        ("null", ""),
        ("", ""),
        ("file://{host}", ""),
        ("http://{host}@evil.example", ""),
        ("http://{host}.evil.example", ""),
        ("http://{host}", "cross-site"),
        ("http://{host}", "same-site"),
        ("http://{host}", "none"),
    ],
)
async def test_forms_of_other_pages_do_nothing(
    service: Service, desk: Desk, origin: str, site: str
) -> None:
    """Neither logging in nor anything else, although cookie and token are right."""
    sandbox = await service.create()
    host = desk.origin.removeprefix("http://")
    headers = {"Origin": origin.format(host=host), "Sec-Fetch-Site": site}
    for path in ("/login", f"/sandboxes/{sandbox}/kill", "/logout"):
        page = await desk.post(path, {"key": KEY}, **headers)
        assert page.status == 403 and "cross_site_request" in page.text
        assert "Set-Cookie" not in page.headers
    assert (await service.api("GET", f"/v1/sandboxes/{sandbox}"))[0] == 200
    assert (await desk.get()).status == 200


async def test_a_browser_without_fetch_metadata_can_work(service: Service) -> None:
    """The origin alone will do."""
    desk = Desk(service)
    assert (await desk.post("/login", {"key": KEY}, **{"Sec-Fetch-Site": ""})).status == 303
    assert (await desk.get("", **{"Sec-Fetch-Site": ""})).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("mode", "status"), [("navigate", 200), ("no-cors", 403), ("cors", 403), ("websocket", 403)]
)
async def test_other_pages_may_link_and_no_more(
    service: Service, desk: Desk, site: str, mode: str, status: int
) -> None:
    """A link from elsewhere opens it; what fetches, embeds or streams from elsewhere is refused."""
    for path in ("", "/console.js"):
        page = await desk.get(path, **{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode})
        assert page.status == status
    if status == 403:
        page = await desk.get("/stream", **{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode})
        assert page.status == 403


async def test_the_console_is_no_preview(tmp_path: Path) -> None:
    """Its port cannot be previewed; an app that hands requests on to it, Host and all, is seen through."""
    async with Whole(tmp_path, time.time) as whole:
        own = whole.service.plane.port
        masked = {"network": {"mask_request_host": f"127.0.0.1:{own}"}}
        sandbox = await whole.service.create(**masked)
        path = f"/v1/sandboxes/{sandbox}/ports/{own}/signed-preview-url"
        status, refused = await whole.service.api("POST", path, {})
        assert (status, refused["code"]) == (400, "unsupported_preview_port")

        async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner, outer = await asyncio.open_connection("127.0.0.1", own)
            outer.write(await reader.readuntil(b"\r\n\r\n"))
            writer.write(await inner.readuntil(b"\r\n\r\n"))
            writer.close()
            outer.close()

        async with await asyncio.start_server(pipe, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            made = await whole.api("POST", f"/{sandbox}/ports/{port}/signed-preview-url", {})
            reader, writer = await asyncio.open_connection("127.0.0.1", whole.edge.port)
            writer.write(request(made["url"], "/console/login"))
            assert (await reader.readline()).split()[1] == b"421"
            writer.close()
