"""Asking a running edge whether it is alive, for container health checks."""

from __future__ import annotations

import http.client

TIMEOUT = 3.0
"""Seconds the admin listener may take."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def alive(host: str, port: int) -> str | None:
    """None when /healthz of the admin listener answers 200, else what is wrong, as one line."""
    connection = http.client.HTTPConnection(_EVERYWHERE.get(host, host), port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as e:
        return f"no answer from the admin listener on {host}:{port}: {e}"
    except http.client.HTTPException:
        return f"no answer from the admin listener on {host}:{port}: what listens there is another"
    finally:
        connection.close()
    return None if status == 200 else f"the admin listener answered {status}"
