"""Signed links: good for exactly what they were made for, and only for a while."""

from __future__ import annotations

import pytest

from edge.appliance.links import FileLinks


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_link_is_good_until_it_expires() -> None:
    """It lasts for 900 seconds, to the second."""
    clock = Clock()
    links = FileLinks(clock)
    query = links.sign("GET", "sb_1", "a/b é\n\ud800")
    clock.now += 899.9
    assert links.good("GET", "sb_1", query)
    clock.now += 0.1
    assert not links.good("GET", "sb_1", query)


@pytest.mark.parametrize(
    ("method", "sandbox", "change"),
    [
        ("PUT", "sb_1", {}),
        ("GET", "sb_2", {}),
        ("GET", "sb_1", {"path": "c"}),
        ("GET", "sb_1", {"expires": "9999999999"}),
        ("GET", "sb_1", {"expires": ""}),
        ("GET", "sb_1", {"signature": ""}),
        ("GET", "sb_1", {"signature": "é"}),
        ("GET", "sb_1", {"signature": "\ud800"}),
        ("GET", 'sb_1", "1900', {"path": "b"}),
    ],
)
def test_a_link_is_good_for_nothing_else(method: str, sandbox: str, change: dict[str, str]) -> None:
    """Another method, sandbox, path, time or signature."""
    links = FileLinks(Clock())
    assert links.good("GET", "sb_1", links.sign("GET", "sb_1", "b"))
    assert not links.good(method, sandbox, links.sign("GET", "sb_1", "b") | change)


def test_another_process_has_another_key() -> None:
    """So links end with the control plane that made them."""
    clock = Clock()
    assert not FileLinks(clock).good("GET", "sb_1", FileLinks(clock).sign("GET", "sb_1", "b"))
