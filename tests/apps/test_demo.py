"""`steer demo` as a user meets it: what it is told, what it says, and how it ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.page.settings import Limits, Settings

Run = Callable[..., tuple[int, str, str]]
CHECKOUT = Path(__file__).parents[2]
PAGE = """
import runpy, sys, types
from apps.cli import main
small = runpy.run_path(sys.argv[1])
sys.modules["apps.page.build"] = types.SimpleNamespace(page=small["small_page"])
main(sys.argv[2:])
"""
"""The command, with a small page in the place of the real one."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the server was told, which is not started."""
    calls: list[dict[str, Any]] = []

    def serve(build: Any, settings: Settings, **options: Any) -> None:
        calls.append({"settings": settings, **options})

    monkeypatch.setattr("apps.page.server.serve", serve)
    return calls


def test_what_the_server_is_told(served: list[dict[str, Any]], steer: Run, tmp_path: Path) -> None:
    assert steer("demo")[0] == 0
    told = served.pop()
    assert told.pop("opened")
    assert told == {"settings": Settings(), "host": "127.0.0.1", "port": 7860, "users": {}, "share": False}
    atlas = tmp_path / "atlas.json"
    atlas.write_text("{}")
    options = ["--host", "::1", "--port", "0", "--auth", "ann:a:b", "--auth", "bob:c", "--share", "--max-mb", "5"]
    options += ["--max-minutes", "1.5", "--queue", "3", "--model", "dac:24khz", "--model", "snac:24khz"]
    assert steer("demo", *options, "--audio", tmp_path, "--atlas", atlas, "--device", "cuda:1")[0] == 0
    told = served.pop()
    assert told["settings"] == Settings(
        Limits(5.0, 1.5), 3, ("dac:24khz", "snac:24khz"), tmp_path, atlas, device="cuda:1"
    )
    assert (told["host"], told["port"], told["share"]) == ("::1", 0, True)
    assert told["users"] == {"ann": "a:b", "bob": "c"}


def test_passwords_from_the_environment(
    served: list[dict[str, Any]], steer: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEER_AUTH", "ann:a bob:b")
    assert steer("demo")[0] == 0
    assert served.pop()["users"] == {"ann": "a", "bob": "b"}


def test_a_browser_is_opened_if_wanted(
    served: list[dict[str, Any]], steer: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("webbrowser.open", seen.append)
    for option, expected in (("--no-open", []), ("--open", ["http://here"])):
        steer("demo", option)
        served.pop()["opened"]("http://here")
        assert capsys.readouterr().out == "http://here\n"
        assert seen == expected


@pytest.mark.parametrize("auth", ["ann", "ann:", ":secret", ":"])
def test_a_malformed_password(steer: Run, auth: str) -> None:
    code, _, error = steer("demo", "--auth", auth)
    assert (code, error) == (2, "steer: --auth takes USER:PASSWORD, with something on both sides of the colon\n")


def test_what_is_not_there(steer: Run, tmp_path: Path) -> None:
    for option, says in (("--atlas", "no such file"), ("--audio", "no such folder")):
        code, _, error = steer("demo", option, tmp_path / "none")
        assert code == 2
        assert says in error and len(error.splitlines()) == 1


def test_a_taken_port_and_a_foreign_host(steer: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, error = steer("demo", "--port", port)
    assert (code, error) == (2, f"steer: port {port} is taken: give another one with --port (0: any free one)\n")
    code, _, error = steer("demo", "--host", "203.0.113.7", "--port", 0)
    assert code == 2
    assert error.startswith("steer: cannot listen on 203.0.113.7") and len(error.splitlines()) == 1


def test_without_gradio(steer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, error = steer("demo", "--port", 0)
    assert (code, error) == (2, "steer: gradio is not installed: pip install 'audiosteer[demo]'\n")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once(tmp_path: Path, how: signal.Signals) -> None:
    """With a browser that holds its connection, and a run that would take a minute more."""
    pytest.importorskip("gradio", reason="extra demo")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "STEER_AUTH": "ann:a", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", PAGE, str(Path(__file__).parent / "page" / "small.py"), "demo", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            assert select.select([process.stdout], [], [], 120)[0]
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), process.stderr.read()
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"{address}/", timeout=10)

            def ask(path: str, body: bytes | None = None) -> Any:
                headers = {"Authorization": "Basic YW5uOmE=", "Content-Type": "application/json"}
                return urllib.request.urlopen(urllib.request.Request(address + path, body, headers), timeout=10)

            with ask("/gradio_api/heartbeat/a") as heartbeat:
                assert heartbeat.status == 200
                assert list(tmp_path.iterdir())
                if how == signal.SIGTERM:
                    body = b'{"fn_index": 1, "session_hash": "a", "data": [60]}'
                    assert ask("/gradio_api/queue/join", body).status == 200
                    time.sleep(0.5)
                start = time.monotonic()
                process.send_signal(how)
                assert process.wait(timeout=30) == 0
                assert time.monotonic() - start < 3.0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
    assert not list(tmp_path.iterdir())
