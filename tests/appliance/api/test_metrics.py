"""Metrics over HTTP: numbers of real processes, and who may ask when."""

from __future__ import annotations

import asyncio
import sys

import pytest
from service import PAUSES, Service

BUSY = "x = bytearray(64 << 20)\nopen('ready', 'w').close()\nwhile True: pass"
KEYS = {
    *("timestamp", "cpu_percent", "cpu_count", "mem_used_bytes", "mem_total_bytes"),
    *("disk_used_bytes", "disk_total_bytes", "network_rx_bytes", "network_tx_bytes"),
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is told on Linux only")


async def _metrics(service: Service, sandbox: str) -> dict[str, float]:
    status, answer = await service.api("GET", f"/v1/sandboxes/{sandbox}/metrics")
    assert status == 200 and len(answer) == 1
    sample: dict[str, float] = answer[0]
    return sample


async def test_what_processes_use_is_measured(service: Service) -> None:
    """Nothing at first; then a busy one shows in CPU, memory and disk; paused it uses memory and no CPU."""
    sandbox = await service.create(**PAUSES)
    path = f"/v1/sandboxes/{sandbox}"
    idle = await _metrics(service, sandbox)
    assert set(idle) == KEYS
    assert (idle["cpu_percent"], idle["mem_used_bytes"], idle["disk_used_bytes"]) == (0, 0, 0)
    assert (idle["network_rx_bytes"], idle["network_tx_bytes"]) == (None, None)
    started = {"command": sys.executable, "args": ["-c", BUSY], "background": True}
    await service.api("POST", f"{path}/exec", started)
    async with asyncio.timeout(20):
        while (await service.api("GET", f"{path}/file?path=ready"))[0] != 200:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.05)
    await service.api("POST", f"{path}/files/write", {"path": "f", "content": "x" * 5000})
    # Shared machines may starve it for a while, but not for long.
    async with asyncio.timeout(20):
        while (busy := await _metrics(service, sandbox))["cpu_percent"] < 5:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
    assert busy["cpu_percent"] <= 100 * busy["cpu_count"] + 50 and busy["cpu_count"] >= 1
    assert 64 << 20 < busy["mem_used_bytes"] < busy["mem_total_bytes"]
    assert 5000 <= busy["disk_used_bytes"] < busy["disk_total_bytes"]
    await service.api("POST", f"{path}/hibernate")
    paused = await _metrics(service, sandbox)
    assert paused["cpu_percent"] == 0 and paused["mem_used_bytes"] > 64 << 20
    assert (await service.api("GET", path))[1]["status"] == "paused"


async def test_whom_nobody_knows_has_none(service: Service) -> None:
    """404 for an unknown sandbox and for one that is gone."""
    sandbox = await service.create()
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    for each in (sandbox, "sb_00000000"):
        status, answer = await service.api("GET", f"/v1/sandboxes/{each}/metrics")
        assert (status, answer["code"]) == (404, "sandbox_not_found")


async def test_where_nobody_tells_it_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than on Linux no number is made up: 501 with the reason."""
    sandbox = await service.create()
    monkeypatch.setattr("edge.appliance.runtime.host.sys.platform", "darwin")
    status, answer = await service.api("GET", f"/v1/sandboxes/{sandbox}/metrics")
    assert (status, answer["code"]) == (501, "not_implemented") and "Linux" in answer["error"]
