"""Actors on the virtual loop: processes that can be stopped and killed between any two steps.

A step is one turn of one task, from one await to the next, or one callback. Which actor it belongs to is in
its context, so an actor is nothing that its own code knows of. A stopped actor (SIGSTOP) takes no step; what
would have been steps (answers that came, timers that rang) is done, in order, when it goes on. A killed one
never takes another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

from virtual import VirtualLoop

T = TypeVar("T")

ACTOR: ContextVar[Actor | None] = ContextVar("ACTOR", default=None)
NOBODY = copy_context()
"""The context of what belongs to no actor: the network, the clients outside, the chaos."""


class Actor:
    """A process. ``steps`` counts what it has done so far; ``strikes`` says what befalls it before which step."""

    def __init__(self, loop: ActorLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.context: Context = NOBODY.copy()
        self.context.run(ACTOR.set, self)
        self.steps = 0
        self.strikes: dict[int, Callable[[], None]] = {}
        self.stopped = self.dead = False
        self.disturbed_at = float("-inf")
        """When it was last stopped or killed, or cut off, or went on."""
        self._late: list[Any] = []
        loop.actors.append(self)

    def __repr__(self) -> str:
        return f"<{self.name}{' dead' if self.dead else ' stopped' if self.stopped else ''}>"

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """A task of this actor."""
        return self.loop.create_task(work, name=name, context=self.context.copy())

    def stop(self) -> None:
        """As by SIGSTOP."""
        self.stopped = True
        self.disturbed_at = self.loop.time()

    def go_on(self) -> None:
        """As by SIGCONT."""
        self.stopped = False
        if not self.loop.over:
            self.disturbed_at = self.loop.time()
        late, self._late = self._late, []
        self.loop.ready(late)

    def kill(self) -> None:
        """As by SIGKILL."""
        self.dead = True
        self.disturbed_at = self.loop.time()

    def takes(self, handle: Any) -> bool:
        """Whether this step is taken now; what a stopped actor would have done is kept for later."""
        if self.loop.over:
            return True
        if not (self.stopped or self.dead):
            strike = self.strikes.pop(self.steps, None)
            self.steps += 1
            if strike is not None:
                NOBODY.copy().run(strike)
        if not (self.stopped or self.dead):
            return True
        # Kept for the clean-up if this is the end: a task that is thrown away half done is closed in odd places.
        (self.loop.never if self.dead else self._late).append(handle)
        return False


class _Skipped:
    """In the place of a step that is not taken."""

    _cancelled = True


class _Ready(deque[Any]):
    """The loop's list of steps, which asks the actors first."""

    def popleft(self) -> Any:
        handle = super().popleft()
        actor = handle._context.get(ACTOR, None)
        if actor is None or handle._cancelled or actor.takes(handle):
            return handle
        return _Skipped


class ActorLoop(VirtualLoop):
    """A virtual loop whose steps belong to actors."""

    def __init__(self) -> None:
        super().__init__()
        self._ready = _Ready()
        self.over = False
        """Everybody, dead or not, may clean up."""
        self.actors: list[Actor] = []
        self.never: list[Any] = []
        """Steps that were not taken because their actor was dead."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self.set_task_factory(self._keep)

    def _keep(self, loop: Any, work: Any, context: Context | None = None) -> asyncio.Task[Any]:
        """The loop itself knows tasks weakly, and nobody waits for those of the dead."""
        task = asyncio.Task(work, loop=loop, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=NOBODY.copy())
        return task

    def ready(self, handles: list[Any]) -> None:
        """Steps that were held back."""
        self._ready.extend(handles)

    def later(self, delay: float, what: Callable[..., object], *arguments: Any) -> None:
        """As `call_later`, for what belongs to no actor."""
        self.call_later(delay, what, *arguments, context=NOBODY.copy())


def play(main: Callable[[ActorLoop], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(loop)`` in virtual time; what is still under way then is thrown away."""
    loop = ActorLoop()
    try:
        result = loop.run_until_complete(main(loop))
        assert not loop.unhandled, loop.unhandled
        return result
    finally:
        loop.over = True
        loop.ready(loop.never)
        for actor in loop.actors:
            actor.go_on()
        for _ in range(100):
            left = asyncio.all_tasks(loop)
            if not left:
                break
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
