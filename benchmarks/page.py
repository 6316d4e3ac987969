"""`python -m benchmarks.page`: how long the page takes in a real browser, from the click to what is seen.

Needs Chromium on the machine and playwright (extra `dev`).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from apps.page.build import page
from apps.page.server import own_folder, running
from apps.page.settings import PageError, Settings
from apps.samples import plucked_strings
from benchmarks.machine import describe
from evaluation.report import Report
from hooks import Clip, read_clip, write_clip
from hooks.errors import require

GOALS = {"loudness": (6.0, 5.5), "brightness": (20.0, 25.0), "pitch": (2.0, 1.5)}
"""Asked for in turn, so that each picture is another one."""
SECONDS = 10.0
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime / 1000"
HEARD = "document.querySelector('#player-after a[download]')?.href"
SEEN = "document.querySelector('#edit-picture img')?.src"


def main(
    sound: Annotated[Path | None, typer.Argument(help="Its first 10 s are edited; by default a made one.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="After one that warms up; the table has medians.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
) -> None:
    """Seconds until the page is painted and can be used, and until an edit of 10 s is measured and drawn."""
    torch.set_num_threads(threads)
    rows = []
    with tempfile.TemporaryDirectory() as place, opened() as (browser, address):
        file = write_ten(sound, Path(place) / "ten.wav")
        times = [paint(browser, address) for _ in range(rounds + 1)][1:]
        for what, seconds in zip(("first paint", "ready for use"), zip(*times, strict=True), strict=True):
            rows.append({"what": what, "seconds": median(seconds)})
        for goal in GOALS:
            times = list(edits(browser, address, file, goal, rounds + 1))[1:]
            for what, seconds in zip(("measured, can be heard", "drawn too"), zip(*times, strict=True), strict=True):
                rows.append({"what": f"{goal}: {what}", "seconds": median(seconds)})
    Report("The page", rows, about={**describe(), "rounds": rounds}).print()


@contextmanager
def opened() -> Iterator[tuple[Any, str]]:
    """A browser, and the page at an address.

    Raises:
        MissingExtraError: playwright or gradio is not installed.
        PageError: there is no Chromium.
    """
    api = require("playwright.sync_api", "dev")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise PageError("there is no Chromium on this machine (Debian's package chromium)")
    with own_folder() as folder, api.sync_playwright() as playwright:
        settings = Settings(folder=folder)
        with running(page(settings), settings) as address:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            yield browser, address
            browser.close()


def write_ten(sound: Path | None, target: Path) -> Path:
    clip = read_clip(sound) if sound else plucked_strings()
    count = round(SECONDS * clip.sample_rate)
    repeated = clip.waveform.repeat(1, -(-count // clip.waveform.shape[1]))
    write_clip(Clip(repeated[:, :count], clip.sample_rate), target)
    return target


def paint(browser: Any, address: str) -> tuple[float, float]:
    """Seconds until something is painted, and until the button that edits is there, for somebody who was never here."""
    context = browser.new_context()
    visitor = context.new_page()
    ready = timed(lambda: (visitor.goto(address), visitor.wait_for_selector("#edit-run")))
    painted = float(visitor.evaluate(PAINTED))
    context.close()
    return painted, ready


def edits(browser: Any, address: str, file: Path, goal: str, count: int) -> Iterator[tuple[float, float]]:
    """Seconds from the click until the change is measured and can be heard, and until it is drawn too."""
    context = browser.new_context()
    visitor = context.new_page()
    visitor.goto(address)
    visitor.locator("#edit-sound input[type=file]").set_input_files(str(file))
    visitor.locator("#edit-sound").get_by_label("Clear").wait_for()
    for number in range(count):
        visitor.locator(f"#{goal} input[type=number]").fill(str(GOALS[goal][number % 2]))
        visitor.keyboard.press("Tab")
        before = visitor.evaluate(f"[{HEARD}, {SEEN}]")
        visitor.evaluate("before => { window.before = before }", before)
        began = time.perf_counter()
        visitor.click("#edit-run")
        visitor.wait_for_function(f"{HEARD} != (window.before[0] ?? undefined)")
        heard = time.perf_counter() - began
        visitor.wait_for_function(f"{SEEN} != (window.before[1] ?? undefined)")
        yield heard, time.perf_counter() - began
    context.close()


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    typer.run(main)
