"""The stage of whole flows, with a clock that tests move, for all that happens at the edge's deadlines."""

from __future__ import annotations

from tests.flows.conftest import make_stage, stage

__all__ = ["make_stage", "stage"]
