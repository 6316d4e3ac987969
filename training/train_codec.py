"""Train `starter:codec`: `python -m training.train_codec AUDIO --out DIR --seconds 7200 --start steer/starter/codec`.

A source-filter codec (`hooks.networks.source_filter`), from recordings with pitch labels by CREPE, sentences by
espeak-ng, and tones, chords and noise made as they are needed. The learning rate follows the share of `--seconds` that
has been used; a run that was stopped goes on from its last checkpoint. Weights are chosen by the valid split: every
`--check` steps the averaged weights go through it, and the best are exported.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor

from evaluation.quality import mel_distance, stoi
from hooks.networks.source_filter import SourceFilter, SourceFilterConfig
from training.pitched import Batches, recordings
from training.sounds import read_mono, read_rows
from training.source_filter_losses import Loss, Weights
from training.timed import TimedTraining

FRAMES = 64
CONFIG = SourceFilterConfig()
SPEECH = ("ljspeech", "speech_misc")
"""Collections whose STOI counts: digits are too short for it."""
VALID_CLIPS, VALID_S = 6, 3.0
"""Clips of a collection that choose the weights, and how much of each."""
PROTOTYPE_NAMES = {".dw.": ".dwconv.", ".a.": ".pwconv1.", ".b.": ".pwconv2."}


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under this project's names, where they have those of the prototype."""
    for old, new in PROTOTYPE_NAMES.items():
        state = {name.replace(old, new): value for name, value in state.items()}
    return state


class Trainer(TimedTraining):
    model: SourceFilter

    def __init__(self, batches: Batches, folder: Path, seconds: float, rate: float, weights: Weights) -> None:
        model = SourceFilter(CONFIG).to(batches.device)
        super().__init__(model, folder, seconds / 60, rate, warmup=200, betas=(0.9, 0.99), weight_decay=0.01, clip=2.0)
        self.batches = batches
        self.losses = Loss(model, weights).to(batches.device)

    def start_from(self, path: Path) -> None:
        """Go on from exported weights, a file or the folder that holds them."""
        path = path / "model.safetensors" if path.is_dir() else path
        self.model.load_weights_(renamed(load_file(path)))
        self.restart_average()

    @torch.no_grad()
    def fit_ends(self) -> None:
        """Free channels of mean 0 and deviation 1 at the start."""
        out, x_BN = self.model.encoder.net.out, self.batches.draw()[0]
        out.weight.div_(self.model.encode(x_BN)[:, 1:].std((0, 2))[:, None].clamp(min=1e-4))
        out.bias.sub_(self.model.encode(x_BN)[:, 1:].mean((0, 2)))
        self.restart_average()

    def loss(self) -> dict[str, Tensor]:
        return self.losses(*self.batches.draw(), self.used)

    def check(self, valid: list[tuple[str, np.ndarray]]) -> dict[str, float]:
        """Mel distance, STOI and level error of the averaged weights on valid clips, means over collections; the best
        by mel distance and STOI together are exported."""
        kept = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.model.load_state_dict(self.average, strict=False)
        means = measured(self.model, valid)
        self.model.load_state_dict(kept, strict=False)
        score = means["valid_mel"] + 20 * (1 - means["valid_stoi"])
        if score < self.best:
            self.best = score
            self.export()
        return means

    def export(self) -> Path:
        """The averaged weights in fp16, as the package ships them."""
        return export(self.average, self.folder)


def export(weights: dict[str, Tensor], folder: Path) -> Path:
    """Weights in fp16 with their configuration, as the package ships them."""
    path = folder / "model.safetensors"
    save_file({name: value.detach().half().cpu().contiguous() for name, value in weights.items()}, path)
    config = {"architecture": "source_filter", **CONFIG.to_dict()}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return path


@torch.no_grad()
def measured(model: SourceFilter, valid: list[tuple[str, np.ndarray]]) -> dict[str, float]:
    """Mel distance (dB), STOI and absolute level error (dB) of the round trip: means over collections, and of each."""
    device = model.directions.device
    found: dict[str, dict[str, list[float]]] = {}
    for group, wave in valid:
        x_N = torch.from_numpy(wave)
        y_N = model(x_N[None].to(device))[0].cpu()
        row = found.setdefault(group, {"mel": [], "stoi": [], "level": []})
        row["mel"].append(mel_distance(x_N, y_N, CONFIG.sample_rate))
        row["level"].append(abs(float(10 * (y_N.square().mean() / x_N.square().mean()).log10())))
        clear = stoi(x_N, y_N, CONFIG.sample_rate) if group in SPEECH else None
        if clear is not None:
            row["stoi"].append(clear)
    means = {
        f"valid_{key}_{group}": round(float(np.mean(values)), 4)
        for group, row in found.items()
        for key, values in row.items()
        if values
    }
    mel = float(np.mean([value for key, value in means.items() if "_mel_" in key]))
    clear_all = float(np.mean([value for key, value in means.items() if "_stoi_" in key] or [0.0]))
    return {"valid_mel": round(mel, 4), "valid_stoi": round(clear_all, 4), **means}


def valid_clips(audio: Path) -> list[tuple[str, np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for group, path, _ in read_rows(audio, "valid"):
        if group in ("keywords", "orders"):
            continue
        wave = read_mono(path, CONFIG.sample_rate)[: int(VALID_S * CONFIG.sample_rate)]
        if np.abs(wave).max() > 0.01:
            found.setdefault(group, []).append(wave)
    return [
        (group, waves[index])
        for group, waves in found.items()
        for index in np.linspace(0, len(waves) - 1, min(VALID_CLIPS, len(waves))).round().astype(int)
    ]


def main(
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    out: Annotated[Path, typer.Option(help="where checkpoints and the result go")],
    cache: Annotated[Path | None, typer.Option(help="folder for labelled training sound [default: --out]")] = None,
    seconds: Annotated[float, typer.Option(help="training time on this machine")] = 7200.0,
    batch: Annotated[int, typer.Option(help="segments of 0.85 s a step")] = 64,
    rate: Annotated[float, typer.Option(help="highest learning rate")] = 1e-3,
    start: Annotated[Path | None, typer.Option(help="weights to go on from")] = None,
    envelopes: Annotated[float, typer.Option(help="weight of the correlation of band envelopes")] = 0.0,
    level: Annotated[float, typer.Option(help="weight of the level and the envelope")] = Weights.level,
    sentences: Annotated[int, typer.Option(help="sentences by espeak-ng")] = 250,
    check: Annotated[int, typer.Option(help="steps between looks at the valid split")] = 100,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    seed: int = 0,
) -> None:
    """Train the codec (or go on where a stopped run was)."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    out.mkdir(parents=True, exist_ok=True)
    data = recordings(audio, cache or out, CONFIG.sample_rate, CONFIG.hop_length, sentences, seed).to(device)
    batches = Batches(data, batch, FRAMES, seed + int(time.time()))
    trainer = Trainer(batches, out, seconds, rate, Weights(level=level, envelopes=envelopes))
    valid = valid_clips(audio)
    trainer.resume()
    if trainer.step == 0:
        trainer.start_from(start) if start else trainer.fit_ends()
        print(json.dumps(trainer.check(valid)))
    trainer.run(trainer.loss, lambda: trainer.check(valid), log_every=min(50, check), check_every=check)
    print(json.dumps({"steps": trainer.step, **trainer.check(valid)}))


if __name__ == "__main__":
    typer.run(main)
