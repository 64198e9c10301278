"""Memory: what a process takes, what it may take, and when new work is shed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from edge.core.settings import AdmissionSettings, WakeSettings
from edge.ops import memory
from edge.ops.memory import Pressure, bound, container_limit, resident, shed
from edge.wake.admission import Admission


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the resident memory of now")
def test_resident_memory_grows_with_what_is_held() -> None:
    """In bytes: 64 MB that are written to are seen."""
    before = resident()
    held = bytearray(b"x") * 64_000_000
    assert resident() - before > 50_000_000
    assert len(held) == 64_000_000


def _groups(root: Path, **limits: str) -> Path:
    """``a/b/c`` below ``root``, with these limits; and a membership file that names ``a/b``."""
    for name, text in limits.items():
        place = root / name.replace("_", "/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.max").write_text(text)
    membership = root / "membership"
    membership.write_text("1:name=systemd:/x\n0::/a/b\n")
    return membership


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"a": "max\n", "a_b": "1000\n"}, 1000),
        ({"a": "500\n", "a_b": "1000\n"}, 500),
        ({"a": "max\n", "a_b": "max\n"}, 0),
        ({"a_b_c": "7\n"}, 0),
    ],
)
def test_the_least_limit_around_the_process_counts(
    tmp_path: Path, limits: dict[str, str], expected: int
) -> None:
    """Of its own group and those above, never of one below."""
    assert container_limit(_groups(tmp_path, **limits), tmp_path) == expected


def test_no_control_groups_mean_no_limit(tmp_path: Path) -> None:
    """macOS, or version 1 alone."""
    assert container_limit(tmp_path / "none", tmp_path) == 0
    (tmp_path / "old").write_text("4:memory:/docker\n")
    assert container_limit(tmp_path / "old", tmp_path) == 0


def test_the_setting_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is per process; unset, workers share nine tenths of the container."""
    monkeypatch.setattr("edge.ops.memory.container_limit", lambda: 1000)
    assert (bound(None, 1), bound(None, 3), bound(0, 3), bound(5, 3)) == (900, 300, 0, 5)


def test_pressure_does_not_flicker() -> None:
    """High above the limit, relieved well below it; no limit, no pressure."""
    pressure = Pressure(1000)
    assert [pressure.high(taken) for taken in (1000, 1001, 980, 950, 990, 1001)] == [
        False, True, True, False, False, True,
    ]  # fmt: skip
    assert not Pressure(0).high(1 << 60)


async def test_short_memory_is_told_once_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pressed while it is high, and an event when that begins and when it ends."""
    taken = iter([900, 1001, 1001, 990, 940, 940])
    pressed: list[bool] = []
    told: list[str] = []
    admission = Admission(AdmissionSettings(), WakeSettings(), clock=lambda: 0.0)

    def look() -> int:
        pressed.append(admission.pressed)
        return next(taken)

    monkeypatch.setattr(memory, "resident", look)
    monkeypatch.setattr(memory, "INTERVAL", 0.0)
    with pytest.raises(RuntimeError):  # there is no more to look at
        await asyncio.wait_for(shed(admission, Pressure(1000), told.append), 20)
    assert pressed == [False, False, True, True, True, False, False]
    assert told == ["memory_short", "memory_relieved"]


async def test_without_a_limit_nobody_looks() -> None:
    """It returns at once."""
    admission = Admission(AdmissionSettings(), WakeSettings(), clock=lambda: 0.0)
    await asyncio.wait_for(shed(admission, Pressure(0), print), 20)
    assert not admission.pressed
