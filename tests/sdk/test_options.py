"""Every option of what works is given by a test, and does what it says. (``test_twins.py`` gives all of them to both
clients, so that what the synchronous one shows holds for the other.)
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import queue
import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nullspace import Lifecycle, Sandbox, Snapshot, TemplateWarmPool, Volume
from nullspace.errors import NotFoundError, SandboxError
from nullspace.errors import NotImplementedError as NotOffered
from nullspace.types import (
    LifecycleEvent,
    LifecycleOperation,
    LifecycleStatus,
    SandboxQuery,
    SandboxStatus,
    UploadTransport,
)

from tests.sdk import clientwalk as walk
from tests.sdk.test_client import EVERYTHING, METHODS, functions
from tests.sdk.test_lifecycle import Thread

# What the client does with its WebSocket library is deprecated there.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
)

Login = dict[str, Any]
PAUSES: Login = {"on_timeout": "pause", "auto_resume": True}

EVERYWHERE = {"api_key", "base_url", "request_timeout"}
"""Of the client's own connections."""

HERE = "tests/sdk/test_options.py"
SHOWN = {
    "Commands.connect": f"{HERE}::test_commands",
    "Commands.run": f"{HERE}::test_commands",
    "Commands.run_streaming": f"{HERE}::test_commands",
    "Process.code_run": f"{HERE}::test_commands",
    "Files": f"{HERE}::test_files",
    "Files.resume_upload": f"{HERE}::test_uploads",
    "Files.upload": f"{HERE}::test_uploads",
    "Files.upload_dir": f"{HERE}::test_uploads",
    "Files.upload_file": f"{HERE}::test_uploads",
    "Files.watch_dir": f"{HERE}::test_watching",
    "Lifecycle.subscribe": f"{HERE}::test_subscriptions",
    "Lifecycle.stream_events": f"{HERE}::test_streams_of_events",
    "Lifecycle": f"{HERE}::test_lists_of_events",
    "Sandbox.attach_volume": f"{HERE}::test_volumes",
    "Sandbox.create": f"{HERE}::test_create",
    "Sandbox.list": f"{HERE}::test_lists_of_sandboxes",
    "Sandbox.list_lifecycle": f"{HERE}::test_lists_of_events",
    "Sandbox.run_once": f"{HERE}::test_run_once",
    "Sandbox.stream_events": f"{HERE}::test_streams_of_events",
    "Sandbox": f"{HERE}::test_handles",
    "Snapshot.list": f"{HERE}::test_handles",
    "TemplateWarmPool": f"{HERE}::test_pools",
    "Template.create_warm_pool": f"{HERE}::test_pools",
    "Volume": f"{HERE}::test_volumes",
    "VolumeFiles": f"{HERE}::test_files_of_a_volume",
}
"""By method, or else by class. Not of ``Git``: what it makes of its options are commands, as ``test_git.py`` shows."""


def test_no_option_is_forgotten() -> None:
    """The signatures are walked: each argument with a default is given by its name in the test that shows it."""
    missing = []
    for name, (here, _) in METHODS.items():
        owner = name.partition(".")[0]
        if here != "works" or owner == "Git":
            continue
        first = min(EVERYTHING[name], key=len)
        call = getattr(walk.classes()[first], name.partition(".")[2])
        for option, one in inspect.signature(call).parameters.items():
            if one.default is one.empty or option in EVERYWHERE:
                continue
            file, _, test = SHOWN.get(name, SHOWN.get(owner, "::")).partition("::")
            text = functions(file).get(test, "") if file else ""
            if not re.search(rf'\b{option}=|"{option}"', text):
                missing.append(f"{name} {option}")
    assert not missing


@pytest.fixture
def sandbox(login: Login) -> Iterator[Sandbox]:
    """One that pauses, and resumes by itself."""
    made = Sandbox.create(**PAUSES, **login)
    yield made
    made.kill()


def test_create(login: Login) -> None:
    """What is asked for is what there is; what cannot be had is refused, with its name."""
    volume = Volume.create("create", **login)
    snapshot_id = ""
    plain: list[tuple[Login, Callable[[Sandbox], Any], Any]] = [
        ({"template": "t/x:1"}, lambda s: s.get_info().template, "t/x:1"),
        ({"vcpus": 3}, lambda s: s.get_info().config.vcpus, 3),
        ({"memory_mb": 700}, lambda s: s.get_info().config.memory_mb, 700),
        ({"disk_mb": 900}, lambda s: s.is_running(), True),
        ({"timeout": 77}, lambda s: s.get_info().timeout_ms, 77_000),
        ({"timeout_action": "hibernate"}, lambda s: s.get_info().timeout_action, "hibernate"),
        ({"on_timeout": "pause"}, lambda s: s.get_info().timeout_action, "hibernate"),
        ({"envs": {"A": "1"}}, lambda s: _said(s, "echo $A"), "1\n"),
        ({"metadata": {"a": [1, None]}}, lambda s: s.get_info().metadata, {"a": [1, None]}),
        ({"cwd": "deep/er"}, lambda s: _said(s, "pwd")[-9:], "/deep/er\n"),
        ({"internet_access": True}, lambda s: s.is_running(), True),
        (
            {"network": {"allow_public_traffic": False}},
            lambda s: bool(s.traffic_access_token),
            True,
        ),
        ({"warm_pool": "none", "warm_pool_wait_ms": 9}, lambda s: _checkout(s)[1:], ("none", 9)),
        ({"warm_pool_mode": "bypass"}, lambda s: _checkout(s)[0], "bypassed"),
        ({"volumes": [volume.mount("/workspace/v")]}, lambda s: len(s.list_volumes()), 1),
    ]
    for options, look, expected in plain:
        with Sandbox.create(**options, **login) as made:
            assert look(made) == expected, options
            snapshot_id = made.create_snapshot().id if "volumes" in options else ""
    with Sandbox.create(snapshot_id=snapshot_id, **login) as made:
        assert [one.volume_id for one in made.list_volumes()] == [volume.id]
    with Sandbox.create(auto_resume=True, on_timeout="pause", **login) as made:
        made.pause()
        assert _said(made, "echo up") == "up\n"
    with Sandbox.create(idempotency_key="options", **login) as made:
        assert Sandbox.create(idempotency_key="options", **login).id == made.id
    desktop: list[Login] = [{"resolution": (9, 9)}, {"dpi": 96}, {"display": ":1"}]
    for options in (*desktop, {"internet_access": False}, {"network": {"deny_out": ["0.0.0.0/0"]}}):
        template = "desktop" if options in desktop else "base"
        with pytest.raises(NotOffered):
            Sandbox.create(template=template, **options, **login)
    Snapshot.delete(snapshot_id, **login)
    volume.delete()


def _said(sandbox: Sandbox, line: str) -> str:
    return str(sandbox.commands.run(line, shell=True).stdout)


def _checkout(sandbox: Sandbox) -> tuple[Any, ...]:
    found = sandbox.get_info().warm_pool_checkout
    assert found is not None
    return found.source, found.id, found.wait_ms


def test_run_once(login: Login) -> None:
    """Options reach the create and the command: those that can be seen from inside, others by what is refused."""
    given: Login = {"template": "t", "vcpus": 1, "memory_mb": 64, "network": {}, **login}
    ran = Sandbox.run_once("sh", args=["-c", "echo $A"], envs={"A": "1"}, timeout=60, **given)
    assert ran.stdout == "1\n"
    for wrong in ({"template": ""}, {"vcpus": 0}, {"memory_mb": 0}, {"metadata": {"a": {1}}}):
        with pytest.raises((SandboxError, TypeError), match=f"{next(iter(wrong))}|serializable"):
            Sandbox.run_once("true", **wrong, **login)
    with pytest.raises(NotOffered, match="internet_access"):
        Sandbox.run_once("true", internet_access=False, **login)
    with pytest.raises(NotOffered, match="allow_out"):
        Sandbox.run_once("true", network={"allow_out": ["a.test"]}, **login)


def test_lists_of_sandboxes(login: Login) -> None:
    """By state, template and metadata, in pages, with chosen fields."""
    made = [Sandbox.create("listed", metadata={"n": n}, **login) for n in range(3)]
    ids = [one.id for one in made]
    made[0].pause()
    query = SandboxQuery(template="listed")
    assert [one.id for one in Sandbox.list(query=query, state="paused", **login)] == ids[:1]
    both = SandboxQuery(state=[SandboxStatus.RUNNING, SandboxStatus.PAUSED], template="listed")
    assert [one.id for one in Sandbox.list(query=both, **login)] == ids
    second = SandboxQuery(template="listed", metadata={"n": 1})
    assert [one.id for one in Sandbox.list(query=second, **login)] == ids[1:2]
    page = Sandbox.list(query=query, limit=2, **login)
    rest = Sandbox.list(query=query, limit=2, next_token=page.next_token, **login)
    assert [one.id for one in (*page.items, *rest.items)] == ids and not rest.has_next
    page.close()
    rest.close()
    assert Sandbox.list(query=query, fields="id", **login) == [{"id": one} for one in ids]
    for one in made:
        one.kill()


def test_handles(login: Login, sandbox: Sandbox) -> None:
    """What handles and ids take beside what they need."""
    again = Sandbox.connect(sandbox.id, timeout=77, **login)
    assert again.get_info(fields=["timeout_ms"]) == {"timeout_ms": 77_000}
    again.set_timeout(60, timeout_action="hibernate")
    again.close()
    assert Sandbox.get_info_by_id(sandbox.id, fields="id", **login) == {"id": sandbox.id}
    snapshot = sandbox.create_snapshot(idempotency_key="s")
    assert sandbox.create_snapshot(idempotency_key="s") == snapshot
    assert Snapshot.list(sandbox_id=sandbox.id, **login) == [snapshot]
    kinds = {"created_via": "api"}
    assert snapshot in Snapshot.list(metadata=kinds, **login)
    assert Snapshot.list(sandbox_id=sandbox.id, metadata={"created_via": "x"}, **login) == []
    fork = sandbox.fork(idempotency_key="f")
    assert sandbox.fork(idempotency_key="f").id == fork.id
    fork.kill()
    signed = sandbox.create_signed_preview_url(8000, expires_in_seconds=120)
    target = sandbox.create_preview_proxy_target(
        8001, expires_in_seconds=120, transports=["http"], include_traffic_token_hint=False
    )
    for grant in (signed.grant, target.grant):
        assert (grant.expires_at - grant.issued_at).total_seconds() == 120
    assert target.http_token and target.websocket_token is None
    assert target.traffic_access_required is None
    assert [one.id for one in sandbox.list_preview_urls(port=8001)] == [target.grant.id]
    ready = sandbox.wait_for_preview(8001, kind="http", path="/x", timeout_secs=1, interval_ms=100)
    assert (ready.ready, ready.kind, ready.path) == (False, "http", "/x")
    for call in (sandbox.upload_url, sandbox.download_url):
        assert "signature=" in call("f", user="root")
    Snapshot.delete(snapshot.id, **login)


def test_commands(sandbox: Sandbox) -> None:
    """In the foreground, the background and as a stream: arguments, limit, directory, variables, shell, callbacks."""
    run, out, err = sandbox.commands.run, list[str](), list[str]()
    more: Login = {"cwd": "sub", "envs": {"A": "1"}, "shell": True, "timeout": 60}
    sandbox.files.make_dir("sub")
    line = "echo $A $0; pwd >&2"
    for call in (run, sandbox.commands.run_streaming):
        ran = call(line, args=[], on_stdout=out.append, on_stderr=err.append, **more)
        assert (ran.stdout.split()[0], ran.stderr[-5:]) == ("1", "/sub\n")
        assert ("".join(out), "".join(err)) == (ran.stdout, ran.stderr)
        out.clear(), err.clear()
    assert run("echo", args=["a b", "$A"], envs={"A": "1"}).stdout == "a b $A\n"
    handle = run("read x; echo $x >&2", shell=True, background=True)
    told = sandbox.commands.connect(handle.pid, on_stdout=out.append, on_stderr=err.append)
    sandbox.commands.send_stdin(handle.pid, "word\n")
    assert told.wait(timeout=30).stderr == "word\n" == "".join(err)
    with pytest.raises(SandboxError) as late:
        sandbox.process.code_run("sleep 60", language="sh", timeout=1)
    assert late.value.code == "exec_timeout"


# --- Files -------------------------------------------------------------------------------------------


def test_files(sandbox: Sandbox) -> None:
    """``user`` is taken and means nothing; depths and formats do what they say."""
    files, user = sandbox.files, {"user": "nobody"}
    files.write("a/b", "bytes \u00e9", **user)
    assert files.write_files([("a/c", b"2")], **user)[0].size == 1
    assert [one.name for one in files.list(path="a", depth=1, **user)] == ["b", "c"]
    assert files.read("a/b", encoding="utf8", **user) == "bytes \u00e9"
    assert files.read("a/b", encoding="base64") == "bytes \u00e9".encode()
    assert b"".join(files.read("a/b", format="stream", **user)) == "bytes \u00e9".encode()
    assert files.exists("a/b", **user) and files.info("a/b", **user) == files.get_info(
        "a/b", **user
    )
    assert files.find_files("a", "bytes", **user) and files.search_files("a", "b", **user)
    assert files.replace_in_files(["a/b"], "bytes", "x", **user) == 1
    assert files.make_dir("d", **user) and files.rename("a/b", "d/b", **user).name == "b"
    files.set_permissions("d/b", "600", **user)
    files.remove("d/b", **user)
    assert files.upload_url("u", user="nobody").url and files.download_url("a/c", **user)


def test_uploads(sandbox: Sandbox, tmp_path: Path) -> None:
    """Directly and in parts, as asked for; checked; resumed; told of; directories without what is not wanted."""
    (tmp_path / "f").write_bytes(b"12345")
    told: list[Any] = []
    parts: Login = {
        "resumable": True,
        "checksum": "sha256",
        "max_concurrency": 2,
        "spool_to_disk": True,
        "progress": told.append,
        "user": "nobody",
    }
    for call in (sandbox.files.upload, sandbox.files.upload_file):
        told.clear()
        done = call(tmp_path / "f", destination="u/f", **parts)
        assert done.transport is UploadTransport.RESUMABLE and told[-1].bytes_completed == 5
        direct = call(tmp_path / "f", destination="u/g", resumable=False)
        assert direct.transport is UploadTransport.DIRECT
        assert sandbox.files.read("u/f") == sandbox.files.read("u/g") == "12345"
    told.clear()
    again = sandbox.files.resume_upload(
        done.upload_id, tmp_path / "f", progress=told.append, max_concurrency=1, ignore_patterns=[]
    )
    assert again.resumed and told
    (tmp_path / "no.log").write_text("")
    made = sandbox.files.upload_dir(
        tmp_path,
        destination="site",
        conflict="error",
        ignore_patterns=["*.log"],
        max_concurrency=1,
        progress=told.append,
        user="nobody",
    )
    assert made.file_count == 1 and [one.name for one in sandbox.files.list("site")] == ["f"]


def test_watching(sandbox: Sandbox) -> None:
    """Only what is directly there, unless all below is asked for; for so long; and the end is told."""
    events: queue.Queue[Any] = queue.Queue()
    ends: queue.Queue[Any] = queue.Queue()
    sandbox.files.make_dir("d/a")
    given: Login = {"on_exit": ends.put, "user": "nobody"}
    with sandbox.files.watch_dir("d", events.put, recursive=False, **given):
        sandbox.files.write("d/a/deep", "")
        sandbox.files.write("d/near", "")
        assert events.get(timeout=20).name == "near"
    assert ends.get(timeout=20) is None
    with sandbox.files.watch_dir("d", events.put, recursive=True, timeout=0.2, **given):
        assert ends.get(timeout=20) is None


def test_files_of_a_volume(login: Login, tmp_path: Path) -> None:
    """The same for a volume; not in parts, and not as archives."""
    volume = Volume.from_name("options", create_if_missing=True, **login)
    files = volume.files
    files.write("/a/b", "one")
    assert [one.path for one in files.list(path="/", depth=2)] == ["/a", "/a/b"]
    assert files.read("/a/b", encoding="base64") == files.read("/a/b", format="bytes") == b"one"
    dry = files.replace_in_files(["/a/b"], "one", "two", dry_run=True)
    assert (dry.dry_run, dry.replacements, files.read("/a/b")) == (True, 1, "one")
    for get in (files.download, files.download_file):
        get("/a/b", destination=tmp_path / "b", overwrite=True)
        assert (tmp_path / "b").read_text() == "one"
    told: list[Any] = []
    more: Login = {"checksum": "auto", "spool_to_disk": "auto", "progress": told.append}
    for put in (files.upload, files.upload_file):
        put(tmp_path / "b", destination="/c", resumable=False, max_concurrency=1, **more)
        assert files.read("/c") == "one" and told[-1].bytes_completed == 3
        with pytest.raises(NotOffered):
            put(tmp_path / "b", destination="/d", resumable=True)
    for refused in (
        lambda: files.download("/a", destination=tmp_path / "t", archive=True),
        lambda: files.download_url("/a", archive_format="tar"),
    ):
        with pytest.raises(NotOffered):
            refused()
    volume.delete()


# --- Events ------------------------------------------------------------------------------------------


@pytest.fixture
def lived(login: Login) -> Iterator[tuple[Sandbox, str, str]]:
    """A sandbox with events of many kinds, its snapshot, and its fork."""
    made = Sandbox.create(**PAUSES, **login)
    made.set_timeout(60)
    snapshot = made.pause()
    Sandbox.resume(snapshot.id, **login)
    fork = made.fork()
    fork.kill()
    yield made, snapshot.id, fork.id
    with suppress(NotFoundError):
        Sandbox.kill_by_id(made.id, **login)


def _ids(page: Any) -> list[str]:
    return [event.id for event in page.events]


def test_lists_of_events(login: Login, lived: tuple[Sandbox, str, str]) -> None:
    """Each filter of each list gives what the whole list has of it; times include the moment that is named."""
    sandbox, snapshot, fork = lived
    with closing(Lifecycle(**login)) as lifecycle:
        lists: list[Callable[..., Any]] = [
            lifecycle.list_events,
            partial(lifecycle.list_sandbox_events, sandbox.id),
            partial(lifecycle.list_snapshot_events, snapshot),
            sandbox.list_lifecycle,
        ]
        for call in lists:
            every = call(order_asc=True, limit=1000).events
            assert _ids(call(order_asc=False, limit=1000)) == [one.id for one in every][::-1]
            page = call(order_asc=True, offset=1, limit=2)
            assert _ids(page) == [one.id for one in every[1:3]]
            assert (page.offset, page.limit, page.has_more) == (1, 2, len(every) > 3)
            when = every[2].occurred_at
            _agree(call, every, {"operation": LifecycleOperation.HIBERNATE}, operation="hibernate")
            _agree(call, every, {"status": LifecycleStatus.REQUESTED}, status="requested")
            later = _ids(call(order_asc=True, limit=1000, from_time=when.isoformat()))
            assert later == [one.id for one in every if one.occurred_at >= when]
            sooner = _ids(call(order_asc=True, limit=1000, to_time=when.isoformat()))
            assert sooner == [one.id for one in every if one.occurred_at <= when]
        every = lifecycle.list_events(order_asc=True, limit=1000).events
        for name, value in {
            "sandbox_id": sandbox.id,
            "snapshot_id": snapshot,
            "source_sandbox_id": sandbox.id,
            "target_sandbox_id": fork,
        }.items():
            _agree(lifecycle.list_events, every, {name: value}, **{name: value})
        assert _ids(lifecycle.list_events(order_asc=True, limit=1000, audience="customer")) == [
            one.id for one in every
        ]


def _agree(call: Callable[..., Any], every: list[LifecycleEvent], has: Login, **asked: Any) -> None:
    found = _ids(call(order_asc=True, limit=1000, **asked))
    wanted = [one.id for one in every if all(getattr(one, k) == v for k, v in has.items())]
    assert found == wanted and found, asked


def test_streams_of_events(login: Login, lived: tuple[Sandbox, str, str]) -> None:
    """Each option of both streams: the replay is what the list has of it."""
    sandbox, snapshot, _ = lived
    lifecycle = Lifecycle(**login)
    own = sandbox.list_lifecycle(order_asc=True, limit=1000).events
    cursor = own[2].id
    asked: list[tuple[Callable[..., Any], Login, list[LifecycleEvent]]] = [
        (lifecycle.stream_events, {"sandbox_id": sandbox.id, "audience": "customer"}, own),
        (
            lifecycle.stream_events,
            {"snapshot_id": snapshot},
            [one for one in own if one.snapshot_id == snapshot],
        ),
    ]
    for call, fixed in [
        (lifecycle.stream_events, {"sandbox_id": sandbox.id}),
        (sandbox.stream_events, {}),
    ]:
        asked += [
            (call, fixed | {"operation": "fork"}, [e for e in own if e.operation == "fork"]),
            (call, fixed | {"status": "requested"}, [e for e in own if e.status == "requested"]),
            (call, fixed | {"after_event_id": cursor}, own[3:]),
            (call, fixed | {"replay_limit": 2}, own[-2:]),
            (
                call,
                fixed | {"metadata": {"created_via": "hibernate"}},
                [e for e in own if e.metadata.get("created_via") == "hibernate"],
            ),
        ]
    for call, options, wanted in asked:
        with closing(call(**options)) as events:
            seen = [event.id for event in itertools.islice(events, len(wanted))]
        assert wanted and seen == [event.id for event in wanted], options
    old = [event.id for event in own]
    for call in (lifecycle.stream_events, sandbox.stream_events):
        reader = Thread(call(live_only=True))
        # Live from when the server has answered, which this client tells nobody; so try until it is.
        while not reader.seen and reader.error is None:
            sandbox.set_timeout(60)
            reader._thread.join(0.05)
        ended = sandbox if call == sandbox.stream_events else sandbox.fork()
        reader.last = ended.id
        ended.kill()
        assert not set(asyncio.run(reader.end())) & set(old)
    lifecycle.close()


def test_subscriptions(login: Login, lived: tuple[Sandbox, str, str]) -> None:
    """Narrowed as streams are; what the server has to say at the end is told."""
    sandbox, snapshot, _ = lived
    events: queue.Queue[LifecycleEvent] = queue.Queue()
    errors: queue.Queue[Any] = queue.Queue()
    lifecycle = Lifecycle(**login)
    given: Login = {"audience": "customer", "on_event": events.put, "on_error": errors.put}
    narrowed = lifecycle.subscribe(sandbox_id=sandbox.id, operation="fork", **given)
    assert [events.get(timeout=20).operation for _ in range(2)] == [LifecycleOperation.FORK] * 2
    narrowed._ws.send("{}")  # type: ignore[attr-defined]
    assert "Nothing is expected" in errors.get(timeout=20).message
    narrowed.stop()
    of_snapshot = lifecycle.subscribe(snapshot_id=snapshot, **given)
    assert [events.get(timeout=20).snapshot_id for _ in range(4)] == [snapshot] * 4
    of_snapshot.stop()
    lifecycle.close()


# --- Pools and volumes -------------------------------------------------------------------------------


def test_pools(login: Login) -> None:
    """Everything that can be said at the beginning and later is what the pool is then; lists find it by it."""
    said: Login = {
        "vcpus": 1,
        "memory_mb": 256,
        "disk_mb": 500,
        "idle_timeout_seconds": 50,
        "stale_after_seconds": 60,
        "checkout_policy": "require",
        "version_policy": "track_tag",
        "track_tag": "a",
        "labels": {"options": "yes"},
        "metadata": {"n": 1},
    }
    pool = TemplateWarmPool.create("options", name="o", min_ready=0, max_ready=1, **said, **login)
    found = TemplateWarmPool.list(
        template="options", state="enabled", label="options=yes", status="ready", limit=5, **login
    )
    assert [one.id for one in found] == [pool.id]
    now: Login = {"template_ref": "options", "name": "o", "min_ready": 0, "max_ready": 1, **said}
    changes: Login = {
        "template": "options2",
        "name": "p",
        "max_ready": 3,
        "min_ready": 1,
        "vcpus": 2,
        "memory_mb": 300,
        "disk_mb": 600,
        "idle_timeout_seconds": 70,
        "stale_after_seconds": 80,
        "checkout_policy": "prefer",
        "version_policy": "pinned_build",
        "track_tag": "b",
        "labels": {"options": "no"},
        "metadata": {"n": 2},
    }
    for option, value in changes.items():
        pool.update(**{option: value})
        now["template_ref" if option == "template" else option] = value
        info = pool.get_info()
        assert {name: getattr(info, name) for name in now} == now, option
    ready = pool.wait_until_ready(min_ready=1, timeout_secs=60, interval_secs=0.05)
    assert ready.status.ready == 1
    pool.delete()
    pool.close()


def test_volumes(login: Login, sandbox: Sandbox) -> None:
    """Chosen fields of one and of all; a part of it at a place."""
    volume = Volume.from_name("fields", create_if_missing=True, **login)
    chosen = {"name": "fields"}
    assert Volume.get(volume.id, fields="name", **login) == chosen
    assert Volume.get_by_name("fields", fields=["name"], **login) == chosen
    assert volume.get_info(fields=["name"]) == chosen
    assert chosen in Volume.list(fields="name", **login)
    attached = sandbox.attach_volume(
        "fields", mount_path="/workspace/v", subpath="a/b", read_only=False
    )
    sandbox.files.write("v/f", "1")
    assert volume.files.read("/a/b/f") == "1" and attached.subpath == "a/b"
    assert attached.id is not None
    sandbox.detach_volume(attached.id)
    volume.delete()
