"""Reports: what may be told, by the shape of the telling."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest

from edge.core.reports import End, ExchangeReport, Observer, Role, WakeReport
from edge.ops.telemetry import Telemetry


@pytest.mark.parametrize("label", [*End, *Role])
def test_labels_are_plain_words(label: str) -> None:
    """They become values of metric labels and of log fields, which people type into queries."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", label)


@pytest.mark.parametrize("report", [ExchangeReport, WakeReport])
def test_no_report_has_room_for_a_credential(report: type) -> None:
    """What is never told cannot be logged."""
    names = {field.name for field in dataclasses.fields(report)}
    assert not [n for n in names if re.search("token|cookie|query|referer|authori|header|url", n)]


def test_telemetry_hears_everything_there_is_to_tell() -> None:
    """The one production observer has every method of the protocol, with the same parameters."""
    for name, told in inspect.getmembers(Observer, inspect.isfunction):
        if not name.startswith("_"):
            heard = getattr(Telemetry, name)
            assert list(inspect.signature(heard).parameters) == list(
                inspect.signature(told).parameters
            ), name
