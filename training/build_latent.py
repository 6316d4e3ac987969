"""Make what ships beside the starter codec: `python -m training.build_latent AUDIO --codec DIR --out DIR`.

An SAE on the site `latent`, probes for loudness, brightness and pitch on its features, and control vectors from pairs
of sounds that differ in one attribute only: the same clip louder, tilted in spectrum, or moved in pitch. Only training
data is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from hooks import open_model
from hooks.model import Codec
from steer.frame_labels import centroid_hz, loudness_db, pitch_midi
from steer.probes import Bins, fit_probe, linear_bins, pitch_bins, save_probes
from steer.sae import SAE, SAEInfo
from steer.training import TrainConfig, train_sae
from steer.vectors import ControlVector, from_pairs, save_vectors
from training.codec_losses import tilt
from training.sounds import Sound, cached, read_mono, read_rows

SITE = "latent"
LABELLED = ("notes", "singing", "ljspeech", "speech_misc", "digits", "keywords", "orders", "tones", "espeak")
MAX_S = 6.0


@torch.no_grad()
def latents(codec: Codec, waveform: np.ndarray | Tensor) -> Tensor:
    """Latent frames [T, D] of a mono waveform."""
    return codec.encode(torch.as_tensor(waveform)[None, None])[0]


def gather(codec: Codec, sounds: list[Sound], rng: np.random.Generator) -> Tensor:
    """Latent frames [N, D] of sounds, at levels as varied as recordings are."""
    frames = []
    for sound in sounds:
        gain = min(10 ** (rng.uniform(-14, 6) / 20), 0.95 / max(float(np.abs(sound.waveform).max()), 1e-3))
        frames.append(latents(codec, sound.waveform * np.float32(gain)))
    return torch.cat(frames)


def loudness_pairs(
    codec: Codec, sae: SAE, sounds: list[Sound], rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, float]]:
    for sound in sounds:
        change = float(rng.uniform(-9, 6))
        yield (
            sae.encode(latents(codec, sound.waveform)),
            sae.encode(latents(codec, sound.waveform * np.float32(10 ** (change / 20)))),
            change,
        )


def brightness_pairs(
    codec: Codec, sae: SAE, sounds: list[Sound], rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, float]]:
    rate = codec.sample_rate
    assert rate is not None
    for sound in sounds:
        original = torch.from_numpy(sound.waveform)
        slope = torch.tensor([rng.uniform(-4, 4)], dtype=torch.float32)
        tilted = tilt(original[None], slope, rate)[0]
        before, after = (latents(codec, waveform) for waveform in (original, tilted))
        centroids = [
            centroid_hz(waveform[None], rate, codec.frame_rate, len(before)) for waveform in (original, tilted)
        ]
        heard = torch.isfinite(centroids[0]) & torch.isfinite(centroids[1]) & (centroids[0] > 0) & (centroids[1] > 0)
        if heard.sum() > 3:
            change = 100 * float((centroids[1][heard] / centroids[0][heard]).log().mean())
            yield sae.encode(before), sae.encode(after), change


def pitch_pairs(codec: Codec, sae: SAE, sounds: list[Sound]) -> Iterator[tuple[Tensor, Tensor, float]]:
    for sound in sounds:
        for semitones, copy in sound.shifted:
            yield sae.encode(latents(codec, sound.waveform)), sae.encode(latents(codec, copy)), semitones


@torch.no_grad()
def in_units(
    codec: Codec,
    sae: SAE,
    vector: ControlVector,
    measured: Callable[[Tensor], Tensor],
    sounds: list[Sound],
    step: float,
) -> ControlVector:
    """The vector scaled such that on the median sound +1 changes what is `measured` of the output [frames] by 1.

    Pairs tell how features differ, not how far the decoder goes when they are moved.
    """
    direction_D = vector.vector @ sae.W_dec
    ratios = []
    for sound in sounds:
        z_TD = latents(codec, sound.waveform)
        outputs = [codec.decode((z_TD + sign * step * direction_D)[None])[0] for sign in (-1, 1)]
        lower, higher = (measured(output_CN) for output_CN in outputs)
        ratios.append(float((higher - lower).nanmedian()) / (2 * step))
    return replace(vector, vector=vector.vector / float(np.nanmedian(ratios)))


def control_vectors(codec: Codec, sae: SAE, sounds: list[Sound], rng: np.random.Generator) -> dict[str, ControlVector]:
    """The three control vectors; +1 is 1 dB, 1 % of the spectral centroid, 1 semitone (of the training's pairs)."""
    rate = codec.sample_rate
    assert rate is not None
    audible = [sound for sound in sounds if float(np.abs(sound.waveform).max()) > 0.01]
    pitched = [sound for sound in audible if sound.shifted]
    louder = from_pairs(loudness_pairs(codec, sae, audible, rng), "loudness", unit="1 dB louder", site=SITE)
    brighter = from_pairs(brightness_pairs(codec, sae, audible, rng), "brightness", unit="1 % brighter", site=SITE)
    higher = from_pairs(pitch_pairs(codec, sae, pitched), "pitch", unit="1 semitone higher", site=SITE)

    def level(output_CN: Tensor) -> Tensor:
        return loudness_db(output_CN, rate, codec.frame_rate, output_CN.shape[1] // codec.hop_length)

    def log_centroid(output_CN: Tensor) -> Tensor:
        frames = output_CN.shape[1] // codec.hop_length
        return 100 * centroid_hz(output_CN, rate, codec.frame_rate, frames).log()

    return {
        "loudness": in_units(codec, sae, louder, level, audible[:100], step=5.0),
        "brightness": in_units(codec, sae, brighter, log_centroid, audible[:100], step=30.0),
        "pitch": higher,
    }


def labelled_frames(
    codec: Codec, sae: SAE, sounds: list[Sound], rng: np.random.Generator, limit: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Features [N, F] of frames drawn from the sounds, and their loudness (dB), centroid (Hz) and pitch (MIDI)."""
    rate = codec.sample_rate
    assert rate is not None
    features, labels = [], {"loudness": [], "brightness": [], "pitch": []}  # type: ignore[var-annotated]
    share = max(1, limit // max(1, len(sounds)))
    for sound in sounds:
        waveform = torch.from_numpy(sound.waveform[: int(MAX_S * rate)])[None]
        z_TD = latents(codec, waveform[0])
        rows = torch.from_numpy(rng.permutation(len(z_TD))[:share])
        features.append(sae.encode(z_TD[rows]))
        for name, measure in (("loudness", loudness_db), ("brightness", centroid_hz), ("pitch", pitch_midi)):
            labels[name].append(measure(waveform, rate, codec.frame_rate, len(z_TD))[rows])
    return torch.cat(features), {name: torch.cat(values) for name, values in labels.items()}


def main(
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    codec: Annotated[str, typer.Option(help="the codec's folder or name")],
    out: Annotated[Path, typer.Option(help="where the SAE, probes and vectors go")],
    cache: Annotated[Path, typer.Option(help="folder for prepared training sound")],
    clips: Annotated[int, typer.Option(help="sounds that the SAE is trained on")] = 3000,
    pairs: Annotated[int, typer.Option(help="sounds that pairs and labelled frames are made of")] = 900,
    steps: Annotated[int, typer.Option(help="training steps of the SAE")] = 4000,
    frames: Annotated[int, typer.Option(help="labelled frames for the probes")] = 30_000,
    seed: int = 0,
) -> None:
    """Train the SAE, probes and control vectors of a codec's latent."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = open_model(codec)
    assert isinstance(model, Codec) and model.sample_rate is not None
    sounds = cached(audio, cache, model.sample_rate, "train", seed)
    out.mkdir(parents=True, exist_ok=True)
    info = SAEInfo("starter:codec", SITE, model.sample_rate, model.frame_rate, "see the codec's card", "Apache-2.0")
    config = TrainConfig(
        activation="batchtopk", k=32, expansion=8, steps=steps, batch_size=2048, lr=1e-3, dead_after=200_000
    )
    heard = [sounds[i] for i in rng.permutation(len(sounds))[:clips]]
    sae = train_sae(gather(model, heard, rng), config, out / "training", info=info)
    sae.info.site = SITE

    labelled = [sound for sound in sounds if sound.group in LABELLED]
    chosen = [labelled[i] for i in rng.permutation(len(labelled))[:pairs]]
    save_vectors(control_vectors(model, sae, chosen, rng), out / "vectors.safetensors")

    features_NF, labels = labelled_frames(model, sae, chosen, rng, frames)
    recorded = [Sound(group, read_mono(path, model.sample_rate)) for group, path, _ in read_rows(audio, "valid")]
    valid_NF, valid_labels = labelled_frames(model, sae, [s for s in recorded if s.group in LABELLED], rng, frames // 4)
    bins: dict[str, Bins] = {
        "loudness": linear_bins("loudness", "dB", labels["loudness"]),
        "brightness": linear_bins("brightness", "Hz", labels["brightness"]),
        "pitch": pitch_bins(),
    }
    probes = {name: fit_probe(features_NF, labels[name], bins[name], site=SITE, c=0.1) for name in bins}
    for name, probe in probes.items():
        sae.info.metrics[f"{name}_probe_accuracy"] = round(probe.accuracy(valid_NF, valid_labels[name]), 4)
    save_probes(probes, out / "probes.safetensors")
    sae.save(out)


if __name__ == "__main__":
    typer.run(main)
