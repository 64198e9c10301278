"""What the tests of this room share: virtual time, and a state port that answers as a test scripts it."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "model")]
