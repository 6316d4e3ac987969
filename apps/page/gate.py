"""`Gate`: what stands between the network and gradio. Whatever it does not know, it refuses.

Gradio answers many more requests than a page makes (proxies, recordings, monitoring, code that it writes itself), and
mounted in another application it takes any path of this machine as the file that a run shall read. So only what the
page's own front end asks for comes through, and only files of the server's folder can be named, in an address or in a
run. gradio's own `launch(auth=..., max_file_size=..., allowed_paths=...)` leaves more open: its login is a page among
others, no origin is checked, a limit holds for each file of an upload, and runs are not limited at all.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static)/[\w@./-]+"
    r"|/gradio_api/(info|theme\.css|app_id|queue/data|upload_progress|heartbeat/\w+)"
)
FILE = re.compile(r"/gradio_api/file=(.+)", re.DOTALL)
RUN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
WRITE = {RUN, UPLOAD, "/gradio_api/cancel", "/gradio_api/reset"}

RUN_BYTES = 1 << 20
"""The largest body of a request that is not an upload."""
FORM_BYTES = 1 << 16
"""What the form around an upload may take."""
LOCAL = {"localhost", "127.0.0.1", "::1"}

HEADERS = {
    # a browser loads nothing from elsewhere; gradio has scripts and styles in its markup, and compiles the templates of
    # its HTML component and what an event does in the browser
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        ]
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


@dataclass(frozen=True)
class Gate:
    """An ASGI application around another one.

    `folder` is the only one whose files are given away, `max_bytes` the limit of one upload (of all its files
    together), `users` maps names to passwords (none: everybody may come in). `local` says that only browsers on this
    machine are meant: then a request that calls the machine by another name, as a hostile page can make a browser do,
    is refused.
    """

    app: ASGIApp
    folder: Path
    max_bytes: int
    users: Mapping[str, str] = field(default_factory=dict)
    local: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self._check_user(headers)
            self._check_origin(headers)
            self._check_route(scope["method"], scope["path"])
            receive = await self._checked_body(scope, headers, receive)
        except HTTPException as refusal:
            response = PlainTextResponse(refusal.detail, refusal.status_code, refusal.headers)
            return await response(scope, receive, send_with_headers)
        await self.app(scope, receive, send_with_headers)

    def _check_user(self, headers: Headers) -> None:
        if not self.users:
            return
        kind, _, token = headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(token, validate=True) if kind.lower() == "basic" else b""
        except binascii.Error:
            given = b""
        # all are compared, so that the time tells nothing of who is among them
        known = [hmac.compare_digest(given, f"{name}:{word}".encode()) for name, word in self.users.items()]
        if not any(known):
            challenge = {"WWW-Authenticate": 'Basic realm="AudioSteer", charset="UTF-8"', "Connection": "close"}
            raise HTTPException(401, "A name and a password are needed.", challenge)

    def _check_origin(self, headers: Headers) -> None:
        host = headers.get("host", "")
        origin = headers.get("origin")
        if self.local and urlsplit(f"//{host}").hostname not in LOCAL:
            raise HTTPException(403, "This server is for browsers on its own machine.")
        if origin is not None and urlsplit(origin).netloc not in {host, headers.get("x-forwarded-host")}:
            raise HTTPException(403, "Requests from other pages are refused.")

    def _check_route(self, method: str, path: str) -> None:
        reading, file = method in {"GET", "HEAD"}, FILE.fullmatch(path)
        if reading and file:
            if not own_file(file[1], self.folder):
                raise HTTPException(404, "There is no such file.")
        elif not (reading and READ.fullmatch(path) and "/.." not in path) and not (method == "POST" and path in WRITE):
            raise HTTPException(404, "There is nothing here.")

    async def _checked_body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        limit = self.max_bytes + FORM_BYTES if scope["path"] == UPLOAD else RUN_BYTES
        if int(headers.get("content-length", 0)) > limit:
            raise too_large(limit)
        receive = counted(receive, limit)
        if scope["path"] != RUN:
            return receive
        try:
            data = await Request(scope, receive).json()
        except (ValueError, RecursionError, ClientDisconnect):
            raise HTTPException(400, "The request is not JSON.") from None
        if not all(own_file(name, self.folder) for name in named_files(data)):
            raise HTTPException(403, "A run can only use files that were uploaded here.")
        # gradio gets what was checked, not what another parser might make of the same bytes
        return replayed(json.dumps(data).encode(), receive)


def own_file(name: str, folder: Path) -> bool:
    """Whether a path, with all links followed, is a regular file inside the folder."""
    try:
        path = Path(name).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # missing, an impossible name, a circle of links
        return False
    return path.is_file() and path.is_relative_to(folder.resolve())


def named_files(data: Any) -> Iterator[str]:
    """Every file that gradio would see in the data of a run: an object with a `path`, at any depth."""
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str):
                yield value["path"]
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The request is larger than {limit / 1e6:.1f} MB.", {"Connection": "close"})


def counted(receive: Receive, limit: int) -> Receive:
    """`receive`, until more than `limit` bytes of a body have come (then HTTPException 413, which gradio passes on)."""
    seen = 0

    async def receive_counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise too_large(limit)
        return message

    return receive_counted


def replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, and then whatever else comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_replayed
