"""The server of the page: gradio behind the gate, with a folder of its own that goes when the server goes."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from apps.messages import log
from apps.page.settings import PageError, Settings
from hooks.errors import one_line, require

if TYPE_CHECKING:
    import uvicorn
    from gradio import Blocks

LOCAL_HOST = "127.0.0.1"
START_S, STOP_S = 30.0, 2.0
"""Waited for the server to start, and for its end."""
KEPT_S, SWEEP_S = 3600, 300
"""How long an upload or a result is kept, and how often that is looked after."""


def serve(
    build: Callable[[Settings], Blocks],
    settings: Settings,
    *,
    host: str = LOCAL_HOST,
    port: int = 7860,
    users: Mapping[str, str] | None = None,
    share: bool = False,
    opened: Callable[[str], object] = print,
) -> None:
    """Serve the page that `build` makes until the main thread is interrupted; `opened` is called with each address.

    Raises:
        MissingExtraError: gradio is not installed.
        PageError: the port is taken, the host is not of this machine, or (with `share`) the network cannot be reached.
    """
    with bound(host, port) as listener, own_folder() as folder:
        if not users and (share or not is_local(listener)):
            log.warning("steer: warning: everybody who reaches the address may use the page; see --auth")
        require("gradio", "demo")
        settings = replace(settings, folder=folder, private=is_local(listener) and not share)
        with running(build(settings), settings, listener=listener, users=users, shared=share) as address:
            opened(address)
            if share:
                with tunnel(listener) as public:
                    opened(public)
                    wait()
            wait()


def wait() -> None:
    """Until a signal raises something."""
    while True:
        time.sleep(1.0)


@contextmanager
def running(
    blocks: Blocks,
    settings: Settings,
    *,
    listener: socket.socket | None = None,
    users: Mapping[str, str] | None = None,
    shared: bool = False,
) -> Iterator[str]:
    """The page on a thread of its own while the context lasts; gives its address, by default on any free port.

    `settings.folder` is the `own_folder` in which the blocks were built.

    Raises:
        PageError: the server does not start.
    """
    with listener or bound(LOCAL_HOST, 0) as listener:
        server = server_of(blocks, settings, users or {}, local=is_local(listener) and not (users or shared))
        # a daemon: a run that is still being computed is not waited for
        thread = Thread(target=server.run, args=([listener],), daemon=True, name="page")
        thread.start()
        try:
            start = time.monotonic()
            while not server.started:
                if not thread.is_alive() or time.monotonic() - start > START_S:
                    raise PageError("the server of the page does not start")
                time.sleep(0.01)
            yield address_of(listener)
        finally:
            # heartbeats of open pages and streams of results are cut off, which uvicorn would report at length
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            server.should_exit = True
            thread.join(STOP_S)


def server_of(blocks: Blocks, settings: Settings, users: Mapping[str, str], local: bool) -> uvicorn.Server:
    """Uvicorn around the gate around gradio, with all of gradio's extras off."""
    import uvicorn
    from fastapi import FastAPI
    from gradio import mount_gradio_app

    from apps.page.gate import Gate
    from apps.page.style import CSS, theme

    assert settings.folder is not None
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,  # a gr.Error is shown all the same
        max_file_size=settings.limits.max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=CSS,
    )
    return uvicorn.Server(
        uvicorn.Config(
            Gate(app, settings.folder, settings.limits.max_bytes, users, local),
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=0,
            callback_notify=sweeper(settings.folder),
            timeout_notify=SWEEP_S,
        )
    )


# --- folder ---


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder where gradio puts uploads and results while the context lasts; removed at the end in every case.

    Gradio takes the folder, and whether it tells its makers of its use (it does not), from the environment, when blocks
    are built and while they run.
    """
    folder = Path(tempfile.mkdtemp(prefix="steer-demo-")).resolve()
    wanted = {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield folder
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def sweeper(folder: Path) -> Callable[[], Awaitable[None]]:
    """Removes what has lain in the folder for KEPT_S, but for what is there by now: the page's own samples.

    Gradio's own `delete_cache` does not know of uploads that broke off.
    """
    own = set(folder.rglob("*"))

    async def sweep() -> None:
        for path in set(folder.rglob("*")) - own:
            # when it came here: a copy keeps the age of what it was copied from
            if path.is_file() and time.time() - path.lstat().st_ctime > KEPT_S:
                path.unlink(missing_ok=True)

    return sweep


# --- network ---


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one. Raises PageError."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PageError(f"port {port} is taken: give another one with --port (0: any free one)") from error
        raise PageError(f"cannot listen on {host}, port {port} ({error.strerror or error})") from error


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ip_address(listener.getsockname()[0]).is_loopback


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def tunnel(listener: socket.socket) -> Iterator[str]:
    """A public address, by way of gradio's share server, while the context lasts. Raises PageError."""
    from gradio import networking, tunneling

    host, port = listener.getsockname()[:2]
    try:
        try:
            public = networking.setup_tunnel(host, port, secrets.token_urlsafe(32), None, None)
        except Exception as error:  # of the network, of the certificate, of the program that it downloads and runs
            reason = one_line(error.__cause__ or error)
            raise PageError(f"--share: gradio's share server does not help ({reason}); try without --share") from error
        yield public
    finally:
        for each in tunneling.CURRENT_TUNNELS:
            each.kill()
