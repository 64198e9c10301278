"""A Redis of the model's own: what the scripts of `edge.state.redis.scripts` do, in Python, without waiting.

Lua cannot run in virtual time. `test_store.py` runs the same calls against a real server and compares answers
and what is held then; so what is true of this store is true of the scripts.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

from edge.state.redis import scripts

NUMBER = re.compile(rb"0|[1-9]\d*")
HUGE = 9e15


class WrongType(Exception):
    """A command met a key of another type: for whoever sent the script, an error."""


class Stream(list[tuple[tuple[int, int], dict[bytes, bytes]]]):
    """Entries in order, by (epoch, number)."""


def _id(entry: tuple[int, int]) -> bytes:
    return b"%d-%d" % entry


def _number(text: bytes | None) -> int | None:
    return int(text) if text is not None and NUMBER.fullmatch(text) else None


def _bytes(value: str | bytes | int) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


class Store:
    """Keys, their values, and until when they last. ``clock`` gives milliseconds, ``server`` is the replication id."""

    def __init__(self, server: str, clock: Callable[[], int]) -> None:
        self.server = server.encode()
        self.clock = clock
        self.keys: dict[str, Any] = {}
        self.until: dict[str, int] = {}

    def replica(self, server: str) -> Store:
        """Another server with the same content."""
        other = Store(server, self.clock)
        other.keys, other.until = copy.deepcopy(self.keys), dict(self.until)
        return other

    def flush(self) -> None:
        """FLUSHALL."""
        self.keys.clear()
        self.until.clear()

    def get(self, key: str, kind: type | None = None) -> Any:
        """A key's value, None without one. Raises `WrongType`."""
        if self.until.get(key, self.clock() + 1) <= self.clock():
            self.delete(key)
        value = self.keys.get(key)
        if value is not None and kind is not None and type(value) is not kind:
            raise WrongType(key)
        return value

    def set(self, key: str, value: Any, life: int | None = None) -> None:
        """SET: whatever it was before."""
        self.delete(key)
        self.keys[key] = value
        if life is not None:
            self.until[key] = self.clock() + life

    def delete(self, key: str) -> None:
        """DEL."""
        self.keys.pop(key, None)
        self.until.pop(key, None)

    # --- Streams ----------------------------------------------------------------------------------

    def newest(self, key: str) -> tuple[int, int] | None:
        """The id of a stream's newest entry. Raises `WrongType`."""
        stream = self.get(key, Stream)
        return stream[-1][0] if stream else None

    def after(
        self, key: str, position: bytes, count: int
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """XREAD of one stream. Raises `WrongType`."""
        epoch, number = map(int, position.split(b"-"))
        found = [entry for entry in self.get(key, Stream) or () if entry[0] > (epoch, number)]
        return [(_id(at), fields) for at, fields in found[:count]]

    def _append(self, key: str, epoch: int, fields: dict[bytes, bytes]) -> bytes:
        stream = self.get(key, Stream)
        if stream is None:
            stream = self.keys[key] = Stream()
        last_epoch, last = stream[-1][0] if stream else (0, 0)
        at = (epoch, last + 1 if last_epoch == epoch else 0)
        stream.append((at, fields))
        return _id(at)

    def _last(self, key: str) -> tuple[int, int] | None:
        """As the scripts do it: by `pcall`."""
        try:
            return self.newest(key)
        except WrongType:
            return None

    def _text(self, key: str) -> bytes | None:
        try:
            value: bytes | None = self.get(key, bytes)
        except WrongType:
            return None
        return value

    def _stands(self, key: str, epoch: bytes, number: bytes) -> bool:
        last = self._last(key)
        return last is not None and b"%d" % last[0] == epoch and last[1] >= int(number)

    # --- The scripts ------------------------------------------------------------------------------

    def run(self, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """One call of one of `scripts`. Raises `WrongType`."""
        return SCRIPTS[script](self, keys, [_bytes(one) for one in arguments])

    def begin(self, keys: Sequence[str], said: list[bytes]) -> bytes:
        """`scripts.BEGIN`."""
        last, server = self._last(keys[0]), self._text(keys[1])
        if last is not None and (last[0] >= HUGE or last[1] >= HUGE):
            last = None
        epoch, number = int(said[0]), int(said[1])
        if last is not None and epoch > 0 and server == self.server and last >= (epoch, number):
            return _id(last)
        epoch = max(epoch + 1, self.clock(), last[0] + 1 if last is not None else 0)
        if epoch >= HUGE:
            epoch = self.clock()
        self.delete(keys[0])
        self.set(keys[1], self.server)
        return self._append(keys[0], epoch, {b"n": b""})

    def publish(self, keys: Sequence[str], said: list[bytes]) -> bytes | None:
        """`scripts.PUBLISH`."""
        kind, version, record, life, _most, epoch, number = said
        if not self._stands(keys[1], epoch, number):
            return scripts.LOST
        try:
            held = self.get(keys[0], dict)
        except WrongType:
            self.delete(keys[0])
            held = None
        if held is None:
            held = self.keys[keys[0]] = {}
        before, disputed = _number(held.get(b"v")), b"disputed in " + epoch
        if before is not None and before > int(version) and held.get(b"e") in (epoch, disputed):
            held[b"e"] = disputed
        else:
            held.update({b"v": version, b"r": record, b"e": epoch})
            if before == int(version):
                return None
            if int(life) > 0:
                self.until[keys[0]] = self.clock() + int(life)
            else:
                self.until.pop(keys[0], None)
        return self._append(keys[1], int(epoch), {b"k": kind, b"r": record})

    def beat(self, keys: Sequence[str], said: list[bytes]) -> bytes:
        """`scripts.BEAT`."""
        _most, epoch, number = said
        if not self._stands(keys[0], epoch, number) or self._text(keys[1]) != self.server:
            return scripts.LOST
        return self._append(keys[0], int(epoch), {b"b": b""})

    def read(self, keys: Sequence[str], said: list[bytes]) -> list[bytes | None]:
        """`scripts.READ`."""
        last = self._last(keys[1])
        if last is None:
            return [None, None]
        held = self.get(keys[0], dict) or {}
        if len(held.get(b"r", b"")) > int(said[0]) or held.get(b"e") != b"%d" % last[0]:
            return [_id(last), None]
        return [_id(last), held.get(b"r")]

    def take(self, keys: Sequence[str], said: list[bytes]) -> bytes:
        """`scripts.TAKE`."""
        held, until = self.get(keys[0]), self.until.get(keys[0])
        ends = until is not None and until - self.clock() <= int(said[2])
        if ends and isinstance(held, bytes) and len(held) <= 64:
            return held
        self.set(keys[0], said[0], int(said[1]))
        return said[0]

    def keep(self, keys: Sequence[str], said: list[bytes]) -> int:
        """`scripts.KEEP`."""
        if self.get(keys[0], bytes) != said[0]:
            return 0
        self.until[keys[0]] = self.clock() + int(said[1])
        return 1

    def leave(self, keys: Sequence[str], said: list[bytes]) -> int:
        """`scripts.LEAVE`."""
        if self.get(keys[0], bytes) != said[0]:
            return 0
        self.delete(keys[0])
        if said[1]:
            self.set(keys[0], said[1], int(said[2]))
        return 1

    def join(self, keys: Sequence[str], said: list[bytes]) -> int:
        """`scripts.JOIN`."""
        if not isinstance(self.get(keys[0]), Scores):
            self.delete(keys[0])
        now = self.clock()
        scores = Scores(
            {
                name: score
                for name, score in self.keys.get(keys[0], {}).items()
                if now - 60_000 < score <= now + 60_000
            }
        )
        scores[said[0]] = now + int(said[1])
        kept = sorted(scores.items(), key=lambda item: (item[1], item[0]))
        kept = kept[max(0, len(kept) - int(said[2])) :]
        self.keys[keys[0]] = Scores(kept)
        return 1

    def members(self, keys: Sequence[str], said: list[bytes]) -> list[bytes]:
        """`scripts.MEMBERS`."""
        held = self.get(keys[0])
        if not isinstance(held, Scores):
            return []
        now = self.clock()
        found = sorted(
            (score, name) for name, score in held.items() if now <= score <= now + 60_000
        )
        return [name for _, name in found[: int(said[0])] if len(name) <= int(said[1])]

    def left(self, keys: Sequence[str], said: list[bytes]) -> Any:
        """`scripts.LEFT`."""
        held = self.get(keys[0])
        if held is None:
            return []
        if not isinstance(held, Stream):
            return {bytes: b"string", dict: b"hash", Scores: b"zset"}[type(held)]
        batches = [(_id(at), fields.get(b"u")) for at, fields in held[: int(said[0])]]
        most = int(said[1])
        return [[at, None if text is None or len(text) > most else text] for at, text in batches]


class Scores(dict[bytes, int]):
    """A sorted set: members by score."""


SCRIPTS: dict[str, Callable[[Store, Sequence[str], list[bytes]], Any]] = {
    scripts.BEGIN: lambda store, *call: store.begin(*call),
    scripts.PUBLISH: lambda store, *call: store.publish(*call),
    scripts.BEAT: lambda store, *call: store.beat(*call),
    scripts.READ: lambda store, *call: store.read(*call),
    scripts.TAKE: lambda store, *call: store.take(*call),
    scripts.KEEP: lambda store, *call: store.keep(*call),
    scripts.LEAVE: lambda store, *call: store.leave(*call),
    scripts.JOIN: lambda store, *call: store.join(*call),
    scripts.MEMBERS: lambda store, *call: store.members(*call),
    scripts.LEFT: lambda store, *call: store.left(*call),
}
"""What each script is here. By its text: a script that is changed has to be changed here, too, and is missed else."""
