"""Field lines: one grammar, one table of names, and memories that a stranger cannot fill."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import fields
from edge.core.fields import (
    NO_CONNECTION,
    Connection,
    FieldReader,
    Kind,
    has_half_end,
    known_connection,
    read_connection,
    read_length,
)
from tests.core.wires import BAD_LINES, LINES, calm


@pytest.mark.parametrize(
    ("data", "bad"),
    [
        (b"", False),
        (b"a: b", False),
        (b"a\r\nb\r\n", False),
        (b"a\r", False),  # its LF may come
        (b"a\n", True),
        (b"\n", True),
        (b"a\rb", True),
        (b"a\r\r\n", True),
        (b"a\r\n\n", True),
        (b"\n\r", True),
    ],
)
def test_half_an_end_of_line_is_seen_wherever_reads_are_cut(data: bytes, bad: bool) -> None:
    """A lone CR or LF, in whichever of two reads it comes; a whole CR LF is never taken for two halves."""
    assert has_half_end(data) is bad
    for cut in range(len(data) + 1):
        assert (has_half_end(data[:cut]) or has_half_end(bytearray(data), cut)) is bad


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (b"Accept: a", b"accept", b"a"),
        (b"Accept:a", b"accept", b"a"),
        (b"ACCEPT: \t a \t ", b"accept", b"a"),
        (b"x:", b"x", b""),
        (b"X-Y: a:b: c", b"x-y", b"a:b: c"),
        (b"X-Latin: \xff\x80", b"x-latin", b"\xff\x80"),
        (b"!#$%&'*+-.^_`|~09azAZ: 1", b"!#$%&'*+-.^_`|~09azaz", b"1"),
    ],
)
def test_a_field_line_is_read_and_kept_as_sent(line: bytes, name: bytes, value: bytes) -> None:
    """The name is lowered and the value trimmed beside the line, which stays as it was."""
    field = FieldReader.for_requests().read(line)
    assert field is not None
    assert (field.name, field.value, field.line) == (name, value, line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no colon",
        b": no name",
        b"Name : space",
        b"Name\t: tab",
        b" folded: line",
        b"\tfolded",
        b"a b: c",
        b"(x): c",
        b"n\xe4me: c",
        b"X: a\rb",
        b"X: a\nb",
        b"X: a\r\n b",
        b"X: a\x00b",
        b"X: \x0b",
        b"X: \x7f",
        b"X\x00: a",
        b"X: a\n",
    ],
)
def test_what_is_no_field_line_is_not_read(line: bytes) -> None:
    """RFC 9112 section 5: no control bytes, no folding, no blank before the colon, on either side."""
    assert FieldReader.for_requests().read(line) is None
    assert FieldReader.for_answers().read(line) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"Accept", Kind.KEEP),
        (b"X_Custom", Kind.KEEP),
        (b"HOST", Kind.HOST),
        (b"Keep-Alive", Kind.DROP),
        (b"Proxy-Authorization", Kind.DROP),
        (b"X-Forwarded-For", Kind.FORWARDED),
        (b"X-Forwarded-Anything", Kind.FORWARDED),
        (b"Forwarded", Kind.FORWARDED),
        (b"X-Nullspace-Anything", Kind.DROP),
        (b"x-nullspace-preview-proxy-token", Kind.PROXY_TOKEN),
        (b"x-nullspace-traffic-access-token", Kind.TRAFFIC_TOKEN),
        # Twins: what CGI-like apps would take them for.
        (b"Content_Length", Kind.FORBIDDEN),
        (b"TRANSFER_encoding", Kind.FORBIDDEN),
        (b"X_Forwarded_For", Kind.DROP),
        (b"X-Forwarded_Proto", Kind.DROP),
        (b"X_Nullspace_Traffic_Access_Token", Kind.DROP),
        (b"X_Request_Id", Kind.DROP),
        (b"Proxy_Connection", Kind.DROP),
    ],
)
def test_request_names_mean_what_the_table_says(name: bytes, kind: Kind) -> None:
    """Letter case never matters; a twin with underscores gets nowhere."""
    field = FieldReader.for_requests().read(name + b": 1")
    assert field is not None
    assert field.kind is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"Set-Cookie", Kind.SET_COOKIE),
        (b"Host", Kind.KEEP),
        (b"X-Forwarded-For", Kind.KEEP),
        (b"Trailer", Kind.KEEP),
        (b"Content_Length", Kind.FORBIDDEN),
        (b"Set_Cookie", Kind.DROP),
        (b"Keep-Alive", Kind.DROP),
    ],
)
def test_answer_names_have_a_table_of_their_own(name: bytes, kind: Kind) -> None:
    """What is special in a request may be an ordinary field of an answer."""
    field = FieldReader.for_answers().read(name + b": 1")
    assert field is not None
    assert field.kind is kind


@given(st.binary(max_size=40) | st.sampled_from(LINES + BAD_LINES))
@calm
def test_lines_that_pass_also_pass_h11(line: bytes) -> None:
    """h11 is more lenient than we are, never less, and reads the same name and value."""
    field = FieldReader.for_answers().read(line)
    if field is not None and field.kind not in (Kind.CONTENT_LENGTH, Kind.TRANSFER_ENCODING):
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        connection.receive_data(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n")
        event = connection.next_event()
        assert isinstance(event, h11.Response)
        assert list(event.headers) == [(field.name, field.value)]


def test_a_referer_matters_when_it_may_hold_a_credential() -> None:
    """However many that hold none came before under the same name; pages have queries of their own, too."""
    reader = FieldReader.for_requests()
    secrets = [b"Referer: https://a/?edge_token=x", b"Referer: /?a&__ns_preview_transport=header"]
    others = [b"Referer: https://a/b", b"Referer: /?edge_tokens", b"Referer: /edge_token=x"]
    for _ in range(2):
        assert reader.special([*others, *secrets, *others]) == secrets


SECRETS = (
    b"Cookie: a=1",
    b"Authorization: Bearer x",
    b"Sec-WebSocket-Key: x",
    b"Referer: /?edge_token=x",
    b"Referer: /?session=x",
    b"x-nullspace-preview-proxy-token: x",
    b"x-nullspace-traffic-access-token: x",
    b"Proxy-Authorization: x",
    b"X-Request-Id: x",
)


def remembered(reader: FieldReader) -> set[bytes]:
    """Every line that the reader holds on to."""
    by_name = [line for one in reader._habits.values() for line in one.lines or ()]
    assert set(by_name) == reader._plain and len(by_name) == len(reader._plain)
    return reader._plain | set(reader._special)


def test_secrets_and_long_lines_are_not_remembered() -> None:
    """What a memory does not hold cannot leak from it, and 64 kB lines cannot fill it."""
    reader = FieldReader.for_requests()
    for line in (*SECRETS, b"X-Long: " + b"a" * 300, b"X" * 300 + b": a"):
        for one in (line, line, line + b"y"):
            assert reader.read(one) is not None
            assert reader.special([one]) is not None
    assert remembered(reader) == set()
    answers = FieldReader.for_answers()
    assert answers.special([b"Set-Cookie: a=1"] * 2) is not None
    assert remembered(answers) == set()


def test_harmless_lines_are_remembered() -> None:
    """Those that mean nothing and those that do."""
    reader = FieldReader.for_requests()
    lines = [b"Accept: a", b"Via: 1.1 b", b"accept: a", b"Accept: c", b"Referer: https://a/b"]
    assert reader.special(lines) == [b"Via: 1.1 b"]
    assert remembered(reader) == set(lines)
    assert reader.read(b"Via: 1.1 b") is reader.read(b"Via: 1.1 b")


def test_the_memory_of_lines_is_bounded() -> None:
    """However many lines and names strangers invent."""
    reader = FieldReader.for_requests()
    for i in range(fields._NAMES_MAX + 10):
        many = [b"X-%d: %d" % (i, n) for n in range(fields._LINES_PER_NAME + 10)]
        assert reader.special([*many, b"Via: %d" % i]) == [b"Via: %d" % i]
        assert len(reader._habits) <= fields._NAMES_MAX
        assert len(remembered(reader)) <= len(reader._habits) * fields._LINES_PER_NAME + i + 1
    assert reader.special(b"Via: x%d" % i for i in range(fields._SPECIAL_MAX + 10)) is not None
    assert len(reader._special) <= fields._SPECIAL_MAX


def test_a_name_with_ever_new_lines_pushes_out_no_others() -> None:
    """A trace id in every message costs its own name's room."""
    reader = FieldReader.for_answers()
    for i in range(10 * fields._LINES_PER_NAME):
        assert reader.special([b"Server: x", b"X-Trace: %d" % i]) == []
    assert b"Server: x" in reader._plain
    assert len(reader._plain) <= fields._LINES_PER_NAME + 1


@given(
    st.lists(
        st.builds(
            b"".join,
            st.tuples(
                st.sampled_from(
                    [b"Accept", b"accept", b"Referer", b"X-Forwarded-For", b"Content_Length"]
                    + [line.partition(b":")[0] for line in SECRETS]
                ),
                st.sampled_from((b":", b": ", b" :", b"", b":\t")),
                st.sampled_from((b"a", b"a?b", b"\x80", b"")) | st.binary(max_size=3),
            ),
        )
        | st.sampled_from(LINES + BAD_LINES),
        max_size=12,
    ),
    st.booleans(),
)
@calm
def test_what_is_remembered_of_lines_and_names_changes_nothing(
    lines: list[bytes], answers: bool
) -> None:
    """A reader that has read them all says of each what one says that sees it for the first time."""
    make = FieldReader.for_answers if answers else FieldReader.for_requests
    remembering = make()
    known: list[bytes] = []
    for line in lines * 2:
        field = make().read(line)
        expected = None if field is None else [line] if field.kind else []
        assert make().special([line]) == expected
        assert remembering.special([line], known) == expected
        assert remembering.read(line) == field
        known = expected or known


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", NO_CONNECTION),
        (b" , ,", NO_CONNECTION),
        (b"close", Connection(True, False, False, frozenset())),
        (b"Keep-Alive", Connection(False, True, False, frozenset())),
        (b"keep-alive , CLOSE", Connection(True, True, False, frozenset())),
        (
            b"Upgrade, HTTP2-Settings",
            Connection(False, False, True, frozenset({b"http2-settings"})),
        ),
        (b"Host,cookie", Connection(False, False, False, frozenset({b"host", b"cookie"}))),
        (b"a b", None),
        (b"close;x", None),
        (b'"close"', None),
        (b"caf\xe9", None),
    ],
)
def test_connection_options(value: bytes, expected: Connection | None) -> None:
    """A list of tokens (RFC 9110 section 7.6.1), read the same with and without memory."""
    assert read_connection(value) == expected
    assert known_connection(value) == expected
    assert known_connection(value) == expected


def test_two_connection_fields_mean_both() -> None:
    """RFC 9110 section 5.3: several field lines are one list."""
    one, two = read_connection(b"close, a"), read_connection(b"upgrade, b")
    assert one is not None and two is not None
    assert one.joined(two) == Connection(True, False, True, frozenset({b"a", b"b"}))


def test_the_memory_of_connection_values_is_bounded_in_number_and_size() -> None:
    """A value of thousands of options is read, not kept: 256 of them would be half a gigabyte."""
    memory = fields._remembered.cache_info
    for i in range(300):
        assert known_connection(b"x-%d" % i) is not None
    before = memory()
    assert before.currsize == before.maxsize == 256
    long = b",".join(b"%x" % i for i in range(10_000))
    read = known_connection(long)
    assert read is not None and len(read.names) == 10_000
    assert memory() == before


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0", 0),
        (b"00042", 42),
        (b"9" * 18, 10**18 - 1),
        (b"9" * 19, None),
        (b"", None),
        (b"+1", None),
        (b"-1", None),
        (b"1 ", None),
        (b"1,1", None),
        (b"0x10", None),
        (b"1_0", None),
        (b"1.0", None),
        ("\u0661".encode(), None),
    ],
)
def test_lengths_are_plain_digits(value: bytes, expected: int | None) -> None:
    """RFC 9110 section 8.6: 1*DIGIT; what Python's int() takes besides is refused."""
    assert read_length(value) == expected
