"""Nothing comes through the gate that the page does not need; all over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import http.client
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("gradio", reason="extra demo")

from apps.page.gate import HEADERS, Gate, named_files, own_file
from apps.page.server import own_folder, server_of
from apps.page.settings import Settings
from tests.apps.page.small import USERS, Open, file, small_page, uploaded

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NEEDED = {
    *("GET /", "HEAD /", "GET /config", "GET /theme.css", "GET /favicon.ico", "GET /manifest.json", "GET /robots.txt"),
    *("GET /assets/{path:path}", "GET /static/{path:path}"),
    *(f"GET /gradio_api/{name}" for name in ("info", "theme.css", "app_id", "queue/data", "upload_progress")),
    *("GET /gradio_api/heartbeat/{session_hash}", "POST /gradio_api/queue/join", "POST /gradio_api/upload"),
    *("POST /gradio_api/cancel", "POST /gradio_api/reset"),
    *("GET /gradio_api/file={path_or_url:path}", "HEAD /gradio_api/file={path_or_url:path}"),
}
"""What the front end of gradio asks for."""
SECRET = "the secret of another folder"


def routes() -> Iterator[tuple[str, str]]:
    """Every (method, path) that gradio knows."""

    def of(app: Any) -> Iterator[tuple[str, str]]:
        for route in app.routes:
            if hasattr(route, "methods"):
                yield from ((method, route.path) for method in route.methods)
            else:
                yield from of(getattr(route, "original_router", None) or route.app)

    with own_folder() as folder:
        server = server_of(small_page(), Settings(folder=folder), {}, local=False)
        yield from of(server.config.app.app)


def raw(page: Open, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """A request whose path is sent as it stands."""
    connection = http.client.HTTPConnection(urlsplit(page.address).netloc, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


# --- who ---


def test_nothing_answers_without_a_password(locked: Open) -> None:
    paths = {re.sub(r"\{.*?\}", "x", path) for _, path in routes()} | {"/nothing", "//", "/%2e%2e/", "/gradio_api/mcp"}
    assert len(paths) > 60
    with locked.client() as client:
        for path in sorted(paths):
            for method in METHODS:
                response = client.request(method, path)
                assert response.status_code == 401, (method, path)
                assert response.text in ("", "A name and a password are needed."), (method, path)
    websocket = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert raw(locked, "GET", "/gradio_api/queue/join", {**websocket, "Sec-WebSocket-Key": "x" * 22 + "=="})[0] == 401


@pytest.mark.parametrize(
    "headers",
    [
        *(basic(text) for text in ("ann:b", "bob:paß:wort", "ann:", ":", "ann", "Bob:b", "bob:b\n", "bob:bb")),
        {"Authorization": "Basic bob:b"},
        {"Authorization": "Basic"},
        {"Authorization": basic("bob:b")["Authorization"].replace("Basic", "Bearer")},
        {"Cookie": "access-token=bob"},
    ],
)
def test_a_wrong_password_is_none(locked: Open, headers: dict[str, str]) -> None:
    with locked.client() as client:
        response = client.get("/", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Basic")


def test_each_user_comes_in_and_can_run(locked: Open) -> None:
    for user, password in USERS.items():
        with locked.client(headers=basic(f"{user}:{password}")) as client:
            assert client.get("/").status_code == 200
            (given,) = uploaded(client, b"hello")
            assert locked.run("read", [given, user], user, client)["output"]["data"] == [f"{user}: hello"]


def test_websockets_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    gate = Gate(None, Path("/nowhere"), 1)  # type: ignore[arg-type]
    asyncio.run(gate({"type": "websocket", "path": "/", "headers": []}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "localhost:1", "Origin": "http://localhost:2"},
    ],
)
def test_a_foreign_page_is_refused(page: Open, headers: dict[str, str]) -> None:
    with page.client() as client:
        assert client.get("/config", headers=headers).status_code == 403
        assert client.get("/config", headers={"Host": "localhost:1", "Origin": "http://localhost:1"}).status_code == 200


def test_a_server_for_others_has_any_name(locked: Open) -> None:
    name = {"Host": "studio.example", "Origin": "https://studio.example", **basic("bob:b")}
    with locked.client() as client:
        assert client.get("/config", headers=name).status_code == 200
        assert client.get("/config", headers={**name, "Origin": "https://evil.example"}).status_code == 403


# --- which routes ---


def test_only_what_the_page_needs_is_there(page: Open) -> None:
    known, through = set(routes()), set()
    with page.client() as client:
        for path in {path for _, path in known}:
            for method in METHODS:
                with client.stream(method, re.sub(r"\{.*?\}", "x", path)) as response:
                    if path.startswith("/gradio_api/file="):
                        refused = response.status_code == 404 and method not in ("GET", "HEAD")
                    else:
                        refused = response.status_code == 404 and "text/plain" in response.headers["content-type"]
                        refused = refused and int(response.headers["content-length"]) == len("There is nothing here.")
                    if not refused:
                        through.add(f"{method} {path}")
    assert through - {request for request in through if request.startswith("HEAD")} == {
        request for request in NEEDED if not request.startswith("HEAD")
    }
    assert {request for request in NEEDED if request.startswith("HEAD")} <= through


def test_pages_of_the_package_cannot_be_left(page: Open) -> None:
    for path in ("/static/../../../routes.py", "/assets/%2e%2e/%2e%2e/__init__.py", "/static//etc/passwd"):
        assert raw(page, "GET", path)[0] in (403, 404)


# --- which files ---


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return path


def ways_to(secret: Path, folder: Path) -> dict[str, str]:
    """Names of a file outside the folder."""
    link = folder / "link.txt"
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    inside = folder / "within"
    inside.unlink(missing_ok=True)
    inside.symlink_to(secret.parent)
    up = "../" * 12
    return {
        "absolute": str(secret),
        "a system file": "/etc/passwd",
        "traversal": f"{folder}/{up}{str(secret)[1:]}",
        "relative traversal": f"{up}{str(secret)[1:]}",
        "a link": str(link),
        "a linked folder": str(inside / secret.name),
        "a sibling's name": f"{folder}-other/../{folder.name}/../secret.txt",
        "a folder": str(folder),
        "a file URL": f"file://{secret}",
        "a URL": "http://127.0.0.1:9/a.txt",
        "a NUL": f"{secret}\0.wav",
        "home": "~/.bashrc",
        "a process": "/proc/self/environ",
        "nothing": "",
        "too long": "a" * 10_000,
    }


def test_only_files_of_the_folder_are_served(page: Open, secret: Path) -> None:
    (page.folder / "own.txt").write_text("mine")
    (page.folder / "own link.txt").unlink(missing_ok=True)
    (page.folder / "own link.txt").symlink_to(page.folder / "own.txt")
    assert raw(page, "GET", f"/gradio_api/file={page.folder}/own.txt") == (200, b"mine")
    assert raw(page, "GET", f"/gradio_api/file={page.folder}/own%20link.txt") == (200, b"mine")
    for why, name in ways_to(secret, page.folder).items():
        for path in {quote(name), quote(name, safe=""), quote(quote(name, safe=""), safe="")}:
            for route in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/"):
                status, body = raw(page, "GET", route + path)
                assert status in (403, 404), (why, route)
                assert SECRET.encode() not in body and b"root:" not in body, (why, route)


def test_a_run_only_reads_files_of_the_folder(page: Open, secret: Path) -> None:
    with page.client() as client:
        (given,) = uploaded(client, b"mine")
        assert page.run("read", [given, "a"], client=client)["output"]["data"] == ["a: mine"]
        for why, name in ways_to(secret, page.folder).items():
            bare, nested = {"path": name}, [{"a": file(name)}]
            for data in ([file(name), "a"], [bare, "a"], [[file(name)], "a"], [None, nested], [{"value": given}, bare]):
                result = page.run("read", data, client=client)
                assert result.get("refused") == 403, why
                assert SECRET not in str(result) and "root:" not in str(result)


def test_named_files() -> None:
    assert sorted(
        named_files({"data": [{"path": "a"}, [{"x": {"path": "b", "url": {"path": "c"}}}], {"path": 1}, "d"]})
    ) == [
        "a",
        "b",
        "c",
    ]


def test_own_file(tmp_path: Path) -> None:
    folder, other = tmp_path / "a", tmp_path / "ab"
    for each in (folder, other):
        each.mkdir()
        (each / "x.wav").write_text("x")
    (folder / "round").symlink_to(folder / "round")
    assert own_file(str(folder / "x.wav"), folder)
    assert own_file(str(other / ".." / "a" / "x.wav"), folder)
    for name in (other / "x.wav", folder, folder / "round", folder / "none.wav", folder / "x.wav" / "y"):
        assert not own_file(str(name), folder)


# --- how much ---


def form(*sizes: int) -> bytes:
    """A form with files of these sizes."""
    parts = [
        b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n' + b"x" * size + b"\r\n"
        for size in sizes
    ]
    return b"".join(parts) + b"--edge--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=edge"}


def pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


@pytest.mark.parametrize("sizes", [(200_000,), (90_000, 90_000), (101_000,)])
@pytest.mark.parametrize("send", [bytes, pieces], ids=["with its length", "in chunks"])
def test_an_upload_that_is_too_large_is_refused(
    page: Open, sizes: tuple[int, ...], send: Callable[[bytes], Any]
) -> None:
    with page.client() as client:
        response = client.post("/gradio_api/upload", content=send(form(*sizes)), headers=FORM)
        assert response.status_code == 413
        assert "bytes" in response.text or "MB" in response.text
        assert client.post("/gradio_api/upload", content=send(form(90_000)), headers=FORM).status_code == 200


def test_a_length_is_refused_before_the_body_comes(page: Open) -> None:
    for path in ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel", "/"):
        assert raw(page, "POST" if "_" in path else "GET", path, {"Content-Length": str(10**12)})[0] == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"data": ["' + b"x" * (2 << 20) + b'"]}', 413),
        (b"[" * 100_000, 400),
        (b'{"data": ', 400),
        (b"\xff\xfe", 400),
        (b'{"data": []}', 400),
    ],
    ids=["large", "deep", "cut", "no text", "no session"],
)
@pytest.mark.parametrize("send", [bytes, pieces], ids=["with its length", "in chunks"])
def test_a_bad_run_is_refused(page: Open, body: bytes, status: int, send: Callable[[bytes], Any]) -> None:
    headers = {"Content-Type": "application/json"}
    with page.client() as client:
        assert client.post("/gradio_api/queue/join", content=send(body), headers=headers).status_code == status
        assert client.get("/").status_code == 200


# --- what the browser is told ---


def test_every_answer_carries_the_headers(page: Open, locked: Open) -> None:
    with page.client() as client, locked.client() as stranger:
        answers = [
            client.get("/"),
            client.get("/config"),
            client.get("/nothing"),
            client.get("/gradio_api/file=/etc/passwd"),
            client.post("/gradio_api/upload", content=form(300_000), headers=FORM),
            stranger.get("/"),
        ]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    assert "http" not in HEADERS["Content-Security-Policy"] and "*" not in HEADERS["Content-Security-Policy"]


def test_the_page_names_nothing_from_elsewhere(page: Open) -> None:
    with page.client() as client:
        html, style = client.get("/").text, client.get("/theme.css").text
        config = client.get("/config").json()
    loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="([^"]+)"', html)
    assert loaded and not [address for address in loaded if "//" in address]
    assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", style)
    assert not config["stylesheets"]
    assert not config["analytics_enabled"]
