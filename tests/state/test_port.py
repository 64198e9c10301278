"""The state port's own types: what a refusal says, and that the words fit the wire."""

from __future__ import annotations

from edge.state.http import HttpStatePort
from edge.state.port import RefusalReason, ResumeRefused, StatePort


def test_refusals_say_why():
    """A refusal carries its reason, and shows it."""
    refusal = ResumeRefused(RefusalReason.TIMEOUT)
    assert refusal.reason is RefusalReason.TIMEOUT
    assert str(refusal) == "resume_timeout"


def test_reasons_are_the_codes_on_the_wire():
    """The reasons are spelled as the internal API spells its codes."""
    assert {str(reason) for reason in RefusalReason} == {
        "resume_failed", "not_found", "auto_resume_disabled", "resume_timeout",
    }  # fmt: skip


def test_the_http_adapter_is_complete():
    """The adapter has every method of the protocol (signatures are the type checker's)."""
    asked = {name for name in vars(StatePort) if not name.startswith("_")}
    assert asked == {"sandbox", "grant", "resume", "watch", "report", "ack", "close"}
    assert asked <= set(vars(HttpStatePort))
