"""Where workers have their admin listeners: nobody else gets there, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge.ops.private import Places, ask, clear, is_one_of_us, tidy_up

VISIT = """
import socket, sys
from edge.appliance.runtime.namespace import enter
if sys.argv[1] == "elsewhere":
    enter()
with socket.socket(socket.AF_UNIX) as sock:
    print(sock.connect_ex("\\0" + sys.argv[2]))
"""

SQUAT = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind("\\0" + sys.argv[1])
    listener.listen()
    print("ready", flush=True)
    while True:
        with listener.accept()[0] as sock:
            sock.recv(4096)
            sock.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nyes")
"""


def test_there_are_as_many_as_workers() -> None:
    """Each its own; none is there twice, in other supervisors neither."""
    places = [Places(3), Places(3)]
    assert len({places[which][index] for which in (0, 1) for index in range(3)}) == 6
    for one in places:
        one.close()
        one.close()


@pytest.mark.needs_tool("netns")
def test_who_has_another_network_does_not_get_there() -> None:
    """As the same user: refused from another network, let in from this one."""
    place = Places(1)[0]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        for where, told in (("here", "0\n"), ("elsewhere", "111\n")):
            ran = subprocess.run(
                [sys.executable, "-c", VISIT, where, str(place)[1:]],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert ran.stdout == told, ran.stderr


def test_a_place_can_be_used_again() -> None:
    """After a worker has ended, without a word, the next one has it."""
    place = Places(1)[0]
    for _ in range(2):
        clear(place)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
    tidy_up(place)


def test_files_are_removed_by_the_last_one(tmp_path: Path) -> None:
    """Where there are no abstract names: one worker's socket, then the other's, and the folder with it."""
    places = [tmp_path / "folder" / name for name in "ab"]
    places[0].parent.mkdir()
    for place in places:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
    for place in places:
        assert place.parent.exists()
        tidy_up(place)
    assert not places[0].parent.exists()


def test_we_are_one_of_us() -> None:
    """The kernel's word for who is at the other end counts: our own user is let in."""
    one, other = socket.socketpair()
    with one, other:
        assert is_one_of_us(one)


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can be another user"
)
@pytest.mark.parametrize("user", [0, 65534])
def test_another_user_in_a_workers_place_is_not_believed(user: int) -> None:
    """Who has taken the name of a worker that has ended tells the supervisor nothing, unless it is our user."""
    place = Places(1)[0]
    with subprocess.Popen(
        [sys.executable, "-c", SQUAT, str(place)[1:], str(user)], stdout=subprocess.PIPE
    ) as squatter:
        try:
            assert squatter.stdout is not None
            assert squatter.stdout.readline() == b"ready\n"
            if user == 0:
                assert asyncio.run(ask(place, "/readyz")) == "yes"
            else:
                with pytest.raises(PermissionError):
                    asyncio.run(ask(place, "/readyz"))
        finally:
            squatter.kill()
