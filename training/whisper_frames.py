"""What Whisper's encoder gives on training sound, at every block: the frames that `training.whisper_saes` trains on.

`prepare` writes what a machine without a network needs: the encoder's weights alone, and clips of the valid split.
There the training recordings come as the file that `training.pitched` keeps, 24 kHz, and sound without speech is made
on the spot. Each clip is followed by zeros up to 30 s, as in `Whisper.run`, and only frames that hold sound are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from evaluation.nonspeech import Nonspeech
from hooks.capture import Recorder
from hooks.errors import require
from hooks.families.whisper import WhisperPackage
from hooks.files import whole_file
from training.pitched import ESC_S, loudest, resampled
from training.sounds import read_mono, read_rows

SAMPLE_RATE, PACK_RATE, PACK_HOP = 16_000, 24_000, 320
WINDOW_S, LEAST_S, SILENT = 30.0, 0.3, 1e-3
"""A window of the encoder; shorter clips, and those whose peak is below `SILENT`, are left out."""
VALID_S = 42.0
"""Of each collection so many seconds are held out."""


@dataclass(frozen=True)
class Sounds:
    """Which sounds frames are taken from."""

    pack: Path
    """The file of `training.pitched.recordings`, or one like it."""
    valid: Path
    per_group: int = 0
    """At most so many clips of each collection, spread over it; 0: all."""
    nonspeech: int = 140
    """So many sounds without speech."""
    seed: int = 0


# --- prepare ---


def write_encoder(checkpoint: Path, out: Path) -> Path:
    """The encoder of a checkpoint of openai-whisper in half precision, with the sizes of the whole model."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights = {n: v.half().contiguous() for n, v in state["model_state_dict"].items() if n.startswith("encoder.")}
    with whole_file(out) as partial:
        save_file(weights, partial, {"dims": json.dumps(dict(state["dims"]))})
    return out


def write_valid(audio: Path, out: Path, seconds: float = VALID_S) -> Path:
    """Clips of the valid split at 16 kHz, int16: `seconds` of each collection, taken from all over it."""
    groups: dict[str, list[Path]] = {}
    for group, path, _ in read_rows(audio, "valid"):
        groups.setdefault(group, []).append(path)
    clips: dict[str, Tensor] = {}
    for group, paths in groups.items():
        rest = int(seconds * SAMPLE_RATE)
        for index in np.random.default_rng(0).permutation(len(paths)):
            wave = read_mono(paths[index], SAMPLE_RATE)[: int(WINDOW_S * SAMPLE_RATE)]
            if group == "esc10":
                wave = loudest(wave, int(ESC_S * SAMPLE_RATE))
            if usable(wave) and len(wave) <= rest:
                clips[f"{group}.{paths[index].stem}"] = torch.from_numpy((wave.clip(-1, 1) * 32767).round()).short()
                rest -= len(wave)
    if not clips:
        raise FileNotFoundError(f"no */manifest.csv with clips of split 'valid' below {audio}")
    with whole_file(out) as partial:
        save_file(clips, partial)
    return out


# --- sounds ---


def usable(wave_N: Any) -> bool:
    """Whether a clip is long and loud enough."""
    return len(wave_N) >= LEAST_S * SAMPLE_RATE and float(abs(wave_N).max()) >= SILENT


def recorded(pack: Path, per_group: int, device: torch.device) -> Iterator[Tensor]:
    """The clips of a pack at 16 kHz; what is longer than a window is cut."""
    with safe_open(str(pack), "pt") as file:
        lines, wave_N = file.metadata()["clips"].splitlines(), file.get_slice("wave")
        groups: dict[str, list[tuple[int, int]]] = {}
        for line in lines:
            group, first, frames = line.split()
            groups.setdefault(group, []).append((int(first), int(frames)))
        for clips in groups.values():
            step = max(1, -(-len(clips) // per_group)) if per_group else 1
            for first, frames in clips[::step]:
                clip_N = wave_N[first * PACK_HOP : (first + frames) * PACK_HOP].to(device).float()
                yield from filter(usable, at_whisper_rate(clip_N).split(int(WINDOW_S * SAMPLE_RATE)))


def at_whisper_rate(clip_N: Tensor) -> Tensor:
    """A clip of the pack at 16 kHz, by way of whole half seconds: each new length of an FFT costs a GPU time."""
    half_s = PACK_RATE // 2
    padded_N = torch.nn.functional.pad(clip_N, (0, -len(clip_N) % half_s))
    count = len(padded_N) * SAMPLE_RATE // PACK_RATE
    return resampled(padded_N[None], count)[0, : round(len(clip_N) * SAMPLE_RATE / PACK_RATE)]


def training_sounds(sounds: Sounds, device: torch.device) -> Iterator[Tensor]:
    """Recordings, and sound without speech."""
    yield from recorded(sounds.pack, sounds.per_group, device)
    for _, wave_N in Nonspeech(sounds.seed, device).sounds(sounds.nonspeech):
        # nearly silent ones too: that is where Whisper invents words
        yield wave_N


def valid_sounds(path: Path, per_group: int, device: torch.device) -> Iterator[Tensor]:
    clips = load_file(path)
    names = sorted(clips)
    groups = [[name for name in names if name.split(".")[0] == g] for g in sorted({n.split(".")[0] for n in names})]
    for group in groups:
        for name in group[:: max(1, -(-len(group) // per_group))] if per_group else group:
            yield clips[name].to(device).float() / 32767


# --- frames ---


def open_encoder(path: Path, name: str, device: str | torch.device = "cpu") -> WhisperPackage:
    """A Whisper with the encoder that `write_encoder` wrote, in float32, and a decoder without blocks."""
    library = require("whisper.model", "whisper")
    with safe_open(str(path), "pt") as file:
        dims = json.loads(file.metadata()["dims"])
    module = library.Whisper(library.ModelDimensions(**dims | {"n_text_layer": 0, "n_vocab": 1}))
    missing, unknown = module.load_state_dict(load_file(path), strict=False)
    if unknown or any(one.startswith("encoder.") for one in missing):
        raise ValueError(f"{path}: not the weights of this encoder ({', '.join([*missing, *unknown][:3])})")
    return WhisperPackage(module.float().to(device).eval().requires_grad_(False), name)


def block_sites(path: Path, layers: Sequence[int] = ()) -> list[str]:
    """The sites of the blocks of the encoder that `write_encoder` wrote, all of them or some."""
    with safe_open(str(path), "pt") as file:
        count = json.loads(file.metadata()["dims"])["n_audio_layer"]
    return [f"encoder.{index}" for index in layers or range(count)]


@torch.no_grad()
def frames_of(model: WhisperPackage, waves: Iterable[Tensor], sites: Sequence[str], batch: int) -> dict[str, Tensor]:
    """{site: float16 [N, D]} of all sounds, on the model's device; frames of padding are left out."""
    chosen = [model.sites[site] for site in sites]
    found: dict[str, list[Tensor]] = {site.name: [] for site in chosen}
    with Recorder(model.module, chosen) as recorder:
        for some in batched(waves, batch):
            audio_BCN = torch.zeros(len(some), 1, model.window, device=model.device)
            for row, wave_N in zip(audio_BCN, some, strict=True):
                row[0, : len(wave_N)] = wave_N
            model.run(audio_BCN)
            for name, x_BTD in recorder.take().items():
                for x_TD, wave_N in zip(x_BTD, some, strict=True):
                    found[name].append(x_TD[: model.frames_of(len(wave_N) / SAMPLE_RATE)].half())
    return {name: torch.cat(parts) for name, parts in found.items()}


def batched(waves: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    some: list[Tensor] = []
    for wave_N in waves:
        some.append(wave_N)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def write_frames(model: WhisperPackage, sounds: Sounds, sites: Sequence[str], folder: Path, batch: int) -> list[int]:
    """A file SITE.safetensors with frames `train` and `valid` for each site; gives how many frames there are."""
    train = frames_of(model, training_sounds(sounds, model.device), sites, batch)
    valid = frames_of(model, valid_sounds(sounds.valid, sounds.per_group, model.device), sites, batch)
    folder.mkdir(parents=True, exist_ok=True)
    for site in sites:
        with whole_file(folder / f"{site}.safetensors") as partial:
            save_file({"train": train[site].cpu(), "valid": valid[site].cpu()}, partial)
    return [len(frames[sites[0]]) for frames in (train, valid)]
