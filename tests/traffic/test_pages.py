"""Pages: every error as the contract shows it, to programs and to people."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import errors
from edge.core.errors import PROBLEMS, EdgeError, Problem, bad_request
from edge.core.head import Head
from edge.traffic.pages import RETRY_AFTER, render, wants_page
from edge.traffic.wording import WORDS, Retry
from tests.core.wires import UPGRADE, calm, request, scan

NAVIGATE = b"Sec-Fetch-Mode: navigate"
HTML = b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
GET, HEAD, POST = b"GET / HTTP/1.1", b"HEAD / HTTP/1.1", b"POST / HTTP/1.1"


def asked(*lines: bytes, line: bytes = GET) -> Head:
    """The head of such a request."""
    return scan(request(*lines, line=line))


def parse(answer: bytes, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body, as h11 sees exactly one answer."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer)
    response = connection.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data[0] == b""
    names = [name.decode() for name, _ in response.headers]
    assert len(set(names)) == len(names)
    return response.status_code, {n.decode(): v.decode() for n, v in response.headers}, body


@pytest.mark.parametrize(
    ("head", "page"),
    [
        (asked(NAVIGATE), True),
        (asked(NAVIGATE, b"Sec-Fetch-Dest: iframe", b"Sec-Fetch-Site: cross-site"), True),
        (asked(NAVIGATE, line=POST), True),
        (asked(NAVIGATE, b"Accept: application/json"), True),
        (asked(b"Sec-Fetch-Mode: cors", HTML), False),
        (asked(b"Sec-Fetch-Mode: no-cors", HTML), False),
        (asked(b"Sec-Fetch-Mode: navigate-x", HTML), False),
        (asked(b"Sec-Fetch-Mode:", HTML), False),
        (asked(HTML), True),
        (asked(HTML, line=HEAD), True),
        (asked(HTML, line=POST), False),
        (asked(), False),
        (asked(b"Accept: */*"), False),
        (asked(b"Accept: TEXT/HTML"), True),
        (asked(b"Accept: application/json, text/html"), False),
        (asked(b"Accept: application/json;q=0.5, text/html"), True),
        (asked(b"Accept: text/html;q=0.5, application/json;q=0.9"), False),
        (asked(b"Accept: text/html;q=0"), False),
        (asked(b"Accept: text/html;q=nonsense"), False),
        (asked(b"Accept: text/html;q=nan"), False),
        (asked(b"Accept: text/html;level=1;Q=0.3"), True),
        (asked(b"Accept: text/html\xff"), False),
        (asked(b"Accept: ;;,,;q=,"), False),
        # A proxy and a socket are programs, whatever else they say.
        (asked(NAVIGATE, b"x-nullspace-preview-proxy-token: t"), False),
        (asked(NAVIGATE, line=b"GET /?__ns_preview_transport=header HTTP/1.1"), False),
        (asked(NAVIGATE, *UPGRADE), False),
    ],
)
def test_who_gets_a_page(head: Head, page: bool) -> None:
    """Navigations, and nobody else (contract: errors)."""
    assert wants_page(head) is page
    _, fields, _ = parse(
        render(EdgeError(errors.EDGE_TOKEN_MISSING), head, "id", close=False), head.method.decode()
    )
    assert fields["content-type"] == ("text/html; charset=utf-8" if page else "application/json")


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=lambda problem: problem.code)
@pytest.mark.parametrize("lines", [(), (NAVIGATE,)], ids=["program", "person"])
def test_every_error_has_its_fields(problem: Problem, lines: tuple[bytes, ...]) -> None:
    """Status, id, no-store, Retry-After with every 503 and a challenge with every 401, in both shapes."""
    status, fields, body = parse(render(EdgeError(problem), asked(*lines), "id-1", close=False))
    assert status == problem.status
    assert fields["x-request-id"] == "id-1"
    assert fields["cache-control"] == "no-store"
    assert fields.get("retry-after") == (str(RETRY_AFTER) if status == 503 else None)
    challenge = 'NullspacePreview realm="preview"'
    assert fields.get("www-authenticate") == (challenge if status == 401 else None)
    assert "connection" not in fields and "allow" not in fields and "set-cookie" not in fields
    if lines:
        text = body.decode()
        assert problem.code in text and "id-1" in text
        assert fields["referrer-policy"] == "no-referrer"
    else:
        assert json.loads(body) == {
            "error": problem.message,
            "code": problem.code,
            "request_id": "id-1",
            "retryable": problem.retryable,
            "suggested_action": problem.action,
        }


def test_details_and_allow() -> None:
    """Details only when there are any; Allow with a 405."""
    error = EdgeError(errors.UNSUPPORTED_PREVIEW_PORT, {"port": 22})
    assert json.loads(parse(render(error, asked(), "id", close=False))[2])["details"] == {
        "port": 22
    }
    error = EdgeError(errors.METHOD_NOT_ALLOWED, {"method": "TRACE"}, close=True, allow="GET, HEAD")
    status, fields, _ = parse(render(error, None, "id", close=True))
    assert (status, fields["allow"], fields["connection"]) == (405, "GET, HEAD", "close")


def test_a_request_that_could_not_be_read_gets_json() -> None:
    """There is no head to judge by."""
    _, fields, body = parse(render(bad_request("why"), None, "id", close=True))
    assert fields["content-type"] == "application/json"
    assert json.loads(body)["details"] == {"reason": "why"}


@pytest.mark.parametrize(
    ("minor", "close", "connection"),
    [(1, False, None), (1, True, "close"), (0, True, "close"), (0, False, "keep-alive")],
)
def test_persistence_is_said(minor: int, close: bool, connection: str | None) -> None:
    """RFC 9112 section 9.3, for both versions."""
    head = asked(line=b"GET / HTTP/1.%d" % minor)
    answer = render(EdgeError(errors.EDGE_TOKEN_MISSING), head, "id", close=close)
    assert parse(answer)[1].get("connection") == connection


@pytest.mark.parametrize("lines", [(), (NAVIGATE,)])
def test_head_gets_the_head_of_what_get_gets(lines: tuple[bytes, ...]) -> None:
    """RFC 9110 section 9.3.2: the same fields, no body."""
    error = EdgeError(errors.SANDBOX_NOT_FOUND)
    status, fields, body = parse(render(error, asked(*lines), "id", close=False))
    to_head = parse(render(error, asked(*lines, line=HEAD), "id", close=False), "HEAD")
    assert body
    fields["date"] = to_head[1]["date"]
    assert to_head == (status, fields, b"")


def page_of(error: EdgeError, *lines: bytes, line: bytes = GET) -> str:
    """The page a navigation gets."""
    head = asked(NAVIGATE, *lines, line=line)
    return parse(render(error, head, "id-1", close=False))[2].decode()


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=lambda problem: problem.code)
def test_who_tries_again(problem: Problem) -> None:
    """By itself, with and without scripts, or by a link, or not at all; and never a form."""
    retry = WORDS[problem.code].retry
    page = page_of(EdgeError(problem))
    alone = f"by itself every {RETRY_AFTER} seconds" in page
    assert alone is (f'<noscript><meta http-equiv="refresh" content="{RETRY_AFTER};' in page)
    assert alone is (f'<body data-seconds="{RETRY_AFTER}">' in page) is (retry is Retry.ALONE)
    link = '<a id="again" href=""' in page
    assert link is ("<script>" in page) is (retry is not Retry.NEVER)
    form = page_of(EdgeError(problem), line=POST)
    assert "refresh" not in form and "data-seconds" not in form and "<script" not in form
    assert ("sent a form" in form) is (retry is not Retry.NEVER)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=lambda problem: problem.code)
def test_the_policy_allows_this_page_and_no_other(problem: Problem) -> None:
    """The only style and the only script are the ones whose hashes the policy names."""
    _, fields, body = parse(render(EdgeError(problem), asked(NAVIGATE), "id", close=False))
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in fields["content-security-policy"].split(";")
    )
    assert policy.keys() == {
        "default-src", "style-src", "script-src", "img-src", "base-uri", "form-action",
    }  # fmt: skip
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    page = body.decode()
    for tag in ("style", "script"):
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(texts) == page.count(f"<{tag}") <= 1
        for text in texts:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    before = page.partition("<script>")[0]
    assert not re.search(r"\son[a-z]+=|\sstyle=|https?:|//", before)
    named = re.findall(
        r"""(?:href|src|srcset|data|action|poster)=["']?([^"' >]*)|url\(["']?([^"')]*)""", before
    )
    assert set(map("".join, named)) <= {"", "data:,"}, "it would load something"


@pytest.mark.parametrize(
    ("details", "title"),
    [
        ({"port": 3000}, "Nothing listens on port 3000"),
        ({"port": 65535}, "Nothing listens on port 65535"),
        ({}, "Nothing listens on this port"),
        ({"port": "<b>3000</b>"}, "Nothing listens on this port"),
        ({"port": 0}, "Nothing listens on this port"),
        ({"port": 65536}, "Nothing listens on this port"),
    ],
)
def test_the_port_is_named_where_it_is_one(details: dict[str, object], title: str) -> None:
    """A port is shown as a number of a port, and then with examples that hold it, or not at all."""
    page = page_of(EdgeError(errors.PREVIEW_SERVICE_NOT_READY, details))
    assert f"<title>{title}</title>" in page and f"<h1>{title}</h1>" in page
    assert "<b>" not in page and "{" not in page.partition("</style>")[2].partition("<script>")[0]
    known = details.get("port") in (3000, 65535)
    assert (f"<span>{details.get('port')}</span>" in page) is known
    assert ("<pre>" in page) is known


SAYS: dict[str, tuple[str, ...]] = {
    "preview_service_not_ready": (
        "Nothing listens on port 3000",
        "The sandbox is running",
        "no app accepts connections on port 3000",
        "Let it listen on 0.0.0.0, not on localhost only",
        "--host 0.0.0.0 --port 3000",
        "Tries again by itself",
    ),
    "sandbox_resume_timeout": ("is waking up", "Tries again by itself"),
    "sandbox_not_ready": ("is being created", "Tries again by itself"),
    "sandbox_paused_auto_resume_disabled": ("is paused", "does not wake by itself", "Resume it"),
    "edge_token_expired": ("link has expired", "a new one"),
    "preview_grant_revoked": ("link was withdrawn", "revoked", "a new one"),
    "sandbox_not_found": ("is gone", "destroyed, or there never was one", "Create a new sandbox"),
    "preview_host_unknown": ("no preview at this address",),
    "preview_overloaded": ("Too busy", "Tries again by itself"),
}
"""What a page cannot do without, in the words of a visitor."""


@pytest.mark.parametrize("code", SAYS)
def test_what_a_page_has_to_say(code: str) -> None:
    """What is the matter, which port, whether the sandbox runs, and what helps."""
    page = page_of(EdgeError(PROBLEMS[code], {"port": 3000}))
    main = page.partition("<main>")[2].partition("</main>")[0]
    shown = " ".join(re.sub(r"<[^>]*>", "", main).split())
    assert [words for words in SAYS[code] if words not in shown] == []


def test_a_page_shows_nothing_of_the_request_but_its_id() -> None:
    """Address, token, cookie, referrer and agent: none of them, whatever is in them."""
    secret = b"eyJ0eXAi.s3cret.s1g"
    page = page_of(
        EdgeError(errors.EDGE_TOKEN_INVALID),
        b"Cookie: __Host-ns_preview=" + secret,
        b"Referer: https://x/?edge_token=" + secret,
        b"User-Agent: " + secret,
        line=b"GET /s3cret?edge_token=" + secret + b"&s3cret HTTP/1.1",
    )
    assert "s3cret" not in page and "eyJ0" not in page
    assert page == page_of(EdgeError(errors.EDGE_TOKEN_INVALID))


def test_each_request_gets_its_own_id() -> None:
    """What is remembered of a page is everything but the id, which is escaped like all else."""
    for request_id in ("one", "two", "<script>3</script>", "<request-id>"):
        answer = render(EdgeError(errors.EDGE_DRAINING), asked(NAVIGATE), request_id, close=False)
        shown = request_id.replace("<", "&lt;").replace(">", "&gt;")
        assert f"<dd>{shown}</dd>".encode() in answer


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)


# No code of the table: a page has words of its own for those, and they may have more tags.
@given(
    st.text(max_size=60)
    .filter(lambda text: text not in errors.PROBLEMS)
    .map(lambda text: text.replace("`", "'"))
)
@calm
def test_nothing_breaks_out_of_a_page(text: str) -> None:
    """Messages are ours, but a page that relies on that is one edit away from a hole."""
    problem = Problem(text, 503, True, errors.Blame.EDGE, text, text)
    answer = render(EdgeError(problem), asked(NAVIGATE), "id", close=False)
    tags = Tags()
    tags.feed(parse(answer)[2].decode("utf-8", "surrogatepass"))
    seen = "html head meta meta meta title link style body main svg path h1 p div a dl dt dd dt dd dt dd script"
    assert tags.seen == seen.split()
