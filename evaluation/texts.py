"""`Texts`: what a recogniser writes of sounds, kept on disk, so that nothing is transcribed twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.dataset import LabelledSound
from evaluation.report import Progress
from evaluation.transcripts import Heard, listen
from steer.steered import SteeredModel


class Texts:
    """Transcripts by the name of an edit (or whatever was done) and of a sound.

    They are appended to `path` as they come, under a first line that says what they depend on (`settings`); a file of
    other settings is begun anew.
    """

    def __init__(self, steered: SteeredModel, options: dict[str, Any], path: Path | None, settings: str) -> None:
        self.steered, self.options, self.path = steered, options, path
        self.known: dict[tuple[str, str], Heard] = {}
        if path is None:
            return
        first = json.dumps({"settings": settings})
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        if not lines or lines[0] != first:
            path.write_text(f"{first}\n", encoding="utf-8")
            return
        for line in lines[1:]:
            try:
                values = json.loads(line)
                key = values.pop("what"), values.pop("sound")
                self.known[key] = Heard(**{**values, "words": tuple(values["words"])})
            except (ValueError, TypeError, KeyError):
                continue  # a line that was cut off as the process ended

    def of(
        self, what: str, sounds: Sequence[LabelledSound], edit: Any = None, progress: Progress = iter
    ) -> list[Heard]:
        """What is written of each sound under an edit: a function that gives a context, or None."""
        missing = [sound for sound in sounds if (what, sound.name) not in self.known]
        if missing:
            with edit() if edit is not None else nullcontext():
                for sound in progress(missing):
                    (heard,) = listen(self.steered.model, [sound], self.options)  # type: ignore[arg-type]
                    self.known[what, sound.name] = heard
                    if self.path is not None:
                        with self.path.open("a", encoding="utf-8") as file:
                            values = {"what": what, "sound": sound.name, **asdict(heard)}
                            file.write(json.dumps(values, ensure_ascii=False) + "\n")
        return [self.known[what, sound.name] for sound in sounds]
