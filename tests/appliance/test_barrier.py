"""The question before a pause: everybody alive has to say zero."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from virtual import VirtualLoop, run

from edge.appliance.barrier import PATIENCE, Edges


def _ask(answers: Callable[[Edges], None], *names: str) -> tuple[bool, float]:
    """The outcome and the seconds it took; ``answers`` runs once the question is asked."""

    async def main(loop: VirtualLoop) -> tuple[bool, float]:
        edges = Edges()
        with ExitStack() as sockets:
            for name in names:
                sockets.enter_context(edges.watching(name))
            start = loop.time()
            asking = loop.create_task(edges.quiet("sb_1", 7))
            await asyncio.sleep(0)
            answers(edges)
            return await asking, loop.time() - start

    return run(main)


def test_no_edges_means_quiet() -> None:
    """Without anybody to ask there is nobody with a request in flight."""
    assert _ask(lambda _: None) == (True, 0)


def test_all_have_to_answer() -> None:
    """Two of two say zero: quiet, at once. One of two: not quiet, after the patience."""

    def both(edges: Edges) -> None:
        edges.ack("a", "sb_1", 7, 0)
        edges.ack("b", "sb_1", 7, 0)

    assert _ask(both, "a", "b") == (True, 0)
    assert _ask(lambda edges: edges.ack("a", "sb_1", 7, 0), "a", "b") == (False, PATIENCE)


@pytest.mark.parametrize("answer", [("x", "sb_1", 7, 0), ("a", "sb_2", 7, 0), ("a", "sb_1", 6, 0)])
def test_foreign_answers_do_not_count(answer: tuple[str, str, int, int]) -> None:
    """Another edge, sandbox or version says nothing about this question."""
    assert _ask(lambda edges: edges.ack(*answer), "a") == (False, PATIENCE)


@pytest.mark.parametrize("edge", ["a", "unknown"])
def test_one_request_in_flight_decides_at_once(edge: str) -> None:
    """Without waiting for the others; also of an edge that has joined a moment ago."""
    assert _ask(lambda edges: edges.ack(edge, "sb_1", 7, 1), "a", "b") == (False, 0)


def test_edges_that_hear_of_changes_elsewhere() -> None:
    """They are asked like those with a socket."""

    async def main(loop: VirtualLoop) -> bool:
        edges = Edges()
        edges.elsewhere = lambda: frozenset({"far"})
        with edges.watching("a"):
            assert edges.live == {"a", "far"}
            asking = loop.create_task(edges.quiet("sb_1", 7))
            await asyncio.sleep(0)
            edges.ack("a", "sb_1", 7, 0)
            await asyncio.sleep(0)
            assert not asking.done()
            edges.ack("far", "sb_1", 7, 0)
            return await asking

    assert run(main)


def test_a_repeated_answer_is_one_answer() -> None:
    """The same edge twice does not stand for two."""

    def twice(edges: Edges) -> None:
        edges.ack("a", "sb_1", 7, 0)
        edges.ack("a", "sb_1", 7, 0)

    assert _ask(twice, "a", "b") == (False, PATIENCE)


def test_an_edge_that_vanishes_cannot_say_zero() -> None:
    """Losing a socket while asked counts as something in flight; a second socket keeps the edge alive."""

    async def main(loop: VirtualLoop) -> None:
        edges = Edges()
        first, second = edges.watching("a"), edges.watching("a")
        first.__enter__()
        second.__enter__()
        asking = loop.create_task(edges.quiet("sb_1", 7))
        await asyncio.sleep(0)
        first.__exit__(None, None, None)
        await asyncio.sleep(0)
        assert edges.live == {"a"} and not asking.done()
        second.__exit__(None, None, None)
        assert await asking is False
        assert edges.live == frozenset()

    run(main)
