"""`steer demo`: open the page in which sounds are edited, transcribed and studied."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from apps.options import panel

if TYPE_CHECKING:  # `steer --help` shall not wait for them
    from gradio import Blocks

    from apps.page.settings import Settings

of_server, of_limits, of_content = map(panel, ("Server", "Limits", "What it shows"))


def demo(
    host: Annotated[str, of_server(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, of_server(min=0, max=65535, help="0 is any free one.")] = 7860,
    auth: Annotated[
        list[str] | None,
        of_server(
            metavar="USER:PASSWORD",
            envvar="STEER_AUTH",
            help="Who may come in; repeatable. The variable keeps it out of the list of processes.",
            show_default=False,
        ),
    ] = None,
    share: Annotated[bool, of_server("--share", help="A public address, through gradio's servers.")] = False,
    browser: Annotated[bool, of_server("--open/--no-open", help="Open a browser.")] = False,
    max_mb: Annotated[float, of_limits(min=0.01, help="Size of an upload.")] = 50.0,
    max_minutes: Annotated[float, of_limits(min=0.01, help="Length of a sound.")] = 10.0,
    queue: Annotated[int, of_limits(min=1, help="Runs that may wait.")] = 10,
    model: Annotated[
        list[str] | None,
        of_content(
            metavar="NAME=SAE",
            help="Offered besides the starters, with its SAE (several with commas between); repeatable.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, of_content(help="Where models run: cpu, cuda or cuda:1.")] = "cpu",
    atlas: Annotated[Path | None, of_content(help="An atlas of `steer features`.", show_default=False)] = None,
    audio: Annotated[
        Path | None, of_content(metavar="DIR", help="The clips that the atlas names.", show_default=False)
    ] = None,
) -> None:
    """Open the page: edit, transcribe and study sounds in a browser. Ctrl-C ends it.

    Exit codes: 0 ended, 2 wrong input, or the page cannot be opened.
    """
    from apps.batch.signals import stopped_by_sigterm
    from apps.page.server import serve
    from apps.page.settings import Limits, Settings

    users = users_of(auth or ())
    check_content(atlas, audio)
    settings = Settings(Limits(max_mb, max_minutes), queue, tuple(model or ()), audio, atlas, device=device)

    def build(settings: Settings) -> Blocks:
        from apps.page.build import page

        return page(settings)

    def opened(address: str) -> None:
        print(address, flush=True)
        if browser:
            webbrowser.open(address)

    # `kill` ends the command as Ctrl-C does, and with it the temporary folder
    with stopped_by_sigterm():
        try:
            serve(build, settings, host=host, port=port, users=users, share=share, opened=opened)
        except KeyboardInterrupt:
            leave()


def users_of(auth: Sequence[str]) -> dict[str, str]:
    """Passwords by user. Raises PageError."""
    from apps.page.settings import PageError

    pairs = [text.partition(":") for text in auth]
    if not all(name and word for name, _, word in pairs):
        raise PageError("--auth takes USER:PASSWORD, with something on both sides of the colon")
    return {name: word for name, _, word in pairs}


def check_content(atlas: Path | None, audio: Path | None) -> None:
    """Raises PageError if a file or folder is not there."""
    from apps.page.settings import PageError

    if atlas is not None and not atlas.is_file():
        raise PageError(f"{atlas}: no such file (--atlas)")
    if audio is not None and not audio.is_dir():
        raise PageError(f"{audio}: no such folder (--audio)")


def leave() -> None:
    """End the process, also where a thread still computes a run that nobody waits for any more."""
    sys.stdout.flush()
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        os._exit(0)
