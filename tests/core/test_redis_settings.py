"""Settings of Redis: what a URL may say, and which settings go together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edge.core.redis_settings import RedisSettings

PASSWORD = "hunter2"
PLAIN, TLS = f"redis://u:{PASSWORD}@h", f"rediss://u:{PASSWORD}@h"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"url": PLAIN},
        {"url": f"{TLS}:6380/3", "ca_file": "ca.pem"},
        {"url": PLAIN, "cluster": True},
        {"url": f"{PLAIN}/0", "cluster": True},
        {"url": PLAIN, "sentinels": ["a:26379", "[::1]:26379"]},
        {"url": PLAIN, "sentinels": ["a:26379"], "sentinel_tls": True, "ca_file": "ca.pem"},
    ],
    ids=str,
)
def test_what_goes_together(values: dict[str, Any]) -> None:
    """One server, a Cluster and Sentinels, each with TLS or without, are taken as they are."""
    settings = RedisSettings.model_validate(values)
    assert (settings.url and settings.url.get_secret_value()) == values.get("url")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"url": f"http://u:{PASSWORD}@h"}, "must begin with redis:// or rediss://"),
        ({"url": f"{PLAIN}:63x"}, "must be like redis://"),
        ({"url": f"{PLAIN}:0"}, "must name a host, and perhaps a port"),
        ({"url": f"redis://u:{PASSWORD}@"}, "must name a host, and perhaps a port"),
        ({"url": f"{PLAIN}/x"}, "must be the number of a database"),
        ({"url": f"{PLAIN}?ssl_cert_reqs=none"}, "takes no options"),
        ({"url": f"{PLAIN}#x"}, "takes no options"),
        ({"url": PLAIN, "cluster": True, "sentinels": ["a:1"]}, "give cluster or sentinels"),
        ({"url": f"{PLAIN}/3", "cluster": True}, "only the database 0"),
        ({"cluster": True}, "url is missing"),
        ({"sentinels": ["a:26379"]}, "url is missing"),
        ({"url": PLAIN, "ca_file": "ca.pem"}, "ca_file is of no use without TLS"),
        ({"url": PLAIN, "sentinels": ["a"]}, "each must be like host:26379"),
        ({"url": PLAIN, "sentinels": [":26379"]}, "each must be like host:26379"),
        ({"url": PLAIN, "sentinels": ["a:65536"]}, "each must be like host:26379"),
        ({"prefix": "a:b"}, "should match pattern"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(values: dict[str, Any], said: str) -> None:
    """It says what is wrong, and no message has the password in it."""
    with pytest.raises(ValidationError) as refused:
        RedisSettings.model_validate(values)
    messages = " ".join(error["msg"] for error in refused.value.errors())
    assert said in messages and PASSWORD not in messages
