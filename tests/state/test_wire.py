"""The wire format: everything written is read back, and nothing that does not fit is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from edge.state import wire
from edge.state.port import Change, Heartbeat, Resync, Usage, UsageBatch
from edge.state.wire import WireError

settings.register_profile("wire", deadline=None, database=None)
settings.load_profile("wire")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
time = st.floats(allow_nan=False, allow_infinity=False)
count = st.integers(0, 2**63 - 1)
number = st.integers(1, 65535)

sandboxes = st.builds(
    SandboxRecord,
    text,
    st.sampled_from(State),
    count,
    count,
    st.booleans(),
    st.none() | time,
    st.none()
    | st.builds(
        Upstream, text, st.none() | st.dictionaries(number, number, max_size=3), st.booleans()
    ),
    st.none() | text,
    st.none() | text,
    st.booleans(),
)
grants = st.builds(
    GrantRecord,
    text,
    text,
    number,
    st.frozensets(st.sampled_from(Transport)),
    st.sampled_from(GrantStatus),
    time,
    count,
)
usages = st.builds(
    Usage, text, text, count, count, count, count, st.booleans(), st.none() | text, st.none() | time
)
events = (
    st.builds(Change, count, sandboxes | grants)
    | st.builds(Heartbeat, count)
    | st.builds(Resync, count)
)


@given(sandboxes)
def test_sandboxes_come_back(record):
    """Any sandbox record survives the wire."""
    assert wire.sandbox_from_json(wire.sandbox_to_json(record)) == record


@given(grants)
def test_grants_come_back(record):
    """Any grant record survives the wire."""
    assert wire.grant_from_json(wire.grant_to_json(record)) == record


@given(st.builds(UsageBatch, text, count, st.lists(usages, max_size=4).map(tuple)))
def test_usage_comes_back(batch):
    """Any batch survives the wire."""
    assert wire.usage_from_json(wire.usage_to_json(batch)) == batch


@given(events)
def test_events_come_back(event):
    """Any watch event survives the wire, as one line of text."""
    line = wire.event_to_json(event)
    assert "\n" not in line
    assert wire.event_from_json(line) == event


READERS = [
    wire.sandbox_from_json,
    wire.grant_from_json,
    wire.usage_from_json,
    wire.event_from_json,
    wire.resume_from_json,
    wire.ack_from_json,
]


@pytest.mark.parametrize("read", READERS)
@given(data=st.binary(max_size=60) | st.text(max_size=60))
def test_noise_is_refused(read, data):
    """Noise raises WireError and nothing else."""
    with pytest.raises(WireError):
        read(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)

GRANT = {
    "id": "g",
    "sandbox_id": "s",
    "port": 3000,
    "kinds": ["http_port"],
    "status": "active",
    "expires_at": 5.0,
    "version": 1,
}
SANDBOX = {"id": "s", "state": "running", "version": 1, "incarnation": 1, "upstream": {"host": "h"}}


@pytest.mark.parametrize("key", sorted(GRANT))
@given(value=json_values)
def test_one_wrong_value_never_crashes(key, value):
    """A record with any JSON value in any place is read as it stands or refused."""
    try:
        record = wire.grant_from_json(json.dumps(GRANT | {key: value}))
    except WireError:
        return
    assert json.loads(wire.grant_to_json(record))[key] == value


@pytest.mark.parametrize("key", sorted(GRANT))
def test_every_key_of_a_grant_is_needed(key):
    """A grant without one of its facts is no grant."""
    rest = {name: value for name, value in GRANT.items() if name != key}
    with pytest.raises(WireError, match=key):
        wire.grant_from_json(json.dumps(rest))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", "3000"),
        ("port", True),
        ("port", 3000.0),
        ("port", 0),
        ("port", 65536),
        ("version", "1"),
        ("expires_at", "5"),
        ("expires_at", True),
        ("expires_at", float("nan")),
        ("expires_at", float("inf")),
        ("status", "ACTIVE"),
        ("kinds", "http_port"),
        ("kinds", ["http_port", "ftp_port"]),
        ("id", 7),
    ],
)
def test_grants_are_strict(key, value):
    """What Python would take for a number or a time is not taken for one here."""
    with pytest.raises(WireError):
        wire.grant_from_json(json.dumps(GRANT | {key: value}))


def test_infinity_by_overflow_is_refused():
    """1e999 is well-formed JSON and would be a grant without end."""
    with pytest.raises(WireError):
        wire.grant_from_json(json.dumps(GRANT).replace("5.0", "1e999"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_resume", 1),
        ("auto_resume", "true"),
        ("previews_disabled", 0),
        ("running_since", float("nan")),
        ("upstream", "127.0.0.1"),
        ("upstream", {}),
        ("upstream", {"host": "h", "ports": {"http": 1}}),
        ("upstream", {"host": "h", "ports": {"80": 0}}),
        ("upstream", {"host": "h", "ports": {"65536": 80}}),
        ("upstream", {"host": "h", "ports": [80]}),
    ],
)
def test_sandboxes_are_strict(key, value):
    """A sandbox record leads only to ports that exist, and its flags are flags."""
    with pytest.raises(WireError):
        wire.sandbox_from_json(json.dumps(SANDBOX | {key: value}))


@pytest.mark.parametrize("kind", ["sandbox", "grant"])
def test_watched_records_are_held_to_the_same_rules(kind):
    """A record is not believed more because it came by the watch."""
    record = (GRANT | {"port": 70000}) if kind == "grant" else SANDBOX | {"running_since": "now"}
    with pytest.raises(WireError):
        wire.event_from_json(json.dumps({"type": kind, "cursor": 1, "record": record}))


def test_unknown_keys_are_passed_over():
    """A newer control plane may say more than we understand."""
    more = SANDBOX | {"region": "eu", "upstream": {"host": "h", "zone": 3}}
    assert wire.sandbox_from_json(json.dumps(more)).upstream == Upstream("h")
    call = wire.resume_from_json('{"paused_incarnation": 3, "later": true}')
    assert call == wire.ResumeCall(paused_incarnation=3, reason="preview", timeout=20.0)


@pytest.mark.parametrize("timeout", ["0", "-1", "NaN", "Infinity", "1e999", '"5"', "null"])
def test_resume_times_are_times(timeout):
    """A resume that would wait for ever, or not at all, is refused."""
    with pytest.raises(WireError, match="timeout"):
        wire.resume_from_json(f'{{"paused_incarnation": 3, "timeout": {timeout}}}')


def test_negative_counts_are_refused():
    """An edge cannot take usage back, nor have fewer than no exchanges under way."""
    item = {"sandbox_id": "s", "grant_id": "g", "bytes_in": -1}
    with pytest.raises(WireError):
        wire.usage_from_json(json.dumps({"edge": "e", "sequence": 1, "items": [item]}))
    with pytest.raises(WireError):
        wire.ack_from_json('{"edge": "e", "sandbox_id": "s", "version": 1, "in_flight": -1}')


@pytest.mark.parametrize(
    "wrong", [{"edge": "e" * 256}, {"sequence": -1}, {"sequence": 1 << 63}, {"bytes_in": 1 << 63}]
)
def test_usage_that_no_store_could_keep_is_refused(wrong):
    """Such a batch would be tried again for ever, and all that waits behind it would wait with it."""
    item = {"sandbox_id": "s", "grant_id": "g", "bytes_in": wrong.pop("bytes_in", 1)}
    with pytest.raises(WireError):
        wire.usage_from_json(json.dumps({"edge": "e", "sequence": 1, "items": [item]} | wrong))


def test_errors_do_not_quote_the_input():
    """The message says where and what, never what was there: it may be a secret in a wrong place."""
    with pytest.raises(WireError) as caught:
        wire.grant_from_json(json.dumps(GRANT | {"status": "hunter2-secret"}))
    assert "hunter2" not in str(caught.value)
    assert "status" in str(caught.value)


def test_only_events_are_written():
    """Anything else is a programming error, told at once."""
    with pytest.raises(TypeError):
        wire.event_to_json("heartbeat")
