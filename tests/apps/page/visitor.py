"""Somebody who uses the page with a real browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.apps.page.small import Open

WAIT_MS = 60_000
"""For a run on a busy machine."""


@dataclass
class Visitor:
    """A page, and what went wrong there: `foreign` are requests to other hosts, `complaints` errors in its console."""

    demo: Open
    page: Any
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    before: str = ""

    @classmethod
    def come(cls, browser: Any, demo: Open, **options: Any) -> Visitor:
        """With a whole browser, in a context of its own; or in a tab of the context that is given."""
        visitor = cls(demo, browser.new_page(**options))
        own = (demo.address, "blob:", "data:")
        visitor.page.on("request", lambda r: None if r.url.startswith(own) else visitor.foreign.append(r.url))
        visitor.page.on("console", lambda m: visitor.complaints.append(m.text) if m.type == "error" else None)
        visitor.page.set_default_timeout(WAIT_MS)
        visitor.page.goto(demo.address)
        visitor.page.wait_for_selector("#edit-run")
        return visitor

    def leave(self) -> None:
        self.page.close()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def upload(self, element: str, path: Path) -> None:
        """Put a file into a player; comes back when the page has it."""
        player = self.page.locator(f"#{element}")
        clear = player.get_by_label("Clear")
        if clear.count():
            clear.click()
        with self.page.expect_response(lambda response: "/gradio_api/upload?" in response.url):
            player.locator("input[type=file]").set_input_files(str(path))
        player.get_by_label("Clear").wait_for()

    def set(self, element: str, value: object) -> None:
        """Fill in a field, and leave it; people are slower than the page takes to note it."""
        box = self.page.locator(f"#{element}").locator("input[type=number], textarea").first
        box.fill(str(value))
        box.press("Tab")
        self.page.evaluate("() => new Promise(noted => requestAnimationFrame(() => setTimeout(noted, 300)))")

    def run(self, kind: str) -> str:
        """Press the button of a tab and wait for what its status says."""
        self.start(kind)
        return self.told(kind)

    def start(self, kind: str) -> None:
        self.before = self.text(f"{kind}-status")
        self.page.click(f"#{kind}-run")

    def told(self, kind: str) -> str:
        """The status, once it says something else than before; while a run goes on, its progress stands there."""
        script = """([name, before]) => {
            const notes = document.querySelectorAll(`#${name}-status [role]`)
            const busy = document.querySelector(`#${name}-status .generating, #${name}-status .progress-text`)
            return notes.length == 1 && !busy && notes[0].innerText != before.trim() && notes[0].innerText
        }"""
        return str(self.page.wait_for_function(script, arg=[kind, self.before]).json_value())

    def download(self, element: str, folder: Path) -> Path:
        with self.page.expect_download() as coming:
            self.page.click(f"#{element}")
        path = folder / coming.value.suggested_filename
        coming.value.save_as(path)
        return path

    def text(self, element: str) -> str:
        return self.page.locator(f"#{element}").inner_text()
