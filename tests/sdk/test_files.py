"""The published client's files, synchronous and asynchronous: every call, unchanged."""

from __future__ import annotations

import asyncio
import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from nullspace import AsyncSandbox, Sandbox
from nullspace.errors import (
    BatchWriteError,
    ConflictError,
    FileUploadError,
    NotFoundError,
    SandboxError,
    UploadConflictError,
)
from nullspace.types import FileInfo, SearchMatch, UploadTransport

# The client opens its socket in a way that its library began to warn of.
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")

Login = dict[str, Any]
BIG = bytes(range(256)) * (20 << 12)
"""20 MiB: three parts."""


@pytest.fixture
def sandbox(login: Login) -> Iterator[Sandbox]:
    """A sandbox, killed after the test."""
    with Sandbox.create(**login) as made:
        yield made


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A directory to upload: files, one in a directory, an empty directory, a link, something ignored."""
    folder = tmp_path / "site"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>Hello</h1>")
    (folder / "sub" / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "sub" / "run").chmod(0o755)
    (folder / "link").symlink_to("sub/run")
    (folder / "ignored.log").write_text("")
    (folder / ".nullspaceignore").write_text("*.log\n")
    return folder


def test_every_call(sandbox: Sandbox) -> None:
    """Each answer is what the client makes of it, with its types."""
    files = sandbox.files
    info = files.write("a/b.txt", "one\ntwo é\n", user="root")
    assert (info.type, info.permissions, info.mode) == ("file", "-rw-r--r--", "0644")
    assert info.modified_time is not None and info.owner and info.group
    assert files.exists("a/b.txt") and not files.exists("a/none")
    assert files.info("a") == files.get_info("/workspace/a") and files.info("a").is_dir
    assert files.make_dir("x/y") is True and files.make_dir("x/y") is True
    moved = files.rename("a/b.txt", "x/y/c.txt")
    assert isinstance(moved, FileInfo) and moved.path == "/workspace/x/y/c.txt"
    files.set_permissions("x/y/c.txt", "600")
    assert files.info("x/y/c.txt").mode == "0600"
    assert files.find_files("/", "two") == [SearchMatch("/workspace/x/y/c.txt", 2, "two é")]
    assert files.search_files("/workspace", "*.txt") == ["/workspace/x/y/c.txt"]
    assert files.replace_in_files(["x/y/c.txt"], "o", "0") == 2
    assert files.read("x/y/c.txt") == "0ne\ntw0 é\n"
    assert files.remove("x") is None
    assert files.list() == files.list("/", depth=5)[:1] and files.list("/", depth=0)[0].name == "a"
    sandbox.commands.run("ln -s /etc out; mkfifo pipe", shell=True)
    assert {entry.name: entry.type for entry in files.list()} == {
        "a": "dir", "out": "symlink", "pipe": "file",
    }  # fmt: skip
    assert files.info("out").symlink_target == "/etc"


def test_errors_are_the_clients_own(sandbox: Sandbox) -> None:
    """By kind: missing, in the way, outside."""
    files = sandbox.files
    files.write("d/x", "")
    for call in (files.info, files.remove, files.read, files.list):
        with pytest.raises(NotFoundError) as missing:
            call("none")
        assert missing.value.code == "file_not_found"
    with pytest.raises(ConflictError):
        files.make_dir("d/x")
    for path in ("/etc/passwd", "../x"):
        with pytest.raises(SandboxError) as refused:
            files.write(path, "")
        assert refused.value.code == "invalid_request"
    with pytest.raises(SandboxError, match="is a directory"):
        b"".join(files.read("d", format="stream"))
    with pytest.raises(SandboxError, match="leads out") as refused:
        files.write("../x", iter([BIG] * 3))  # Told although the body has not been read.
    assert refused.value.code == "invalid_request"


def test_a_batch(sandbox: Sandbox) -> None:
    """Text, bytes, iterables and files at once; what failed is told beside what did not."""
    assert sandbox.files.write_files([]) == []
    made = sandbox.files.write_files(
        [("a", "text é"), ("b/c", BIG), ("d", iter([b"1", b"2"])), ('"q"\n', b"")]
    )
    assert [info.size for info in made] == [7, len(BIG), 2, 0]
    assert sandbox.files.read("b/c", format="bytes") == BIG
    with pytest.raises(BatchWriteError) as partly:
        sandbox.files.write_files([("../x", "1"), ("e", "2")])
    assert [info.path for info in partly.value.successes] == ["/workspace/e"]
    assert [failure.path for failure in partly.value.failures] == ["../x"]


def test_direct_links(sandbox: Sandbox) -> None:
    """Without a key, from any HTTP client."""
    up = sandbox.files.upload_url("d/f")
    assert httpx.put(up.url, content=b"direct").status_code == 204
    assert httpx.get(sandbox.files.download_url("d/f")).content == b"direct"
    assert httpx.get(up.url).status_code == 401


def test_uploads_of_files(sandbox: Sandbox, tmp_path: Path) -> None:
    """Small ones directly, large ones in parts, from paths, handles and streams; both with progress."""
    (tmp_path / "small.bin").write_bytes(b"small")
    (tmp_path / "big.bin").write_bytes(BIG)
    small = sandbox.files.upload(tmp_path / "small.bin", "up/")
    assert (small.target_path, small.transport) == (
        "/workspace/up/small.bin",
        UploadTransport.DIRECT,
    )
    phases: list[str] = []
    big = sandbox.files.upload_file(
        tmp_path / "big.bin", "up/big", progress=lambda at: phases.append(at.phase.value)
    )
    assert (big.transport, big.bytes_uploaded) == (UploadTransport.RESUMABLE, len(BIG))
    assert phases[0] == "created" and phases[-1] == "completed" and phases.count("uploading") == 3
    assert sandbox.files.read("up/big", format="bytes") == BIG
    checked = sandbox.files.upload_file(tmp_path / "small.bin", "up/c", checksum="sha256")
    assert checked.upload_id and sandbox.files.info("up/c").size == 5
    streamed = sandbox.files.upload_file(iter([BIG, b"end"]), "up/s", max_concurrency=2)
    assert streamed.bytes_uploaded == len(BIG) + 3 == sandbox.files.info("up/s").size


def test_an_upload_is_resumed(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What broke off goes on where it stood; a completed one is told as such."""
    (tmp_path / "big.bin").write_bytes(BIG)
    client = sandbox.files._client
    send, sent = client.upload_session_part, []

    def broken(*args: Any, **more: Any) -> Any:
        if args[2] == 2:
            raise SandboxError("the line is dead", "transport_error")
        sent.append(args[2])
        return send(*args, **more)

    monkeypatch.setattr(client, "upload_session_part", broken)
    with pytest.raises(FileUploadError) as failed:
        sandbox.files.upload_file(tmp_path / "big.bin", "f", max_concurrency=1)
    monkeypatch.undo()
    assert failed.value.upload_id and not sandbox.files.exists("f") and sent == [0, 1]
    done = sandbox.files.resume_upload(failed.value.upload_id, tmp_path / "big.bin")
    assert done.resumed and sandbox.files.read("f", format="bytes") == BIG
    again = sandbox.files.resume_upload(failed.value.upload_id, tmp_path / "big.bin")
    assert again.bytes_uploaded == len(BIG)


def test_uploads_of_directories(sandbox: Sandbox, local: Path) -> None:
    """With modes, links and empty directories, without what is ignored; all three policies."""
    result = sandbox.files.upload_dir(local)
    assert (result.target_path, result.file_count) == ("/workspace/site", 4)
    found = {
        entry.path.removeprefix("/workspace/site/"): entry
        for entry in sandbox.files.list("site", depth=9)
    }
    assert sorted(found) == [
        ".nullspaceignore",
        "index.html",
        "link",
        "sub",
        "sub/empty",
        "sub/run",
    ]
    assert found["link"].symlink_target == "sub/run" and found["sub/run"].mode == "0755"
    sandbox.files.write("site/kept", "")
    sandbox.files.upload(local, "site")
    assert sandbox.files.exists("site/kept")
    sandbox.files.upload_dir(local, "site", conflict="replace")
    assert not sandbox.files.exists("site/kept")
    with pytest.raises(UploadConflictError):
        sandbox.files.upload_dir(local, "site", conflict="error")


def test_watching(sandbox: Sandbox) -> None:
    """Events arrive from the moment the call returns until it is stopped; what cannot be watched is told."""
    events: queue.Queue[Any] = queue.Queue()
    ended: queue.Queue[Exception | None] = queue.Queue()
    sandbox.files.make_dir("d")
    with sandbox.files.watch_dir("d", events.put, recursive=True, on_exit=ended.put):
        sandbox.files.write("d/sub/new", "1")
        told = [events.get(timeout=20) for _ in range(2)]
        assert [(event.type, event.name, event.path) for event in told] == [
            ("create", "sub", "/workspace/d/sub"),
            ("create", "sub/new", "/workspace/d/sub/new"),
        ]
        sandbox.files.rename("d/sub/new", "d/new")
        told = [events.get(timeout=20) for _ in range(2)]
        assert [(event.event_type, event.name) for event in told] == [
            ("rename", "sub/new"), ("create", "new"),
        ]  # fmt: skip
    assert ended.get(timeout=20) is None
    with sandbox.files.watch_dir("d", events.put, timeout=0.3, on_exit=ended.put):
        assert ended.get(timeout=20) is None
    with pytest.raises(SandboxError, match="none does not exist") as refused:
        sandbox.files.watch_dir("none", events.put)
    assert refused.value.code == "watch_error"


async def test_every_call_asynchronously(login: Login, tmp_path: Path, local: Path) -> None:
    """The same answers through the asynchronous client."""
    sandbox = await AsyncSandbox.create(**login)
    try:
        files = sandbox.files
        assert (await files.write("a/b.txt", "needle\n")).size == 7
        assert await files.exists("a/b.txt") and (await files.info("a")).is_dir
        assert await files.make_dir("x")
        assert (await files.rename("a/b.txt", "x/c.txt")).path == "/workspace/x/c.txt"
        await files.set_permissions("x/c.txt", "640")
        assert (await files.get_info("x/c.txt")).mode == "0640"
        assert [match.line for match in await files.find_files("x", "needle")] == [1]
        assert await files.search_files("/", "c.*") == ["/workspace/x/c.txt"]
        assert await files.replace_in_files(["x/c.txt"], "needle", "pin") == 1
        made = await files.write_files([("m", b"1"), ("n/o", "2")])
        assert [info.path for info in made] == ["/workspace/m", "/workspace/n/o"]

        async def pieces() -> Any:
            for _ in range(10):
                yield BIG[: 1 << 20]

        assert (await files.write("s", pieces())).size == 10 << 20
        stream = await files.read("s", format="stream")
        assert sum([len(piece) async for piece in stream]) == 10 << 20
        (tmp_path / "big").write_bytes(BIG)
        assert (await files.upload(tmp_path / "big", "up")).bytes_uploaded == len(BIG)
        assert (await files.upload_dir(local, "site")).file_count == 4
        async with httpx.AsyncClient() as anybody:
            link = await files.download_url("m")
            assert (await anybody.get(link)).content == b"1"
        events: asyncio.Queue[Any] = asyncio.Queue()
        async with await files.watch_dir("x", events.put_nowait):
            await files.remove("x/c.txt")
            event = await asyncio.wait_for(events.get(), 20)
            assert (event.type, event.name) == ("remove", "c.txt")
    finally:
        await sandbox.kill()
        await sandbox.close()


def test_files_of_a_paused_sandbox(login: Login, tmp_path: Path) -> None:
    """One that resumes by itself does so for streams, batches, uploads and watches; any other is a conflict."""
    (tmp_path / "big").write_bytes(BIG)

    def watch(sandbox: Sandbox) -> None:
        with sandbox.files.watch_dir("/", print):
            pass

    calls = {
        "stream up": lambda sandbox: sandbox.files.write("f", iter([b"x"])),
        "stream down": lambda sandbox: sandbox.files.read("f", format="bytes"),
        "batch": lambda sandbox: sandbox.files.write_files([("f", "x")]),
        "upload": lambda sandbox: sandbox.files.upload(tmp_path / "big", "big"),
        "watch": watch,
    }
    with Sandbox.create(on_timeout="pause", auto_resume=True, **login) as sandbox:
        for call in calls.values():
            sandbox.pause()
            call(sandbox)
            assert sandbox.is_running()
    with Sandbox.create(on_timeout="pause", **login) as sandbox:
        sandbox.pause()
        for name, call in calls.items():
            with pytest.raises(SandboxError, match="409" if name == "watch" else "not running"):
                call(sandbox)


def test_a_gigabyte_goes_up_and_down_in_little_memory(
    login: Login, control_plane: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """FILES_MIB=1024 makes it one; the control plane's memory does not grow with it."""
    mib = int(os.environ.get("FILES_MIB", "256"))
    if not Path(f"/proc/{control_plane}/clear_refs").exists():
        pytest.skip("needs /proc: Linux")
    piece = os.urandom(1 << 20)
    with Sandbox.create(**login) as sandbox:
        sandbox.files.write("warm", iter([piece] * 8))
        list(sandbox.files.read("warm", format="stream"))
        _peak(control_plane)  # Of what came before this test.
        before = _peak(control_plane)
        assert sandbox.files.write("large", (piece for _ in range(mib))).size == mib << 20
        up = _peak(control_plane)
        size = sum(len(part) for part in sandbox.files.read("large", format="stream"))
        down = _peak(control_plane)
        assert size == mib << 20
    if "FILES_MIB" in os.environ:
        with capsys.disabled():
            print(
                f"\n{mib} MiB: peak {before} KiB before, {up} while it came, {down} while it left"
            )
    assert max(up, down) - before < 24 << 10


def _peak(pid: int) -> int:
    """The most KiB of memory since the last call."""
    process = Path(f"/proc/{pid}")
    lines = (process / "status").read_text().splitlines()
    (process / "clear_refs").write_text("5")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
