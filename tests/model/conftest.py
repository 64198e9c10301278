"""Model tests: the catalog, wakes and pause barrier on a loop whose time is a number."""

from __future__ import annotations

import sys
from pathlib import Path

# Test folders are no packages; the model's own modules (virtual, plane, world) live beside the tests.
sys.path.insert(0, str(Path(__file__).parent))
