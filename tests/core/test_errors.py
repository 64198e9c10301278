"""The table of errors against section 5 and 4 of the public contract, row by row."""

from __future__ import annotations

import contextlib
import re

import pytest

from edge.core import errors
from edge.core.errors import PROBLEMS, Blame, EdgeError, bad_request

# The contract, written down a second time on purpose: whoever changes a published code, status or
# retryable flag must change both, knowingly. None = the contract leaves "retryable" to us.
CONTRACT: dict[str, tuple[int, bool | None]] = {
    "edge_token_missing": (401, False),
    "edge_token_invalid": (401, False),
    "edge_token_expired": (401, False),
    "edge_token_scope_mismatch": (403, False),
    "preview_grant_invalid": (401, False),
    "preview_grant_revoked": (401, False),
    "preview_grant_disabled": (403, False),
    "preview_sandbox_disabled": (403, False),
    "preview_proxy_token_missing": (401, False),
    "preview_proxy_token_invalid": (401, False),
    "preview_proxy_token_expired": (401, False),
    "preview_proxy_token_revoked": (401, False),
    "preview_proxy_token_scope_mismatch": (403, False),
    "preview_proxy_token_disabled": (403, False),
    "traffic_access_token_missing": (401, False),
    "traffic_access_token_invalid": (401, False),
    "unsupported_preview_port": (400, False),
    "preview_host_unknown": (404, False),
    "sandbox_not_found": (404, False),
    "sandbox_not_ready": (503, None),
    "sandbox_error": (503, False),
    "bad_request": (400, False),
    "method_not_allowed": (405, False),
    "request_timeout": (408, None),
    "request_header_too_large": (431, False),
    "preview_loop": (508, False),
    "preview_service_not_ready": (502, None),
    "edge_runtime_host_unreachable": (502, None),
    "preview_upstream_closed": (502, None),
    "preview_upstream_invalid": (502, None),
    "preview_upstream_timeout": (504, None),
    "sandbox_paused_auto_resume_disabled": (503, False),
    "sandbox_resume_timeout": (503, True),
    "sandbox_resume_failed": (503, True),
    "control_plane_unavailable": (503, True),
    "preview_overloaded": (503, True),
    "wake_suppressed_by_policy": (503, True),
    "edge_draining": (503, True),
}

every_row = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def test_the_table_is_the_contract():
    """No code is missing, none is invented."""
    assert set(PROBLEMS) == set(CONTRACT)


@every_row
def test_rows_keep_their_status_and_flag(problem):
    """Status and retryable are as published."""
    status, retryable = CONTRACT[problem.code]
    assert problem.status == status
    if retryable is not None:
        assert problem.retryable is retryable


def test_codes_are_unique():
    """Each row is a module constant named after its code, and no row replaced another. One has a second wording."""
    constants = {
        name: value for name, value in vars(errors).items() if isinstance(value, errors.Problem)
    }
    assert constants.pop("APP_NOT_LISTENING").code == "sandbox_resume_timeout"
    assert {name.lower() for name in constants} == set(PROBLEMS)
    assert all(PROBLEMS[name.lower()] is value for name, value in constants.items())
    assert len({problem.code for problem in constants.values()}) == len(constants)


@every_row
def test_rows_are_for_people(problem):
    """Message and action are whole sentences that hold no placeholder and fit an HTML page."""
    assert re.fullmatch(r"[a-z][a-z_]*[a-z]", problem.code)
    for sentence in (problem.message, problem.action):
        assert re.fullmatch(r"[A-Z][^<>&{}%\r\n]+\.", sentence), sentence


@every_row
def test_retry_after_goes_with_503(problem):
    """What to do agrees with the status: 503 has Retry-After, so the action may speak of it.

    Every 503 is answered with ``Retry-After: 5`` by the one place that renders errors, whatever
    ``retryable`` says; other statuses have none, so their action must not refer to one.
    """
    if "Retry-After" in problem.action:
        assert problem.status == 503
        assert problem.retryable


@every_row
def test_blame_fits_the_status(problem):
    """A 4xx is never the edge's fault, a 502 or 504 never the client's; auth is never retryable."""
    assert isinstance(problem.blame, Blame)
    if problem.status < 500 or problem.status == 508:
        assert problem.blame is Blame.CLIENT
    if problem.status in (502, 504):
        assert problem.blame in (Blame.UPSTREAM, Blame.CONTROL_PLANE)
    if problem.status in (401, 403):
        assert not problem.retryable


def test_no_row_is_a_500():
    """An unexpected failure has no row: there is nothing to tell a client about our own bugs."""
    assert 500 not in {problem.status for problem in PROBLEMS.values()}


def test_refusals_survive_context_managers():
    """The standard library sets attributes of an exception that passes through; that must not replace it."""

    @contextlib.contextmanager
    def passing():
        yield

    with pytest.raises(EdgeError) as caught, passing():
        raise bad_request("two lengths")
    assert caught.value.problem is errors.BAD_REQUEST


def test_refusals_can_be_kept_in_sets():
    """Details are a mapping, which has no hash; the exception has one all the same."""
    first, second = bad_request("x"), bad_request("y")
    assert first == bad_request("x") != second
    assert len({first, second, bad_request("x")}) == 2


def test_bad_request_ends_the_connection():
    """After malformed bytes nobody knows where the next message starts."""
    error = bad_request("bare LF")
    assert error.close
    assert error.details == {"reason": "bare LF"}
    assert str(error) == "bad_request: The request is not well-formed HTTP/1.1."


def test_a_plain_refusal_keeps_the_connection():
    """Details are empty unless given, and the connection stays."""
    error = EdgeError(errors.SANDBOX_NOT_FOUND)
    assert (error.details, error.close, error.allow) == ({}, False, None)
