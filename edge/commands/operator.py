"""Calling the control plane's operator API, for ``preview-edge operator``.

Where it is and the token it wants come from the environment (the variables by which the edge itself
finds its control plane), or from a file that ``preview-edge dev`` keeps in its data directory while it
runs. The token is never an argument: those are seen by everybody on the machine.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from edge.ops.configuration import variable_of

PREFIX = "/internal/operator/v1"
FILE_NAME = "operator.json"
URL_VARIABLE = variable_of("control_plane.url")
TOKEN_VARIABLE = variable_of("control_plane.token")

TIMEOUT = 10.0
"""Seconds the control plane may take."""


class OperatorError(Exception):
    """It cannot be done. The message is one line."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where the operator API is, and the service token."""

    url: str
    token: str = field(repr=False)


@contextmanager
def kept(data_dir: Path, door: Door) -> Iterator[None]:
    """The file is there in here, for this user only."""
    file, draft = data_dir / FILE_NAME, data_dir / f"{FILE_NAME}.new"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump({"url": door.url, "token": door.token}, out)
    draft.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def find(environ: Mapping[str, str], data_dir: Path) -> Door:
    """The environment's control plane, else the running ``dev``'s. Raises `OperatorError`."""
    url, token = environ.get(URL_VARIABLE), environ.get(TOKEN_VARIABLE)
    if url and token:
        return Door(url, token)
    if url or token:
        raise OperatorError(f"set both {URL_VARIABLE} and {TOKEN_VARIABLE}, or neither")
    file = data_dir / FILE_NAME
    try:
        said = json.loads(file.read_bytes())
        return Door(str(said["url"]), str(said["token"]))
    except FileNotFoundError:
        raise OperatorError(
            f"{file}: no `preview-edge dev` runs there; name its --data-dir, or set {URL_VARIABLE} "
            f"and {TOKEN_VARIABLE}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise OperatorError(f"{file}: cannot be read ({e})") from None


class Operator:
    """The calls, one at a time. All raise `OperatorError`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def switch_grant(self, grant_id: str, *, enable: bool, reason: str | None) -> dict[str, Any]:
        """Enable or disable one grant; the grant as it is then."""
        return self._switch(f"grants/{quote(grant_id, safe='')}", enable, reason)

    def switch_previews(
        self, sandbox_id: str, *, enable: bool, reason: str | None
    ) -> dict[str, Any]:
        """Enable or disable all previews of a sandbox; ``sandbox_id`` and ``previews_disabled``."""
        return self._switch(f"sandboxes/{quote(sandbox_id, safe='')}/previews", enable, reason)

    def audit(self, **asked: str | int | None) -> list[dict[str, Any]]:
        """A page of the audit trail; arguments are those of the query, None = unsaid."""
        said = {name.rstrip("_"): value for name, value in asked.items() if value is not None}
        events: list[dict[str, Any]] = self._call("GET", f"audit?{urlencode(said)}")["events"]
        return events

    def _switch(self, what: str, enable: bool, reason: str | None) -> dict[str, Any]:
        body = {"reason": reason} if reason is not None else {}
        return self._call("POST", f"{what}/{'enable' if enable else 'disable'}", body)

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        status, said = self._exchange(method, path, body)
        try:
            answer = json.loads(said)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise OperatorError(f"{self._door.url} is no control plane (status {status})")
        if status == 401:
            raise OperatorError(f"{self._door.url}: the service token is not accepted")
        if status != 200:
            told = (
                str(answer.get(name, "")).rstrip(". ") for name in ("error", "suggested_action")
            )
            sentences = ". ".join(sentence for sentence in told if sentence)
            raise OperatorError(f"{answer.get('code', status)}: {sentences}".rstrip(": "))
        return answer

    def _exchange(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        url = self._door.url
        try:
            parts = urlsplit(url)
            kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
            connection = kinds[parts.scheme](parts.hostname or "", parts.port, timeout=TIMEOUT)
        except (KeyError, ValueError):
            raise OperatorError(f"{url}: not an address such as http://127.0.0.1:3000") from None
        headers = {"Authorization": f"Bearer {self._door.token}"}
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, f"{parts.path.rstrip('/')}{PREFIX}/{path}", data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError as e:
            raise OperatorError(f"no answer from the control plane at {url}: {e}") from None
        except (http.client.HTTPException, ValueError):
            raise OperatorError(f"{url} is no control plane") from None
        finally:
            connection.close()
