"""Make what ships beside a starter codec: `python -m training.build_latent AUDIO --codec DIR --out DIR --cache DIR`.

An SAE on the site `latent`, probes for loudness, brightness and pitch on its features, and control vectors found in
several ways (`training.latent_vectors`), of which the best on valid clips get the plain names. Everything is trained on
the train split, on sentences by espeak-ng and on tones and noise made as they are needed. A codec without a pitch
coordinate gets its vectors from pairs and probes; `--mover starter:codec` makes its pairs of pitch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from evaluation.dataset import MANIFEST, Dataset, read_sounds
from hooks import Clip
from hooks.families.source_filter import SourceFilterCodec
from hooks.model import Codec
from steer import open_model
from steer.frame_labels import centroid_hz, loudness_db, pitch_midi
from steer.probes import Bins, Probe, fit_probe, linear_bins, pitch_bins, save_probes
from steer.sae import SAE, SAEInfo
from steer.steered import SteeredModel
from steer.training import TrainConfig, train_sae
from steer.vectors import save_vectors
from training.latent_vectors import SITE, VOICED, chosen, found_ways, latents
from training.pitched import Batches, recordings

LABELLED = ("notes", "singing", "ljspeech", "speech_misc", "digits")
SIZE, FRAMES, EDGE = 32, 96, 8
"""Segments of a batch, their frames, and how many of those at either end are left out: they border on silence that was
not in the recording."""
MAX_S = 3.0
Labels = dict[str, Tensor]


@torch.no_grad()
def gather(codec: Codec, batches: Batches, count: int) -> Tensor:
    """`count` latent frames [N, D] of sounds at levels as varied as recordings are."""
    found: list[Tensor] = []
    while sum(map(len, found)) < count:
        z_BTD = codec.encode(batches.draw()[0][:, None])
        found.append(z_BTD[:, EDGE:-EDGE].flatten(0, 1))
    return torch.cat(found)[:count]


@torch.no_grad()
def labelled(codec: Codec, sae: SAE, batches: Batches, count: int) -> tuple[Tensor, Labels]:
    """Features [N, F] of frames drawn from the batches, and their loudness (dB), centroid (Hz) and pitch (MIDI)."""
    features: list[Tensor] = []
    labels: dict[str, list[Tensor]] = {"loudness": [], "brightness": [], "pitch": []}
    while sum(map(len, features)) < count:
        x_BN, midi_BT, confidence_BT = batches.draw()
        midi_BT = midi_BT.masked_fill(confidence_BT < VOICED, torch.nan)
        for x_N, midi_T, z_TD in zip(x_BN, midi_BT, codec.encode(x_BN[:, None]), strict=True):
            rows = EDGE + torch.randperm(len(z_TD) - 2 * EDGE)[:20]
            features.append(sae.encode(z_TD[rows]))
            add_labels(labels, codec, x_N, rows, midi_T)
    return torch.cat(features), {name: torch.cat(values) for name, values in labels.items()}


def add_labels(labels: dict[str, list[Tensor]], codec: Codec, x_N: Tensor, rows: Tensor, midi_T: Tensor) -> None:
    assert codec.sample_rate is not None
    place = (x_N, codec.sample_rate, codec.frame_rate, len(midi_T))
    labels["loudness"].append(loudness_db(*place)[rows])
    labels["brightness"].append(centroid_hz(*place)[rows])
    labels["pitch"].append(midi_T[rows])


@torch.no_grad()
def labelled_recordings(codec: Codec, sae: SAE, clips: list[Clip]) -> tuple[Tensor, Labels]:
    """The same of all frames of clips, with the pitch read by CREPE."""
    assert codec.sample_rate is not None
    features: list[Tensor] = []
    labels: dict[str, list[Tensor]] = {"loudness": [], "brightness": [], "pitch": []}
    for clip in clips:
        x_N = codec.prepare(clip)[0, 0, : round(MAX_S * codec.sample_rate)]
        z_TD = latents(codec, x_N)
        midi_T = pitch_midi(x_N, codec.sample_rate, codec.frame_rate, len(z_TD))
        features.append(sae.encode(z_TD))
        add_labels(labels, codec, x_N, torch.arange(len(z_TD)), midi_T)
    return torch.cat(features), {name: torch.cat(values) for name, values in labels.items()}


def fitted_probes(features_NF: Tensor, labels: Labels) -> dict[str, Probe]:
    bins: dict[str, Bins] = {
        "loudness": linear_bins("loudness", "dB", labels["loudness"]),
        "brightness": linear_bins("brightness", "Hz", labels["brightness"]),
        "pitch": pitch_bins(),
    }
    return {name: fit_probe(features_NF, labels[name], bins[name], site=SITE, c=0.1) for name in bins}


def main(
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    codec: Annotated[str, typer.Option(help="the codec's folder or name")],
    out: Annotated[Path, typer.Option(help="where the SAE, probes and vectors go")],
    cache: Annotated[Path, typer.Option(help="folder for labelled training sound")],
    name: Annotated[str, typer.Option(help="what the SAE says it belongs to")] = "starter:codec",
    frames: Annotated[int, typer.Option(help="latent frames that the SAE is trained on")] = 200_000,
    steps: Annotated[int, typer.Option(help="training steps of the SAE")] = 3000,
    probed: Annotated[int, typer.Option(help="labelled frames for the probes")] = 30_000,
    pairs: Annotated[int, typer.Option(help="segments that pairs are made of")] = 300,
    clips: Annotated[int, typer.Option(help="valid clips of a collection")] = 12,
    mover: Annotated[str | None, typer.Option(help="a source-filter codec that makes pairs of pitch")] = None,
    sentences: Annotated[int, typer.Option(help="sentences by espeak-ng")] = 250,
    seed: int = 0,
) -> None:
    """Train the SAE, probes and control vectors of a codec's latent."""
    torch.manual_seed(seed)
    model = open_model(codec)
    assert isinstance(model, Codec) and model.sample_rate is not None
    other = open_model(mover) if mover else None
    assert other is None or isinstance(other, SourceFilterCodec)
    data = recordings(audio, cache, model.sample_rate, model.hop_length, sentences, seed)
    batches = Batches(data, SIZE, FRAMES, seed)
    out.mkdir(parents=True, exist_ok=True)
    info = SAEInfo(name, SITE, model.sample_rate, model.frame_rate, "see the codec's card", "Apache-2.0")
    config = TrainConfig("batchtopk", k=32, expansion=8, steps=steps, batch_size=2048, lr=1e-3, dead_after=200_000)
    sae = train_sae(gather(model, batches, frames), config, info=info)
    sae.info.site = SITE

    probes = fitted_probes(*labelled(model, sae, batches, probed))
    there = [subset for subset in LABELLED if (audio / subset / MANIFEST).is_file()]
    valid = [clip for _, clip in read_sounds(Dataset(audio).sounds(there, "valid", clips))]
    features_NF, labels = labelled_recordings(model, sae, valid)
    for attribute, probe in probes.items():
        sae.info.metrics[f"{attribute}_probe_accuracy"] = round(probe.accuracy(features_NF, labels[attribute]), 4)
    save_probes(probes, out / "probes.safetensors")

    ways = found_ways(model, sae, probes, batches, pairs, other)
    few = valid[:: max(1, len(valid) // 15)]
    vectors, scores = chosen(ways, SteeredModel(model, sae, SITE), few)
    sae.info.extra["vectors_off_by"] = scores
    save_vectors(vectors, out / "vectors.safetensors")
    sae.save(out)
    shipped = {attribute: vectors[attribute].name for attribute in ways}
    print(json.dumps({"metrics": sae.info.metrics, "off by": scores, "shipped": shipped}, indent=1))


if __name__ == "__main__":
    typer.run(main)
