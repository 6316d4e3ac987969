"""Utterance vectors: for each clip the mean over its frames of the activation at a site, at several sites in one pass.

    kept = pooled_cache(folder, model)
    x = pooled_activations(model, sounds, ["encoder.0", "encoder.3"], kept=kept)  # {site: [N, D]}

Padding is left out: the padded frames of Whisper's windows, and the patches of AST that start after the end of the
sound. `pooled_crops` gives the means of random stretches of each clip's frames: more vectors for
an SAE to train on than there are clips. (Frames at the ends of a stretch have seen what is outside of it.)

Vectors are cached on disk by a fingerprint of the model (its weights and the code that runs it) and of each clip (the
bytes of its file), so that other evaluators and later runs use them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import hooks
from evaluation.config import EvaluationError
from evaluation.dataset import LabelledSound
from evaluation.frame import digest_of, digest_of_module
from evaluation.passes import OFTEN, Kept
from evaluation.report import Progress
from hooks import Clip
from hooks.capture import Recorder
from hooks.clip import as_clip
from hooks.errors import one_line
from hooks.families.ast import EXTRA_TOKENS, SpectrogramTransformer
from hooks.model import AudioModel, Source

SHORTEST = 0.25
"""Shortest random stretch, as a share of the clip."""
PATCH_S = 0.1
"""Step in time between AST's patches."""

Make = Callable[[Tensor, np.ndarray, str], Tensor]
"""From the frames [T, D] of a clip, the moment [T] that each belongs to (-1 for none) and the clip's fingerprint."""


WHOLE = "mean "


def mean(x_TD: Tensor, moments_T: np.ndarray, fingerprint: str) -> Tensor:
    return x_TD.mean(0)


def default_sites(model: AudioModel) -> list[str]:
    """The model's named sites that pass the sound itself: not those along a transcript.

    Raises:
        EvaluationError: it has none.
    """
    found = [name for name, site in model.sites.items() if site.frame_rate or site.chunk_s]
    if not found:
        raise EvaluationError(f"{model.name} has no named sites; pass --site with paths of modules")
    return found


def pooled_cache(folder: Path | None, model: AudioModel, **settings: Any) -> Kept:
    """The vectors of a model that an earlier call left in `folder` (None: in memory alone). `settings` are plain values
    that change what passes at its sites, such as the number of codebooks of a codec."""
    code = ((file.name, file) for file in sorted(Path(hooks.__path__[0]).rglob("*.py")))
    depends = json.dumps(
        {"weights": digest_of_module(model.module), "code": digest_of(code), **settings}, sort_keys=True, default=str
    )
    name = hashlib.blake2b(depends.encode(), digest_size=6).hexdigest()
    return Kept(folder / f"pooled-{name}.safetensors" if folder else None, depends)


def pooled_activations(
    model: AudioModel,
    sounds: Sequence[LabelledSound],
    sites: Sequence[str],
    *,
    first_s: float | None = None,
    fill: bool = False,
    padding: bool = False,
    kept: Kept | None = None,
    progress: Progress = iter,
) -> dict[str, np.ndarray]:
    """{site: [N, D]} in float32, one pass of each clip for all sites; clips that are in `kept` are not passed again.

    `first_s` takes only the first seconds of each clip, and `fill` lengthens shorter ones to that by silence; `padding`
    leaves the patches of padding in AST's means, with its class and distillation tokens.

    Raises:
        EvaluationError: a clip is too short for the model, or an activation is not finite.
        AudioFileError: a clip that cannot be read.
    """

    key = f"{WHOLE}{first_s or ''}{' filled' if fill else ''}{' padding' if padding else ''}"
    return passed(model, sounds, sites, {key: mean}, first_s, fill, padding, kept, progress)


def pooled_crops(
    model: AudioModel,
    sounds: Sequence[LabelledSound],
    sites: Sequence[str],
    count: int,
    *,
    seed: int = 0,
    kept: Kept | None = None,
    progress: Progress = iter,
) -> dict[str, np.ndarray]:
    """{site: [N, count, D]}: means of `count` random stretches of each clip, of a quarter of it to all of it.

    A clip's stretches depend on the seed and its content alone. Errors as in `pooled_activations`.
    """

    def stretches(x_TD: Tensor, moments_T: np.ndarray, fingerprint: str) -> Tensor:
        rng = np.random.default_rng([seed, int(fingerprint[:12], 16)])
        length = int(moments_T.max()) + 1
        means = []
        for _ in range(count):
            size = int(rng.integers(max(1, round(SHORTEST * length)), length + 1))
            start = int(rng.integers(0, length - size + 1))
            inside_T = (moments_T >= start) & (moments_T < start + size)
            means.append(x_TD[torch.from_numpy(inside_T)].mean(0))
        return torch.stack(means)

    # the mean costs nothing here, and is asked for as well
    makes: dict[str, Make] = {f"crops {count} {seed}": stretches, WHOLE: mean}
    return passed(model, sounds, sites, makes, None, False, False, kept, progress)


@torch.no_grad()
def passed(
    model: AudioModel,
    sounds: Sequence[LabelledSound],
    sites: Sequence[str],
    makes: Mapping[str, Make],
    first_s: float | None,
    fill: bool,
    padding: bool,
    kept: Kept | None,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """{site: [N, ...]}: what the first of `makes` gives for each clip, made or found in `kept` by its key; what the
    others give is put there too."""
    kept = kept or Kept(None, "")
    key = next(iter(makes))
    places = [model.site(name) for name in dict.fromkeys(sites)]
    fingerprints = [fingerprint_of(sound.source) for sound in sounds]
    first_of = dict(zip(fingerprints, sounds, strict=True))
    missing = [
        (fingerprint, sound)
        for fingerprint, sound in first_of.items()
        if any(f"{site.name}/{key}/{fingerprint}" not in kept.known for site in places)
    ]
    for number, (fingerprint, sound) in enumerate(progress(missing) if missing else (), 1):
        audio_BCN = model.prepare(cut(sound.source, first_s, fill))
        with Recorder(model.module, places) as recorder:
            try:
                model.pass_through(audio_BCN)
            except RuntimeError as error:  # what torch raises where a sound is too short for a network
                raise EvaluationError(f"{sound.name}: {model.name} cannot take it ({one_line(error)})") from error
            taken = recorder.take()
        for name, x_BTD in taken.items():
            x_TD, moments_T = frames_of(model, x_BTD, audio_BCN.shape[-1], padding)
            if not len(x_TD):
                raise EvaluationError(f"{sound.name}: too short for {model.name}, there is no frame at {name}")
            for one, make in makes.items():
                value = make(x_TD, moments_T, fingerprint).float().cpu()
                if not value.isfinite().all():
                    raise EvaluationError(f"{sound.name}: the activation at {name} of {model.name} is not finite")
                kept.known[f"{name}/{one}/{fingerprint}"] = value
        if number % OFTEN == 0 or number == len(missing):
            kept.write()
    return {
        site.name: torch.stack([kept.known[f"{site.name}/{key}/{one}"] for one in fingerprints]).numpy()
        for site in places
    }


def frames_of(model: AudioModel, x_BTD: Tensor, samples: int, padding: bool) -> tuple[Tensor, np.ndarray]:
    """The frames [T, D] of one sound, and the moment [T] of each, counted from 0; rows (channels) follow each other.

    Of AST the patches, whose order is not that of time; their padding only with `padding`, and then with the two tokens
    that belong to no moment (-1).
    """
    if not isinstance(model, SpectrogramTransformer):
        return x_BTD.flatten(0, 1), np.tile(np.arange(x_BTD.shape[1]), len(x_BTD))
    bands, moments = model.shape
    windows = x_BTD.shape[1] // (bands * moments + EXTRA_TOKENS)
    x_WTD = x_BTD.reshape(windows, bands * moments + EXTRA_TOKENS, -1)
    own_P = np.tile(np.arange(moments), bands)
    moments_WT = np.stack(
        [np.concatenate([[-1] * EXTRA_TOKENS, own_P + number * moments]) for number in range(windows)]
    )
    x_TD, moments_T = x_WTD.flatten(0, 1), moments_WT.ravel()
    if padding:
        return x_TD, moments_T
    assert model.sample_rate is not None
    starts_T = (moments_T // moments) * model.window / model.sample_rate + (moments_T % moments) * PATCH_S
    real_T = (moments_T >= 0) & (starts_T < samples / model.sample_rate)
    return x_TD[torch.from_numpy(real_T)], moments_T[real_T]


def cut(source: Source, first_s: float | None, fill: bool) -> Source:
    """The first seconds of a sound, with `fill` as many."""
    if first_s is None:
        return source
    clip = as_clip(source)
    length = max(1, round(first_s * clip.sample_rate))
    waveform = clip.waveform[:, :length]
    if fill:
        waveform = torch.nn.functional.pad(waveform, (0, length - waveform.shape[1]))
    return Clip(waveform, clip.sample_rate, clip.name)


def fingerprint_of(source: Source) -> str:
    """Of what a sound is: the bytes of its file, or its samples and rate."""
    digest = hashlib.blake2b(digest_size=12)
    if isinstance(source, str | Path) and Path(source).is_file():
        digest.update(Path(source).read_bytes())
    else:
        clip = as_clip(source)
        digest.update(f"{clip.sample_rate} {list(clip.waveform.shape)}".encode() + clip.waveform.numpy().tobytes())
    return digest.hexdigest()
