"""Edits from file to file, as a user makes them, and what they changed: measured on the files, not by the search.

Pitch is measured by CREPE's `full` network, where the search of `steer.editing` uses the `tiny` one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hooks.clip import audio_info, read_blocks, read_clip
from steer.acoustics import Acoustics, measure
from steer.calibrate import error_of
from steer.editing.chunks import CHUNK_S
from steer.editing.editor import Editor, Outcome
from steer.editing.manner import Manner
from steer.editing.render import Renderer, SiteEdits
from steer.recipe import Recipe
from steer.steered import SteeredModel
from steer.vectors import ControlVector

REQUESTS: dict[str, tuple[float, ...]] = {
    "loudness": (-9.0, -6.0, -3.0, 3.0, 6.0),
    "brightness": (-30.0, -15.0, 20.0, 40.0),
    "pitch": (-12.0, -7.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 7.0, 12.0),
}
"""dB, % of the centroid, semitones."""
CREPE_NOTES = (31.0, 95.0)
"""MIDI notes that CREPE is used for."""
MIDDLE = (0.1, 0.9)
"""The part of a clip's pitches that has to stay in this range."""
FEWEST_VOICED = 5
PITCH_FRAMES = 80
"""CREPE's full network reads some ten to twenty frames a second on one core."""
KEPT_FORMATS = (".flac", ".wav", ".ogg")

Goals = Mapping[str, float]
Vectors = Mapping[str, ControlVector]


def requests_for(name: str, attribute: str, count: int | None, seed: int = 0) -> list[float]:
    """`count` of the requests for a clip, drawn by its name and `seed`: the same in every run; all of them for None."""
    values = REQUESTS[attribute]
    if count is None:
        return list(values)
    rng = np.random.default_rng(zlib.crc32(f"{name} {attribute}".encode()) + seed)
    return [float(value) for value in rng.choice(values, min(count, len(values)), replace=False)]


def measured(waveform_CN: Tensor, sample_rate: int, pitch: bool) -> Acoustics:
    return measure(waveform_CN, sample_rate, pitch, lufs=False, crepe="full", pitch_frames=PITCH_FRAMES)


def measured_file(path: Path, pitch: bool) -> Acoustics:
    clip = read_clip(path)
    return measured(clip.waveform, clip.sample_rate, pitch)


def why_not(before: Acoustics, goals: Goals) -> str:
    """Why a request cannot be measured in a file; "" where it can."""
    if "brightness" in goals and before.centroid_hz <= 0:
        return "no brightness"
    if "pitch" not in goals:
        return ""
    track = before.pitch_track
    voiced = track[~track.isnan()] if track is not None else torch.zeros(0)
    if len(voiced) < FEWEST_VOICED:
        return "no pitch"
    low, high = (voiced.quantile(torch.tensor(MIDDLE)) + goals["pitch"]).tolist()
    return "" if CREPE_NOTES[0] <= low and high <= CREPE_NOTES[1] else "out of CREPE's range"


def is_met(goals: Goals, changes: Mapping[str, float | None], cents: float = 50.0) -> bool:
    """Whether every goal is within its tolerance, pitch within so many cents."""
    errors = {name: error_of(name, goal, changes[name]) for name, goal in goals.items()}
    return all(error <= (cents / 50 if name == "pitch" else 1.0) for name, error in errors.items())


def random_like(vector: ControlVector, decoder: Tensor, seed: int) -> ControlVector:
    """A random direction of the features whose effect on the activation is as long as the vector's."""
    noise = torch.randn(len(vector.vector), generator=torch.Generator().manual_seed(seed))
    return replace(vector, vector=noise * ((vector.vector @ decoder).norm() / (noise @ decoder).norm()))


@dataclass(frozen=True)
class FileEdit:
    """An edited file, what the library says of it, and the edits of features that made it."""

    path: Path
    outcome: Outcome
    trials: int
    edits: SiteEdits
    linked: bool


@dataclass(frozen=True)
class FileEditor:
    """Edits files with one open model; what is written goes to `folder`, where each edit overwrites the last one."""

    steered: SteeredModel
    vectors: Vectors
    folder: Path
    residual: str | None = None
    """How the change reaches the sound; None: as the editor does by itself."""
    plain: dict[tuple[Path, bool, bool], Acoustics] = field(default_factory=dict, repr=False)
    """The last file's plain round trip."""

    def edit(self, source: Path, goals: Goals) -> FileEdit:
        """The file as it comes out, in its own format where that is FLAC, WAV or OGG, else as WAV.

        Raises:
            EditError: the sound overflows, or has no pitch that the search finds.
        """
        values = {
            "model": self.steered.model.name,
            "saes": {site: site for site in self.steered.saes},
            "goals": dict(goals),
            "residual": self.residual,
        }
        # without pitch: nothing is measured after the search, as that is done here
        editor = Editor(Recipe.build(values), steered=self.steered, vectors=self.vectors, pitch=False)
        ending = source.suffix.lower() if source.suffix.lower() in KEPT_FORMATS else ".wav"
        target, trials = self.folder / f"edited{ending}", 0

        def report(stage: str, share: float) -> None:
            nonlocal trials
            trials += "trial" in stage

        excerpts = editor.read(source, target)
        outcome = editor.write(editor.edit(excerpts, force=True, report=report), force=True)
        linked = editor.manner(Renderer(self.steered, CHUNK_S), excerpts).linked
        return FileEdit(target, outcome, trials, editor.edits_for(outcome.strengths), linked)

    def round_trip(self, source: Path, edit: FileEdit, goals: Goals) -> tuple[Acoustics, Acoustics]:
        """What the codec gives of a file, plain and with the same edits of features, without the input's detail."""
        pitch, key = "pitch" in goals, (source, edit.linked, "pitch" in goals)
        if key not in self.plain:
            self.plain.clear()  # of other files
            self.plain[key] = measured(*self._rendered(source, {}, Manner("drop", linked=edit.linked)), pitch)
        manner = Manner("drop", above_db=goals.get("loudness", 0.0), linked=edit.linked)
        return self.plain[key], measured(*self._rendered(source, edit.edits, manner), pitch)

    def _rendered(self, source: Path, edits: SiteEdits, manner: Manner) -> tuple[Tensor, int]:
        info = audio_info(source)
        blocks = read_blocks(info, info.sample_rate, "float64")
        rendered = Renderer(self.steered, CHUNK_S).render(blocks, info.sample_rate, edits, manner)
        return torch.cat([after_CN for _, after_CN in rendered], dim=1), info.sample_rate

    def at_random(self, name: str, seed: int = 0) -> FileEditor:
        """The same with random directions in place of the vectors, drawn by a clip's name and `seed`."""
        return replace(
            self,
            vectors={
                key: self._random(vector, zlib.crc32(f"{name} {key}".encode()) + seed)
                for key, vector in self.vectors.items()
            },
        )

    def _random(self, vector: ControlVector, seed: int) -> ControlVector:
        sae = self.steered.saes.get(vector.site) or next(iter(self.steered.saes.values()))
        return random_like(vector, sae.W_dec.detach().cpu(), seed)  # type: ignore[attr-defined]
