"""The server of the page: its folder, its end, several users at once, and what keeps it from starting."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="extra demo")

from apps.messages import shown
from apps.page import server
from apps.page.server import bound, own_folder, running, serve, sweeper, tunnel
from apps.page.settings import Limits, PageError, Settings
from tests.apps.page.small import Open, file, small_page, uploaded


def test_ten_clients_at_once(page: Open) -> None:
    def one(number: int) -> tuple[Any, str]:
        with page.client() as client:
            given = uploaded(client, f"text {number}".encode(), name=f"{number}.txt")[0] if number % 2 else None
            result = page.run("read", [given, f"name {number}"], f"session{number}", client)
            return result["output"]["data"], f"name {number}: {f'text {number}' if number % 2 else 'no file'}"

    with ThreadPoolExecutor(10) as pool:
        for data, expected in pool.map(one, range(10)):
            assert data == [expected]


def test_a_closed_page_leaves_the_server_up(page: Open) -> None:
    with page.client() as client:
        body = {"fn_index": 1, "session_hash": "gone", "data": [0.5]}
        assert client.post("/gradio_api/queue/join", json=body).status_code == 200
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "gone"}) as stream:
            next(stream.iter_lines())
    assert page.run("slow", [0.01], "next")["output"]["data"] == [0.01]


def test_errors_are_messages(page: Open) -> None:
    failed = page.run("fail", [], "a")
    assert not failed["success"]
    assert "secret" not in str(failed) and "Traceback" not in str(failed)
    told = page.run("tell", [], "b")
    assert told["output"]["error"] == "too long"


@pytest.mark.parametrize(
    "name", ["../../ -ö.txt", "..", "/", "~", "a\\..\\b", "x" * 5000, "音" * 300, "<b>&.txt", ".hidden"]
)
def test_uploads_lie_in_the_folder_and_nowhere_else(page: Open, name: str) -> None:
    with page.client() as client:
        response = client.post("/gradio_api/upload", files=[("files", (name, b"content"))])
        assert response.status_code < 500
        for path in response.json() if response.status_code == 200 else ():
            assert Path(path).resolve().is_relative_to(page.folder)
            assert "<" not in path
            answer = page.run("read", [file(path), "a"], client=client)
            assert "refused" in answer or answer["output"]["data"] == ["a: content"]


# --- the end ---


def end(**options: Any) -> tuple[float, Path]:
    """Seconds that a server takes to stop while browsers hold connections open, and its folder."""
    with own_folder() as folder:
        with running(small_page(), Settings(folder=folder), **options) as address:
            page = Open(address, folder)
            clients = [page.client() for _ in range(4)]
            streams = [client.stream("GET", f"/gradio_api/heartbeat/h{i}") for i, client in enumerate(clients)]
            for stream in streams:
                assert stream.__enter__().status_code == 200
            body = {"fn_index": 1, "session_hash": "long", "data": [6.0]}
            assert clients[0].post("/gradio_api/queue/join", json=body).status_code == 200
            waiting = clients[1].stream("GET", "/gradio_api/queue/data", params={"session_hash": "long"})
            assert waiting.__enter__().status_code == 200
            uploaded(clients[2], b"x")
            assert any(path.is_file() for path in folder.rglob("*"))
            start = time.monotonic()
        seconds = time.monotonic() - start
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(page.address.removeprefix("http://").split(":"), timeout=2)
    for client in clients:
        client.close()
    return seconds, folder


def test_it_stops_at_once_and_leaves_nothing() -> None:
    seconds, folder = end()
    assert seconds < 3.0
    assert not folder.exists()


def test_an_exception_leaves_nothing_either() -> None:
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), own_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        with running(small_page(), Settings(folder=folder)) as address:
            with Open(address, folder).client() as client:
                uploaded(client, b"x")
            raise ZeroDivisionError
    assert not folder.exists()
    assert dict(os.environ) == before


def test_a_page_that_cannot_be_built_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def build(settings: Settings) -> Any:
        assert settings.folder is not None and settings.folder.parent == tmp_path.resolve()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(build, Settings(), port=0)
    assert not list(tmp_path.iterdir())


def test_old_files_are_removed_and_the_pages_own_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample.wav").write_text("x")
    sweep = sweeper(tmp_path)
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "upload.wav").write_text("x")
    os.utime(tmp_path / "hash" / "upload.wav", (0, 0))  # a copy of an old file
    asyncio.run(sweep())
    assert (tmp_path / "hash" / "upload.wav").exists()
    monkeypatch.setattr(server, "KEPT_S", -1)
    asyncio.run(sweep())
    assert not (tmp_path / "hash" / "upload.wav").exists()
    assert (tmp_path / "sample.wav").exists()


def test_the_server_looks_after_old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEPT_S", -1)
    monkeypatch.setattr(server, "SWEEP_S", 0)
    with own_folder() as folder, running(small_page(), Settings(folder=folder)):
        (folder / "left.txt").write_text("x")
        limit = time.monotonic() + 5
        while (folder / "left.txt").exists() and time.monotonic() < limit:
            time.sleep(0.05)
        assert not (folder / "left.txt").exists()


# --- what keeps it from starting ---


def test_a_taken_port() -> None:
    with bound("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PageError, match=f"port {port} is taken.*--port"):
            bound("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "", "999.1.1.1"])
def test_a_host_that_is_not_here(host: str) -> None:
    with pytest.raises(PageError, match="cannot listen on"):
        bound(host, 0)


def test_no_network_for_share(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    def offline(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("no route to host")

    monkeypatch.setattr("httpx.get", offline)
    with bound("127.0.0.1", 0) as listener:
        with pytest.raises(PageError, match=r"--share.*no route to host") as raised, tunnel(listener):
            pytest.fail("there is no tunnel")
        assert "\n" not in str(raised.value)


def test_a_shared_page_still_asks_for_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    ended = threading.Event()

    def setup_tunnel(host: str, port: int, *_: Any) -> str:
        import httpx

        headers = {"Host": "abc.gradio.live"}
        asked.append(httpx.get(f"http://{host}:{port}/", headers=headers).status_code)
        asked.append(httpx.get(f"http://{host}:{port}/", headers=headers, auth=("a", "b")).status_code)
        return "https://abc.gradio.live"

    def stop() -> None:
        ended.set()
        raise KeyboardInterrupt

    addresses: list[str] = []
    monkeypatch.setattr("gradio.networking.setup_tunnel", setup_tunnel)
    monkeypatch.setattr(server, "wait", stop)
    with pytest.raises(KeyboardInterrupt):
        serve(small_page, Settings(Limits()), port=0, users={"a": "b"}, share=True, opened=addresses.append)
    assert asked == [401, 200]
    assert ended.is_set() and addresses[1] == "https://abc.gradio.live"
    assert "everybody" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "0.0.0.0", "users": {"a": "b"}}, False),
        ({"share": True}, True),
    ],
)
def test_a_page_open_to_everybody_is_told_of(
    options: dict[str, Any], warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(settings: Settings) -> Any:
        raise KeyboardInterrupt

    with shown(), pytest.raises(KeyboardInterrupt):
        serve(build, Settings(), port=0, **options)
    assert ("everybody" in capsys.readouterr().err) == warned


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with bound("127.0.0.1", 0) as listener:
        assert server.address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert server.is_local(listener)
    with bound("0.0.0.0", 0) as listener:
        assert not server.is_local(listener)
    if socket.has_ipv6:
        try:
            listener = bound("::1", 0)
        except PageError:
            return
        with listener:
            assert server.address_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"
            assert server.is_local(listener)
