"""Forms: of this session, small, and nothing but forms."""

from __future__ import annotations

from typing import Any

import pytest
from service import Service

from edge.appliance.console.visit import MAX_FIELDS, MAX_FORM
from tests.appliance.console.desk import Desk

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("token", ["", "x", "{}x", "\ud800", "{}\0"])
async def test_a_form_without_the_sessions_token_does_nothing(
    service: Service, desk: Desk, token: str
) -> None:
    """Although the cookie is right and the page is ours."""
    sandbox = await service.create()
    sent = token.format(desk.token).encode("utf-8", "replace").decode()
    page = await desk.post(f"/sandboxes/{sandbox}/kill", {"token": sent})
    assert page.status == 403 and "form_outdated" in page.text
    assert (await service.api("GET", f"/v1/sandboxes/{sandbox}"))[0] == 200


async def test_a_form_of_another_session_does_nothing(service: Service, desk: Desk) -> None:
    """Each session's token is its own."""
    other = Desk(service)
    await other.log_in()
    assert (await desk.post("/logout", {"token": other.token})).status == 403
    assert (await desk.get()).status == 200


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", "token={}", 400),
        ("application/json", '{{"token": "{}"}}', 400),
        ("multipart/form-data; boundary=x", "--x--", 400),
        (FORM, "token={}&a=" + "x" * MAX_FORM, 413),
        (FORM, "token={}" + "&a=b" * MAX_FIELDS, 400),
        (FORM, b"token=\xff", 400),
        (FORM, "token=x&token={}", 303),
    ],
)
async def test_what_is_no_form_of_ours_is_refused(
    service: Service, desk: Desk, kind: str, body: Any, status: int
) -> None:
    """Other kinds of bodies, which other sites may send unasked, and too much of anything."""
    data = body if isinstance(body, bytes) else body.format(desk.token).encode()
    headers = {"Origin": desk.origin, "Content-Type": kind, "Cookie": desk.cookie}
    answer, _ = await service.raw("POST", "/console/logout", data=data, headers=headers)
    assert answer.status == status
