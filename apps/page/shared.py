"""`Shared`: what the tabs of a page have in common, and how they tell of what went wrong."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from apps.opened import Opened
from apps.page.runs import Runs, Stopped
from apps.page.settings import Settings
from apps.page.style import note
from apps.samples import SAMPLES
from hooks import AudioSteerError, write_clip
from hooks.families.whisper.package import is_downloaded
from steer import starter
from steer.editing.editor import Report

BAR = gr.Progress()
"""As a default of a parameter, where gradio looks for it."""


@dataclass(frozen=True)
class Shared:
    """Settings, models, runs, and the files of the made samples by the names that people see."""

    settings: Settings
    opened: Opened
    runs: Runs
    samples: dict[str, str]

    @classmethod
    def of(cls, settings: Settings) -> Shared:
        assert settings.folder is not None
        place = settings.folder / "samples"
        place.mkdir(exist_ok=True)
        samples = {}
        for name, make in SAMPLES.items():
            path = place / f"{name.lower().replace(' ', '-')}.wav"
            write_clip(make(), path, force=True)
            samples[name] = str(path)
        return cls(settings, Opened(device=settings.device), Runs(settings.folder, settings.queue), samples)

    def models(self) -> list[str]:
        """Names that are offered: nothing else is opened for those who use the page."""
        return [*starter.models(), *self.downloaded(), *self.settings.models]

    def downloaded(self) -> list[str]:
        """Public recognisers for which SAEs ship, and whose weights are on this machine."""
        names = [name for name in starter.public_models() if starter.saes(name)]
        return [name for name in names if is_downloaded(name.removeprefix("whisper:"))]

    def sound(self, label: str, elem_id: str, value: str | None = None) -> gr.Audio:
        """Where a sound is put in, with a button for each of the samples."""
        player = gr.Audio(
            value,
            label=label,
            sources=["upload", "microphone"],
            type="filepath",
            buttons=["download"],
            elem_id=elem_id,
        )
        with gr.Row():
            for name, path in self.samples.items():
                button = gr.Button(name, size="sm", min_width=100, elem_classes=Path(path).stem)
                button.click(lambda path=path: path, None, player, show_progress="hidden", api_visibility="private")
        return player

    def model(self, default: str, example: str, elem_id: str, others: Sequence[str] = ()) -> gr.Dropdown:
        """Where a model is chosen; on a private page any other can be named, such as `example`."""
        private = self.settings.private
        return gr.Dropdown(
            [default, *others, *self.settings.models],
            value=default,
            label="Model",
            info=f"Another one with its SAE, such as {example}" if private else None,
            allow_custom_value=private,
            elem_id=elem_id,
        )

    @contextmanager
    def run(self, request: gr.Request, progress: gr.Progress) -> Iterator[tuple[Path, Report]]:
        """A run of the one who asks for it, as `Runs.run`, told in a bar."""

        def report(stage: str, share: float) -> None:
            progress(share, desc=stage)

        with self.runs.run(str(request.session_hash), report) as (folder, checked):
            yield folder, checked

    def stop(self, request: gr.Request) -> None:
        self.runs.stop(str(request.session_hash))

    def forget(self, request: gr.Request) -> None:
        """The tab was closed."""
        self.runs.forget(str(request.session_hash))

    def told(self, error: Exception) -> str:
        """An error for the status: our own without the server's folders, others without their inside."""
        if isinstance(error, Stopped):
            return note("note", str(error))
        if isinstance(error, AudioSteerError):
            folder = re.escape(str(self.settings.folder))
            return note("wrong", re.sub(rf"{folder}/(?:[^\s/]+/)*", "", str(error)))
        traceback.print_exception(error, file=sys.stderr)
        return note("wrong", f"Something went wrong on the server ({type(error).__name__}); its log says more.")
