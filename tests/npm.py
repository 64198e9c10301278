"""Packages of npm for tests, in the versions that a lock file beside the tests fixes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def installed(folder: Path) -> Path:
    """Where the packages of the folder's ``package-lock.json`` are; installed the first time they are asked for.

    In the user's cache, by the lock file's hash, so that neither the repository nor another version
    of the lock file is in the way. Raises CalledProcessError with what npm said.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    lock = (folder / "package-lock.json").read_bytes()
    home = cache / "preview-edge" / f"{folder.name}-{hashlib.sha256(lock).hexdigest()[:16]}"
    modules = home / "node_modules"
    if modules.exists():
        return modules
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as fresh:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, fresh)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=fresh, check=True, capture_output=True,
        )  # fmt: skip
        # Renamed as a whole: another run of the tests sees all of it or nothing.
        home.mkdir(exist_ok=True)
        try:
            Path(fresh, "node_modules").rename(modules)
        except OSError:
            assert modules.exists()  # The other run was faster.
    return modules
