"""A network of its own for a sandbox (Linux): nothing in it but loopback, and nobody else on that.

And mounts of its own, for what it may only read (``readonly.py``).

Unprivileged: whoever may make a user namespace has all rights over a network namespace in it
(user_namespaces(7), network_namespaces(7)). The user stays who it is; it is the only one in there, so programs that
switch to another user fail. Standard library only: the supervisor of each sandbox imports this.

``python -m edge.appliance.runtime.namespace`` tries it, and says in one line why it cannot be done.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CLONE_NEWNS = 0x00020000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_DUMP, _DONE, _ERROR = 0x301, 3, 2
_HEADER = 16
"""Bytes before the content of a netlink message."""
_LISTEN = 10
_ANSWER_SECONDS = 1.0
_REACHABLE = frozenset(
    [socket.inet_pton(socket.AF_INET, each) for each in ("127.0.0.1", "0.0.0.0")]
    + [
        socket.inet_pton(socket.AF_INET6, each)
        for each in ("::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0")
    ]
)
"""Where somebody who is reached on loopback may listen."""
_SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user/max_user_namespaces", "0", "10000"),
    ("user/max_net_namespaces", "0", "10000"),
)
"""Where a machine says no, what it says then, and what would be a yes."""


class NoNamespace(Exception):
    """It cannot be had; the text says which step failed and how."""


def enter() -> None:
    """Move this process into new namespaces of users, networks and mounts, with loopback up. Single-threaded only.

    Raises `NoNamespace`.
    """
    if sys.platform != "linux":
        raise NoNamespace("network namespaces are there on Linux only")
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS) != 0:
        raise NoNamespace(f"unshare(2): {os.strerror(ctypes.get_errno())}")
    try:
        # Without setgroups nobody can drop a group that keeps it from a file.
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
        _loopback_up()
    except OSError as e:
        raise NoNamespace(f"{e.filename or 'loopback'}: {e.strerror}") from None


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as e:
        raise OSError(e.errno, e.strerror, path) from None
    finally:
        os.close(descriptor)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        asked = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(sock, _SIOCGIFFLAGS, asked))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def why_not() -> str | None:
    """Why sandboxes of this process cannot have a network of their own, and what helps; None if they can.

    Tried, not guessed. Blocks.
    """
    where = os.path.dirname(__file__)  # noqa: PTH120 - pathlib is a start-up cost of each supervisor.
    root = os.path.normpath(os.path.join(where, "..", "..", ".."))  # noqa: PTH118 - as above.
    tried = subprocess.run(
        [sys.executable, "-P", "-s", "-S", "-m", "edge.appliance.runtime.namespace"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        cwd="/",
        env={"PATH": os.defpath, "PYTHONPATH": root},
    )
    if tried.returncode == 0:
        return None
    said = tried.stdout.decode("utf-8", "replace").strip().splitlines()
    return said[-1] if said else f"the attempt ended with status {tried.returncode}"


def _advice() -> str:
    """What would have to change on this machine."""
    wrong = []
    for name, no, yes in _SWITCHES:
        try:
            with open(f"/proc/sys/{name}", encoding="ascii") as file:  # noqa: PTH123 - as above.
                if file.read().strip() == no:
                    wrong.append(f"{name.replace('/', '.')}={yes}")
        except OSError:
            continue
    if wrong:
        return f"let an administrator run: sysctl -w {' '.join(wrong)}"
    return (
        "in a container, give it a seccomp profile (and security module) that permits unshare(2) of user and "
        "network namespaces"
    )


# --- Who listens ----------------------------------------------------------------------------------------


def table() -> socket.socket:
    """What `listening` asks: a socket of the network in which it is made, wherever it is asked (sock_diag(7)).

    Raises OSError.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _SOCK_DIAG)
    sock.settimeout(_ANSWER_SECONDS)
    return sock


def listening(asked: socket.socket) -> frozenset[int]:
    """The TCP ports on which somebody listens on loopback in the network of that `table`.

    Not read from ``/proc/net/tcp``, which walks a table of the whole machine's connections: 35 ms, measured; this
    takes 0.1 ms. Raises OSError.
    """
    ports: set[int] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBxxI48x", family, socket.IPPROTO_TCP, 1 << _LISTEN)
        head = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _DUMP, 0, 0)
        asked.send(head + request)
        done = False
        while not done:
            done = _read(asked.recv(1 << 16), ports)
    return frozenset(ports)


def _read(answer: bytes, ports: set[int]) -> bool:
    """Take the ports out of one datagram; whether it was the last one. Raises OSError."""
    at = 0
    while at < len(answer):
        try:
            length, kind = struct.unpack_from("=IH", answer, at)
            if kind == _DONE:
                return True
            if kind == _ERROR:
                code = -struct.unpack_from("=i", answer, at + _HEADER)[0]
                raise OSError(code, os.strerror(code))
            family, port, source = struct.unpack_from("!B3xH2x16s", answer, at + _HEADER)
        except struct.error:
            length = 0
        if length < _HEADER:
            # The socket came out of the sandbox: whoever took over its supervisor may answer anything.
            raise OSError(errno.EBADMSG, "no answer of netlink")
        if source[: 4 if family == socket.AF_INET else 16] in _REACHABLE:
            ports.add(port)
        at += -(-length // 4) * 4
    return False


def traffic(pid: int) -> tuple[int, int] | None:
    """Bytes received and sent so far in the network of that process."""
    received = sent = 0
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:  # noqa: PTH123 - as above.
            for line in file.readlines()[2:]:
                counts = line.partition(":")[2].split()
                received, sent = received + int(counts[0]), sent + int(counts[8])
    except OSError:
        return None
    return received, sent


def main() -> int:
    """Try it: enter, listen, connect. The exit status; a line says what is wrong."""
    try:
        enter()
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
            with table() as asked:
                if listening(asked) != {server.getsockname()[1]}:
                    raise NoNamespace("the kernel does not tell who listens")
    except NoNamespace as e:
        print(f"{e}; {_advice()}")  # noqa: T201 - for whoever started us
        return 1
    except OSError as e:
        code = errno.errorcode.get(e.errno or 0, "")
        print(f"loopback in a new network: {e.strerror} ({code}); {_advice()}")  # noqa: T201 - as above
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
