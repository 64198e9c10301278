"""The app in the sandbox: says what reached it, streams on cue, echoes. ``python sandboxed.py PORT``."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import defaultdict

from aiohttp import WSMsgType, web

PART = bytes(range(256)) * 256
"""64 KiB of every byte."""


class App:
    """Cues and counts are shared by all requests."""

    def __init__(self) -> None:
        self.cues: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))
        self.uploaded = self.downloaded = 0
        self.news = asyncio.Condition()

    async def echo(self, request: web.Request) -> web.Response:
        """Method, target, fields in order, and the body."""
        body = await request.read()
        said = {
            "method": request.method,
            "target": request.raw_path,
            "fields": [[n.decode().lower(), v.decode()] for n, v in request.raw_headers],
            "body": body.decode("latin-1"),
        }
        answer = web.json_response(said, status=int(request.query.get("status", "200")))
        answer.headers.add("Set-Cookie", "one=1")
        answer.headers.add("Set-Cookie", "two=2; Path=/")
        answer.headers["X-Accel-Redirect"] = (
            "/cue"  # an order to nginx, which is not the app's to give
        )
        return answer

    async def empty(self, request: web.Request) -> web.Response:
        """An answer without a body, whatever that means for its status."""
        return web.Response(status=int(request.match_info["status"]))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, each but the first on cue; the third is the last, or the one that is asked for."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(int(request.query.get("count", "3"))):
            if number:
                await self.cues[request.path].acquire()
            await answer.write(f"data: {number}\n\n".encode())
        return answer

    async def cue(self, request: web.Request) -> web.Response:
        """The next event of that path, please."""
        self.cues[request.query["of"]].release()
        return web.Response()

    async def upload(self, request: web.Request) -> web.Response:
        """Reads as it comes and counts; the digest at the end."""
        digest, self.uploaded = hashlib.sha256(), 0
        self.uploading = True
        try:
            async for part in request.content.iter_any():
                digest.update(part)
                async with self.news:
                    self.uploaded += len(part)
                    self.news.notify_all()
        finally:
            async with self.news:
                self.uploading = False
                self.news.notify_all()
        return web.json_response({"size": self.uploaded, "digest": digest.hexdigest()})

    async def arrived(self, request: web.Request) -> web.Response:
        """Answers once so many bytes of an upload are here."""
        wanted = int(request.query["bytes"])
        async with self.news:
            await self.news.wait_for(lambda: self.uploaded >= wanted)
        return web.Response()

    async def uploaded_or_not(self, _: web.Request) -> web.Response:
        """Answers once the last upload has ended, one way or the other."""
        async with self.news:
            await self.news.wait_for(lambda: not self.uploading)
        return web.Response()

    async def download(self, request: web.Request) -> web.StreamResponse:
        """So many parts, of a length that is not told before."""
        answer = web.StreamResponse()
        await answer.prepare(request)
        self.downloaded = 0
        for _ in range(int(request.query["parts"])):
            await answer.write(PART)
            self.downloaded += len(PART)
        return answer

    async def written(self, _: web.Request) -> web.Response:
        """Bytes of the last download that the app could get rid of."""
        return web.json_response(self.downloaded)

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """Fields first, then an echo; ``close CODE REASON`` closes. ``?refuse=STATUS`` is refused."""
        if "refuse" in request.query:
            status, there = int(request.query["refuse"]), {"Location": "/socket"}
            return web.json_response({"refused": True}, status=status, headers=there)
        socket = web.WebSocketResponse(protocols=["chat"], compress=False)
        await socket.prepare(request)
        fields = [[n.decode().lower(), v.decode()] for n, v in request.raw_headers]
        await socket.send_json({"target": request.raw_path, "fields": fields})
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.data.startswith("close "):
                _, code, reason = message.data.split(" ", 2)
                await socket.close(code=int(code), message=reason.encode())
            else:
                await socket.send_str(message.data)
        self.closed = socket.close_code
        async with self.news:
            self.news.notify_all()
        return socket

    async def last_close(self, _: web.Request) -> web.Response:
        """The code the last WebSocket was closed with by the visitor."""
        async with self.news:
            await self.news.wait_for(lambda: self.closed is not None)
        code, self.closed = self.closed, None
        return web.json_response(code)

    closed: int | None = None
    uploading = False


def main() -> None:
    """Serve until killed."""
    app, web_app = App(), web.Application(client_max_size=1 << 20)
    web_app.router.add_get("/events{_:.*}", app.events)
    web_app.router.add_post("/cue", app.cue)
    web_app.router.add_post("/upload", app.upload)
    web_app.router.add_get("/upload-ended", app.uploaded_or_not)
    web_app.router.add_get("/arrived", app.arrived)
    web_app.router.add_get("/download", app.download)
    web_app.router.add_get("/written", app.written)
    web_app.router.add_get("/socket", app.socket)
    web_app.router.add_get("/last-close", app.last_close)
    web_app.router.add_route("*", "/empty/{status}", app.empty)
    web_app.router.add_route("*", "/{path:.*}", app.echo)
    web.run_app(web_app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


if __name__ == "__main__":
    main()
