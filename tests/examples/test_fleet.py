"""The fleet of the compose file: its parts fit together, and together they wake a sandbox behind TLS."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from click.testing import CliRunner
from redis import Redis

from edge.cli import cli
from tests.examples.fleet import INSIDE, Prepared, prepare, running
from tests.examples.proxies import EXAMPLES, cleaned

pytestmark = pytest.mark.needs_tool("nginx", "openssl")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The example with secrets of its own."""
    return prepare(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def demo(prepared: Prepared) -> Iterator[dict[str, str]]:
    """Everything runs; what the control plane said about the demo."""
    with running(prepared) as said:
        yield said


def test_every_mount_is_known_and_there(prepared: Prepared) -> None:
    """What the compose file mounts is in the repository or made by prepare.sh, where the commands look for it."""
    plain = Prepared(EXAMPLES / "fleet", {})
    mounts = [mount for one in plain.services.values() for mount in one.get("volumes", [])]
    found = {target: source for source, target, _ in (mount.split(":") for mount in mounts)}
    assert found == {target: f"./{source}" for target, source in INSIDE.items()}
    assert all((prepared.folder / source).is_file() for source in found.values())
    assert not (prepared.folder / "secrets").stat().st_mode & 0o077


def test_every_edges_settings_are_good(prepared: Prepared) -> None:
    """`preview-edge check-config` accepts them; no two edges share a name or a port."""
    assert len(prepared.edges) == 3
    names = [prepared.environment(edge) for edge in prepared.edges]
    for environ in names:
        config = environ["PREVIEW_EDGE_CONFIG"]
        done = CliRunner().invoke(cli, ["check-config", config], env=cleaned() | environ)
        assert done.exit_code == 0, done.output
    for name in ("CONTROL_PLANE__EDGE_ID", "LISTEN__PORT", "LISTEN__ADMIN_PORT"):
        assert len({environ[f"PREVIEW_EDGE_{name}"] for environ in names}) == 3


def test_no_port_of_the_fleet_can_be_previewed(prepared: Prepared) -> None:
    """Sandboxes share the network with all but Redis, so those ports are reserved; the API's own always is."""
    plane = json.loads((prepared.folder / "secrets" / "control-plane.json").read_text())
    shared = {port for name, port in prepared.ports.items() if name not in ("3000", "6379")}
    assert set(plane["reserved_ports"]) == shared
    assert {one.get("network_mode") for name, one in prepared.services.items()} == {
        None, "service:control-plane",
    }  # fmt: skip
    published = [one["ports"] for one in prepared.services.values() if "ports" in one]
    front = prepared.ports["8443"]
    assert published == [[f"127.0.0.1:{front}:{front}"]]


def test_secrets_are_new_and_nobodys_else(prepared: Prepared, tmp_path: Path) -> None:
    """Nothing to replace is left, two runs agree in no secret, and none is overwritten."""
    other = prepare(tmp_path)
    for name in ("redis.acl", "edge.env", "control-plane.json", "tls.key"):
        one, two = (folder / "secrets" / name for folder in (prepared.folder, other.folder))
        assert "replace" not in one.read_text()
        assert one.read_text() != two.read_text()
    again = subprocess.run(
        ["sh", str(prepared.folder / "prepare.sh")],
        env=cleaned(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 1
    assert "there already" in again.stderr


def test_a_request_through_the_front_wakes_the_sandbox(
    prepared: Prepared, demo: dict[str, str]
) -> None:
    """Over verified TLS: the demo's page, again after a pause, by a wake of one of the three edges."""
    link = urlsplit(demo["link"])
    host = link.hostname or ""
    trusted = ssl.create_default_context(cafile=prepared.folder / "secrets" / "tls.crt")
    plane = json.loads((prepared.folder / "secrets" / "control-plane.json").read_text())
    with (
        httpx.Client(
            base_url=f"https://127.0.0.1:{prepared.ports['8443']}",
            headers={"Host": link.netloc}, verify=trusted, timeout=60,
        ) as visitor,
        httpx.Client(
            base_url=f"http://127.0.0.1:{prepared.ports['3000']}",
            headers={"Authorization": f"Bearer {plane['api_key']}"}, timeout=60,
        ) as api,
    ):  # fmt: skip
        sni = {"sni_hostname": host}
        assert link.port == prepared.ports["8443"]
        assert visitor.get(f"/?{link.query}", extensions=sni).status_code == 200
        sandbox = f"/v1/sandboxes/{demo['sandbox_id']}"
        assert api.post(f"{sandbox}/hibernate").is_success
        assert api.get(sandbox).json()["status"] == "paused"
        woken = visitor.get(f"/?{link.query}", extensions=sni)
        assert woken.status_code == 200, woken.text
        events = api.get(f"{sandbox}/lifecycle?operation=resume_from_snapshot").json()["events"]
        assert [event["status"] for event in events].count("succeeded") == 1


def test_edges_and_control_plane_meet_in_redis(prepared: Prepared, demo: dict[str, str]) -> None:
    """With the passwords and the rights of the ACL file: the demo's record is there, and all edges are."""
    plane = json.loads((prepared.folder / "secrets" / "control-plane.json").read_text())
    for number in (1, 2, 3):
        admin = prepared.ports[f"301{number}"]
        with httpx.Client(transport=httpx.HTTPTransport(retries=3), timeout=60) as client:
            _until_ready(client, f"http://127.0.0.1:{admin}/readyz")
    with Redis.from_url(plane["redis"]["url"], protocol=2, driver_info=None) as redis:
        members = redis.zrangebyscore("edge:{edges}:members", 0, "+inf")
        assert {name.decode() for name in members} == set(prepared.edges)
        keys = [f"edge:{{s{shard:02d}}}:sandbox:{demo['sandbox_id']}" for shard in range(16)]
        assert sum(redis.hget(key, "v") is not None for key in keys) == 1


def _until_ready(client: httpx.Client, url: str) -> None:
    end = time.monotonic() + 60
    while not client.get(url).json()["ready"]:
        assert time.monotonic() < end, client.get(url).text
        time.sleep(0.05)
