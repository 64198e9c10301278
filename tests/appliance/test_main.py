"""``python -m edge.appliance``."""

from __future__ import annotations

import pytest

from edge.appliance.__main__ import main


def test_the_config_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without ``--config`` there is a usage line and status 2."""
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err


def test_a_wrong_config_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    """Status 2 and one line, not a traceback."""
    file = tmp_path / "config.json"
    file.write_text("{}")
    assert main(["--config", str(file)]) == 2
    text = capsys.readouterr().err
    assert text.startswith("config: ") and text.count("\n") == 1
