"""`edit_sound`: edit a sound by what it is to sound like, or feature by feature; the library side of `steer edit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from hooks import AudioFileError, Clip
from hooks.clip import audio_info, check_target, create_audio
from hooks.ffmpeg import ENDINGS
from hooks.samples import as_floats
from hooks.sound_files import copy_file, kind_of
from hooks.tags import read_tags
from steer.editing.editor import Editor, Outcome, Report
from steer.edits import Edit
from steer.errors import RecipeError
from steer.recipe import DEFAULT_MODEL, Recipe, default_saes
from steer.steered import SteeredModel
from steer.values import Span
from steer.vectors import ControlVector

Sound = str | Path | bytes | BinaryIO | Clip | tuple[np.ndarray | Tensor, int]
"""A file's path, its bytes, an open binary file, a clip, or (samples [channels, n] or [n], rate in Hz)."""


@dataclass(frozen=True)
class EditedSound:
    """The sound [channels, n] (float64, full scale is 1) after the edit at its own rate in Hz; what was asked for and
    measured is in `outcome`. `data` is the edited file, in the format that the source had (WAV for bare samples), and
    `ending` what the names of such files end in."""

    samples: Tensor
    sample_rate: int
    outcome: Outcome
    data: bytes
    ending: str = ".wav"

    @property
    def met(self) -> bool:
        """Whether the sound itself moved as the goals ask."""
        return self.outcome.met

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the edited file: as it is, or where the ending names another format, in that.

        Raises:
            AudioFileError: it exists (without `force`) or cannot be written, or an ending that is not known.
        """
        path = Path(path)
        check_target(path, force)
        with TemporaryDirectory(prefix="steer-") as folder:
            whole = Path(folder) / f"edited{self.ending or path.suffix}"
            whole.write_bytes(self.data)
            info = audio_info(whole)
            kind = kind_of(info, path)
            if kind[0] == info.format:
                copy_file(whole, path, force)
            else:
                channels, frames = self.samples.shape
                how: dict[str, Any] = {"force": force, "frames": frames, "tags": read_tags(info)}
                with create_audio(path, self.sample_rate, channels, *kind, **how) as writer:
                    writer.write(self.samples)
        return path


def edit_sound(
    source: Sound,
    model: str | SteeredModel = DEFAULT_MODEL,
    *,
    saes: Mapping[str, str] | None = None,
    goals: Mapping[str, float | str] | None = None,
    edits: Sequence[Edit | Mapping[str, Any]] = (),
    voice: Mapping[str, Any] | None = None,
    during: Span | Sequence[Span] | None = None,
    residual: str | None = None,
    limit: bool = True,
    vectors: Mapping[str, ControlVector] | None = None,
    report: Report | None = None,
) -> EditedSound:
    """Edit a sound through the features of a codec.

    `goals` are measured changes against the sound itself: `{"loudness": "+3dB", "pitch": 2, "brightness": -15}` (dB,
    semitones, % of the spectral centroid). `edits` are edits of features (`Ablate`, `Clamp`, `Scale`, `Shift`, or an
    entry of a recipe's `edits` such as `{"ablate": [3]}`). `voice` is what a recipe's `voice` may say, such as
    `{"note": "A3", "vibrato": "off"}` (`steer.voice`). With `during` (seconds) the sound is changed only there
    and stays the same outside, bit for bit. `residual` is how the change reaches the sound (`keep`, `drop` or `ratio`,
    see `steer.editing.manner.Manner`); `limit` turns peaks down that an integer format cannot hold. `model` is a
    codec's name, or a `SteeredModel`; `saes` names the SAE of each site (`{"latent": "my/sae"}`) of a codec that brings
    none. Control vectors of goals and voice are those beside the SAEs unless `vectors` are given, as for a
    `SteeredModel`.

    Raises:
        AudioFileError: the sound cannot be read.
        RecipeError: a goal or edit that makes no sense, or without a control vector.
        EditError: an edit that makes the sound overflow, a pitch goal or note for a sound without pitch, or a
            voice for a codec without a pitch coordinate.
    """
    steered = model if isinstance(model, SteeredModel) else None
    name = model if isinstance(model, str) else model.model.name
    values: dict[str, Any] = {
        "model": name,
        "saes": dict(saes or default_saes(name) or {site: site for site in (steered.saes if steered else ())}),
        "goals": dict(goals or {}),
        "edits": [dict(edit) for edit in edits if not isinstance(edit, Edit)],
        "voice": dict(voice or {}),
        "during": during,
        "residual": residual,
        "limit": limit,
    }
    recipe = Recipe.build(values, "edit_sound")
    if vectors is None and steered and not (saes or default_saes(name)):
        if recipe.wanted or recipe.voice.active:
            raise RecipeError(
                "goals and voice for a SteeredModel need its control vectors: pass vectors, such as load_vectors(...)"
            )
        vectors = {}
    objects = [edit for edit in edits if isinstance(edit, Edit)]
    editor = Editor(recipe, steered=steered, vectors=vectors, edits=objects)
    with TemporaryDirectory(prefix="steer-") as folder:
        before = written(source, Path(folder))
        # what only ffmpeg decodes becomes a WAV
        ending = ".wav" if before.suffix.lower() in ENDINGS else before.suffix
        after = Path(folder) / f"edited{ending}"
        outcome = replace(editor.edit_file(before, after, report=report), target="")
        samples, rate = soundfile.read(after, dtype="float64", always_2d=True)
        samples_CN = torch.from_numpy(np.ascontiguousarray(samples.T))
        return EditedSound(samples_CN, rate, outcome, after.read_bytes(), ending)


def written(source: Sound, folder: Path) -> Path:
    """The sound as a file: where it lies, or one in `folder`."""
    if isinstance(source, str | Path):
        return Path(source)
    if isinstance(source, Clip):
        source = (source.waveform, source.sample_rate)
    if isinstance(source, tuple):
        return written_samples(*source, folder)
    data_bytes = source if isinstance(source, bytes) else source.read()
    whole = folder / "sound"
    whole.write_bytes(data_bytes)
    try:
        info = audio_info(whole)
    except AudioFileError as error:
        message = str(error).replace(f"{whole}: ", "")
        raise AudioFileError(f"the bytes are not a sound file that can be read ({message})") from error
    return whole.rename(folder / ("sound.m4a" if info.decoded else f"sound.{info.format.lower()}"))


def written_samples(samples: np.ndarray | Tensor, sample_rate: int, folder: Path) -> Path:
    is_double = samples.dtype in (torch.float64, np.dtype("float64"))
    x_CN = as_floats(samples).detach().cpu()
    if is_double:  # checked above, and of more bits
        x_CN = torch.as_tensor(np.asarray(samples)).detach().cpu().reshape(x_CN.shape)
    target = folder / "sound.wav"
    soundfile.write(target, x_CN.T.numpy(), sample_rate, "DOUBLE" if is_double else "FLOAT")
    return target
