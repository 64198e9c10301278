"""Cores, CPU times and process families."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.machine import (
    ON_LINUX,
    Process,
    confined,
    cpu_of_tree,
    family,
    parse_ps_time,
    parse_stat,
    rss_of_tree,
    share_cores,
)


def test_stat_line_with_brackets_in_the_name() -> None:
    """The name may hold anything; fields are counted from its last bracket."""
    fields = "S 7 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 100 0 0"
    assert parse_stat(f"42 (a) b (c) {fields}", 100.0) == Process(42, 7, 3.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:01.50", 1.5), ("00:01:05", 65.0), ("2:03:04", 7384.0), ("1-00:00:01", 86401.0)],
)
def test_times_of_ps(text: str, seconds: float) -> None:
    """Linux and macOS print CPU times differently; both are read."""
    assert parse_ps_time(text) == seconds


def test_a_family_is_everybody_below() -> None:
    """Children of children count, strangers do not."""
    processes = {pid: Process(pid, parent, 0.0) for pid, parent in [(2, 1), (3, 2), (4, 3), (5, 1)]}
    assert family(2, processes) == [2, 3, 4]
    assert family(9, processes) == []


def test_cpu_of_a_tree_grows_with_work() -> None:
    """What a child burns is seen, and so is the memory we hold."""
    before = cpu_of_tree(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.1: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert cpu_of_tree(os.getpid()) - before >= 0.05
        assert rss_of_tree(os.getpid()) > rss_of_tree(child.pid) > 1 << 20


@pytest.mark.skipif(not ON_LINUX, reason="only Linux binds processes to cores")
def test_confinement_is_inherited_and_ends() -> None:
    """A process started inside runs on those cores only; we ourselves are free again afterwards."""
    before = os.sched_getaffinity(0)
    one = frozenset({min(before)})
    with confined(one):
        told = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    assert told.strip() == str(set(one))
    assert os.sched_getaffinity(0) == before


def test_cores_are_shared_or_it_is_said_why_not() -> None:
    """Proxy and load never share a core silently."""
    cores = share_cores()
    assert cores.remark
    if cores.pinned:
        assert cores.proxy and cores.load
        assert not cores.proxy & cores.load
    else:
        assert cores.remark.startswith("not pinned")
