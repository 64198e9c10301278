"""The console as a whole: its door, its pages' policy, and that it is apart from the API."""

from __future__ import annotations

import asyncio

import pytest
from service import KEY, TOKEN, Service

from edge.appliance.console.guard import FIELDS
from edge.appliance.console.handlers import ROUTES
from edge.appliance.console.sessions import MAX_FAILURES
from tests.appliance.console.desk import Desk

SANDBOX = "sb_0123456789abcdef"
PATHS = [
    (
        method,
        path.replace("{sandbox:sb_[a-z0-9]{8,40}}", SANDBOX).replace("{grant}", "pvg_1"),
    )
    for method, path, _ in ROUTES
] + [("POST", "/logout")]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Cookie": "preview_console_{port}=" + "x" * 43},
        {"Cookie": "preview_console_{port}="},
        {"Cookie": "preview_console_{port}=\udcff"},
    ],
)
async def test_without_a_session_every_door_leads_to_the_login(
    service: Service, method: str, path: str, headers: dict[str, str]
) -> None:
    """Also with a key in the API's way, with a cookie nobody gave, and to what does not exist."""
    desk = Desk(service)
    headers = {k: v.replace("{port}", str(service.plane.port)) for k, v in headers.items()}
    ask = desk.get if method == "GET" else desk.post
    page = await ask(path, **headers)
    assert (page.status, page.location) == (303, "/console/login")


async def test_logging_in_and_out(service: Service) -> None:
    """The key once, in a body; then a cookie that scripts, other sites and other paths do not get."""
    desk = Desk(service)
    form = await desk.get("/login")
    assert form.status == 200 and "API key" in form.text
    (field,) = [a for a in form.all("input") if a["name"] == "key"]
    assert field["type"] == "password"
    answer = await desk.post("/login", {"key": f" {KEY} "})
    assert (answer.status, answer.location) == (303, "/console")
    name, *rest = answer.headers["Set-Cookie"].split("; ")
    assert name.startswith(f"preview_console_{service.plane.port}=") and KEY not in name
    assert {part.lower() for part in rest} == {"httponly", "path=/console", "samesite=strict"}
    assert (await desk.get()).status == 200
    assert (await desk.get("/login")).location == "/console"
    kept = desk.cookie
    left = await desk.post("/logout")
    assert left.location == "/console/login" and desk.cookie == ""
    desk.cookie = kept
    assert (await desk.get()).location == "/console/login"


async def test_each_login_is_a_new_session(desk: Desk) -> None:
    """What somebody may have planted or seen before is worth nothing afterwards."""
    before, token = desk.cookie, desk.token
    await desk.log_in()
    assert desk.cookie != before and desk.token != token
    desk.cookie = before
    assert (await desk.get()).location == "/console/login"


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x", KEY[:-1], TOKEN, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "é"])  # fmt: skip
async def test_another_key_opens_nothing(service: Service, key: str) -> None:
    """The page says so, without a word of what was given."""
    page = await Desk(service).post("/login", {"key": key})
    assert page.status == 403 and "That is not the API key." in page.text
    assert "Set-Cookie" not in page.headers
    assert not key or key not in page.html


async def test_guessing_is_slow(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """After so many wrong keys, also at once, even the right one waits; who is in stays in."""
    inside = Desk(service)
    await inside.log_in()
    desk = Desk(service)
    pages = await asyncio.gather(*(desk.post("/login", {"key": "x"}) for _ in range(40)))
    statuses = [page.status for page in pages]
    assert (statuses.count(403), statuses.count(429)) == (MAX_FAILURES, 40 - MAX_FAILURES)
    late = await desk.log_in()
    assert late.status == 429 and 0 < int(late.headers["Retry-After"]) <= 60
    assert (await inside.get()).status == 200
    assert (await service.api("GET", "/v1/sandboxes"))[0] == 200
    assert capsys.readouterr().err.count("console_login_suspended") == 1


@pytest.mark.parametrize("path", ["", "/events", "/login", "/console.css", "/nothing", "/stream/x"])
async def test_every_answer_has_the_policy(desk: Desk, path: str) -> None:
    """No script but ours, no frame, no cache, no address for others; on refusals, too."""
    page = await desk.get(path)
    assert FIELDS.items() <= dict(page.headers).items()
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for part in ("script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy.split("; ")
    assert not any(name.startswith("on") or name == "style" for _, a in page.elements for name in a)
    assert not page.all("style") and all("src" in script for script in page.all("script"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/sandboxes/sb_UPPER123", 404),
        ("GET", "/sandboxes/sb_unknown1", 404),
        ("GET", "/sandboxes/..%2f..%2fv1", 404),
        ("GET", "/console.py", 404),
        ("GET", "/../v1/sandboxes", 401),
        ("POST", "/events", 405),
        ("GET", "/logout", 405),
    ],
)
async def test_what_is_not_there(desk: Desk, method: str, path: str, status: int) -> None:
    """A page that leads back; outside of the console the API's own refusal."""
    page = await (desk.get(path) if method == "GET" else desk.post(path))
    assert page.status == status
    if status != 401:
        assert [a["href"] for a in page.all("a")][-1] == "/console"
    assert ("Allow" in page.headers) is (status == 405)


async def test_the_session_is_no_key_of_the_api(service: Service, desk: Desk) -> None:
    """The cookie opens the console and nothing else."""
    for path in ("/v1/sandboxes", "/internal/operator/v1/audit", "/consoles", "/"):
        answer, _ = await service.raw("GET", path, headers={"Cookie": desk.cookie})
        assert answer.status == 401


async def test_no_secret_is_on_any_page(service: Service, desk: Desk) -> None:
    """Neither key, nor service token, nor session id; the form's token only in forms."""
    sandbox = await service.create()
    for path in ("", "/events", f"/sandboxes/{sandbox}", f"/sandboxes/{sandbox}/kill"):
        page = await desk.get(path)
        assert page.status == 200
        for secret in (KEY, TOKEN, desk.cookie.partition("=")[2]):
            assert secret not in page.html
        forms = [a for a in page.all("input") if a.get("name") == "token"]
        assert page.html.count(desk.token) == len(forms) > 0
        assert all(form["method"] == "post" for form in page.all("form"))


async def test_what_cannot_be_written_is_told_on_a_page(service: Service, desk: Desk) -> None:
    """A full disk is not hidden, and the button that was pressed has done nothing."""
    sandbox = await service.create()
    service.plane.parts.store.write("PRAGMA query_only = ON")
    page = await desk.post(f"/sandboxes/{sandbox}/links", {"port": "80", "seconds": "900"})
    service.plane.parts.store.write("PRAGMA query_only = OFF")
    assert page.status >= 500 and page.headers["Content-Type"].startswith("text/html")
    assert "There is none yet." in (await desk.get(f"/sandboxes/{sandbox}")).text
