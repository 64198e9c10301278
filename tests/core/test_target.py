"""Targets: which Host values name a preview, and that nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import errors
from edge.core.errors import EdgeError
from edge.core.target import Target, parse_target, supported_port, target_reader
from tests.core.wires import calm

SITE = "preview.example"
TARGET = Target("sb_1a2b3c4d", 3000)


@pytest.mark.parametrize(
    "host",
    [
        b"3000-sb-1a2b3c4d.preview.example",
        b"3000-sb_1a2b3c4d.preview.example",
        b"3000-SB-1A2b3C4D.Preview.EXAMPLE",
        b"3000-sb-1a2b3c4d.preview.example:443",
        b"3000-sb_1a2b3c4d.preview.example:3001",
    ],
)
def test_all_spellings_mean_the_same_target(host: bytes) -> None:
    """Both label spellings, any letter case, with and without a port (contract: addresses)."""
    assert parse_target(host, SITE) == TARGET


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b".",
        b":",
        b":80",
        b"preview.example",
        b".preview.example",
        b"other.example",
        b"3000-sb-1a2b3c4d.preview.example.",
        b"3000-sb-1a2b3c4d.preview.example.evil.example",
        b"3000-sb-1a2b3c4d.evilpreview.example",
        b"3000-sb-1a2b3c4dxpreview.example",
        b"x.3000-sb-1a2b3c4d.preview.example",
        b"user@3000-sb-1a2b3c4d.preview.example",
        b"user:pw@3000-sb-1a2b3c4d.preview.example",
        b"3000-sb-1a2b3c4d.preview.example@evil.example",
        b"evil.example:80@3000-sb-1a2b3c4d.preview.example",
        b"3000-sb-1a2b3c4d.preview.example:",
        b"3000-sb-1a2b3c4d.preview.example:x",
        b"3000-sb-1a2b3c4d.preview.example:80:80",
        b"3000-sb-1a2b3c4d.preview.example:123456",
        b"3000-sb-1a2b3c4d.preview.example:\xb2",
        b"3000-sb-1a2b3c4d.preview.example/",
        b"3000-sb-1a2b3c4d.preview.example, x",
        b"3000-sb-1a2b3c4d .preview.example",
        b"3000-sb-short.preview.example",
        b"3000-sb-" + b"a" * 41 + b".preview.example",
        b"3000-sb-1a2b-3c4d.preview.example",
        b"3000-sb-1a2b%33c4d.preview.example",
        b"3000-sb-1a2b\xffc4d.preview.example",
        b"03000-sb-1a2b3c4d.preview.example",
        b"+3000-sb-1a2b3c4d.preview.example",
        b"-1-sb-1a2b3c4d.preview.example",
        b"123456-sb-1a2b3c4d.preview.example",
        b"sb-1a2b3c4d.preview.example",
        b"3000-1a2b3c4d.preview.example",
        b"3000--sb-1a2b3c4d.preview.example",
        b"[::1]:3000",
        b"127.0.0.1",
        "\u0663000-sb-1a2b3c4d.preview.example".encode(),
    ],
)
def test_everything_else_names_no_preview(host: bytes) -> None:
    """Odd authorities are strangers, not variations."""
    outcome = parse_target(host, SITE)
    assert isinstance(outcome, EdgeError)
    assert outcome.problem is errors.PREVIEW_HOST_UNKNOWN


@pytest.mark.parametrize("port", [0, 22, 5900, 5950, 5999, 65536, 99999])
def test_reserved_and_impossible_ports_are_refused_by_name(port: int) -> None:
    """400 with the port in the details (contract: addresses)."""
    outcome = parse_target(b"%d-sb-1a2b3c4d.preview.example" % port, SITE)
    assert isinstance(outcome, EdgeError)
    assert outcome.problem is errors.UNSUPPORTED_PREVIEW_PORT
    assert outcome.details == {"port": port}
    assert not supported_port(port)


@given(
    st.integers(1, 65535).filter(supported_port),
    st.from_regex(r"[a-z0-9]{8,40}", fullmatch=True),
    st.sampled_from("-_"),
    st.integers(0, 65535) | st.none(),
    st.booleans(),
)
@calm
def test_what_is_written_is_read_back(
    port: int, label: str, separator: str, suffix: int | None, upper: bool
) -> None:
    """Every possible target has an address that leads to it."""
    host = f"{port}-sb{separator}{label}.{SITE}" + ("" if suffix is None else f":{suffix}")
    expected = Target(f"sb_{label}", port)
    assert parse_target((host.upper() if upper else host).encode(), SITE) == expected


@given(st.binary(max_size=80))
@calm
def test_no_bytes_make_it_raise(noise: bytes) -> None:
    """A Host is a stranger's; the outcome is a target or an error that is a value."""
    for host in (noise, b"3000-sb-" + noise + b".preview.example", noise + b".preview.example"):
        assert isinstance(parse_target(host, SITE), Target | EdgeError)


def test_the_reader_remembers_a_bounded_number_of_hosts_of_bounded_size() -> None:
    """64 kB of Host is answered and forgotten."""
    read = target_reader(SITE, max_entries=4)
    memory = next(cell for cell in map(_content, read.__closure__ or ()) if isinstance(cell, dict))
    for i in range(20):
        assert read(b"%d-sb-1a2b3c4d.preview.example" % (3000 + i)) == Target(
            "sb_1a2b3c4d", 3000 + i
        )
        assert 0 < len(memory) <= 4
    kept = dict(memory)
    unknown = read(b"a" * 60_000)
    assert isinstance(unknown, EdgeError) and unknown.problem is errors.PREVIEW_HOST_UNKNOWN
    assert memory == kept


def _content(cell: object) -> object:
    return cell.cell_contents  # type: ignore[attr-defined]
