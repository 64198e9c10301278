"""Somebody who says yes to whatever is asked, in the words of the description, and keeps what that was."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from edge.appliance.description.answers import ANSWERS
from edge.appliance.description.calls import CALLS, Call

ID = "sb_00000000"
_WORDS = {"id": ID, "sandbox_id": ID, "port": 8080, "exit_code": 0}
"""What is known by its name."""


def sample(schema: dict[str, Any], name: str = "", *, option: int = 0) -> Any:
    """Something that fits a schema of the description; of several ``option`` says which."""
    if "$ref" in schema:
        return sample(ANSWERS[schema["$ref"].rpartition("/")[2]])
    if "oneOf" in schema:
        return sample(schema["oneOf"][option])
    if "enum" in schema:
        return "running" if "running" in schema["enum"] else schema["enum"][0]
    match schema["type"]:
        case "object":
            return {key: sample(one, key) for key, one in schema.get("properties", {}).items()}
        case "array":
            return [sample(schema["items"])]
        case "string" if "date-time" in schema.get("format", ""):
            return "2026-01-01T00:00:00Z"
        case "string":
            return _WORDS.get(name, "x")
        case "boolean":
            return True
        case "null" | [_, "null"]:
            return None
    return _WORDS.get(name, 1)


class Agreeing(ThreadingHTTPServer):
    """``asked`` has calls of the description with their query and body; what is no call is as it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Yes)
        self.asked: list[tuple[str, Any, Any]] = []

    @property
    def login(self) -> dict[str, Any]:
        """What a client needs to know."""
        return {"base_url": f"http://127.0.0.1:{self.server_address[1]}", "api_key": "k"}

    @property
    def calls(self) -> set[str]:
        """The calls alone."""
        return {call for call, _, _ in self.asked}


class _Yes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # A head on its own would wait for the client's late acknowledgement.
    server: Agreeing

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        body = b"".join(self._body())
        name, call = _found(self.command, path)
        self.server.asked.append((name, parse_qsl(query), self._said(body)))
        data = b""
        if call is None or call.status == 101:
            self.send_response(501)
        else:
            self.send_response(call.status)
            data = _data(call, asked=bool(query))
        self.send_header("Content-Type", "application/json")
        if call is None or call.status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _said(self, body: bytes) -> Any:
        media = self.headers.get("Content-Type", "").partition(";")[0]
        # A form has a boundary that is another one each time.
        return json.loads(body) if media == "application/json" and body else media or body

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815 - http.server looks for these

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def _data(call: Call, *, asked: bool) -> bytes:
    if call.answer is None:
        return b""
    if call.answer not in ANSWERS:
        return b"bytes"
    # The list of sandboxes has pages if there is a query.
    option = int(asked and call.answer == "SandboxList")
    return json.dumps(sample(ANSWERS[call.answer], option=option)).encode()


def _found(method: str, path: str) -> tuple[str, Call | None]:
    # Words before places: /by-name/{name} is not a volume.
    for name in sorted(CALLS, key=lambda name: name.count("{")):
        of, _, pattern = name.partition(" ")
        if of == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), path):
            return name, CALLS[name]
    return f"{method} {path}", None


@contextmanager
def agreeing() -> Iterator[Agreeing]:
    """One, while in here."""
    with Agreeing() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
