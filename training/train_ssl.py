"""Train the starter speech encoder: `python -m training.train_ssl AUDIO --out DIR --minutes 40`.

A small HuBERT (arXiv 2106.07447; the module of transformers) by HuBERT's own recipe: spans of frames are masked, and
the encoder says from what is around them to which cluster each of their frames belongs. Clusters are made twice: first
of MFCCs, later of a middle layer of the model so far, for which there is a prediction head of its own. Other than in
the paper

- the model goes on with the second clusters instead of starting anew: there is time for one training only;
- what it hears is in a room and in noise while the clusters are those of the clean sound, as in WavLM (2110.13900);
- at first the units of unmasked frames count as well (the paper's alpha): the convolutions learn from these at once,
  and there is nothing to predict from before they have;
- a quarter of the sound is no speech: animals, weather, instruments, voices that sing.

As in the paper, sound is cut into clips (here `make_tracks`) whose frames are labelled all at once, and the training
hears random windows of them. The convolutions keep HuBERT's kernels and strides, 320 samples a frame, but not its 512
channels: the first computes 64 frames for each of the last. With `FRONT`, and half the reach of the convolution for
positions, a step of 16 windows takes about 0.7 s of one core (Zen 4, bf16), 0.22 s of it the front.

The learning rate follows the share of `--minutes` that has been used; a run that was stopped goes on from its last
checkpoint, and with its last clusters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hooks.errors import require
from hooks.files import write_tensors
from training.timed import TimedTraining
from training.tracks import TRACK, make_tracks, sound_pieces
from training.units import HOP, cluster, mfcc, nearest, sample_count
from training.utterances import SAMPLE_RATE, Mixer, Piece, backgrounds, speech_pieces, spoken_pieces

WIDTH = 192
FRONT = (64, 128, 128, 128, 192, 192, 192)
LAYER = 2
"""The layer whose output is clustered, counted from 1: the middle one."""
UNITS = (100, 200)
"""Clusters of the first and of the second iteration."""
SECOND = 0.4
"""Share of the training after which the second iteration begins."""
SEEN = 0.15
"""Share of the training in which the units of frames that can be heard count too, less and less."""
HEAD, TEMPERATURE = 256, 0.1
SPAN, STARTS = 10, 0.06
"""Frames of a masked span, and the share of frames with which one begins: close to half of all are masked."""
WINDOW = 160
"""Frames of a training window, 3.2 s."""
CLUSTERED = 300
"""Tracks whose frames the clusters are made of: 120 000 frames."""


def build() -> Any:
    transformers = require("transformers", "ssl")
    config = transformers.HubertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=768,
        conv_dim=FRONT,
        num_conv_pos_embeddings=64,
        hidden_dropout=0.05,
        activation_dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        architectures=["HubertModel"],
        # also when the weights in a file are halves: a CPU is slow with those
        dtype="float32",
    )
    return transformers.HubertModel(config)


class Head(nn.Module):
    """Logits [..., units]: cosines with an embedding of each unit."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.projection = nn.Linear(WIDTH, HEAD)
        self.embeddings = nn.Parameter(torch.randn(units, HEAD))

    def forward(self, x: Tensor) -> Tensor:
        embeddings = nn.functional.normalize(self.embeddings, dim=-1)
        return nn.functional.normalize(self.projection(x), dim=-1) @ embeddings.T / TEMPERATURE


class Student(nn.Module):
    """The encoder with the heads of both iterations, so that a checkpoint of either fits."""

    def __init__(self) -> None:
        super().__init__()
        self.hubert = build()
        self.heads = nn.ModuleList(Head(count) for count in UNITS)

    @torch.no_grad()
    def features(self, audio_BN: Tensor) -> Tensor:
        """What the middle layer gives [B, T, D]."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.hubert(audio_BN, output_hidden_states=True).hidden_states[LAYER].float()


def normalized(audio: np.ndarray) -> Tensor:
    """Each sound [..., N] brought to mean 0 and variance 1 as the library's feature extractor does it."""
    x = torch.from_numpy(audio).float()
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-7).sqrt()


def mask_spans(rows: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Which frames go missing [rows, frames]: whole spans, which may overlap, and at least one."""
    starts_BT = rng.random((rows, frames - SPAN + 1)) < STARTS
    starts_BT[np.arange(rows), rng.integers(starts_BT.shape[1], size=rows)] = True
    mask_BT = np.zeros((rows, frames), bool)
    for offset in range(SPAN):
        mask_BT[:, offset : offset + starts_BT.shape[1]] |= starts_BT
    return mask_BT


Clips = tuple[list[Piece], list[Piece]]
"""Pieces that a probe learns from, and those that it is asked about: their text is the label."""


@torch.no_grad()
def probed(student: Student, clips: Clips) -> float:
    """Accuracy of a linear probe on the means over time of the middle layer."""
    require("sklearn", "eval")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def means(pieces: list[Piece]) -> np.ndarray:
        sounds = [normalized(piece.waveform[: 2 * SAMPLE_RATE])[None] for piece in pieces]
        return torch.cat([student.features(sound).mean(1) for sound in sounds]).numpy()

    train, valid = clips
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    probe.fit(means(train), [piece.text for piece in train])
    return float(probe.score(means(valid), [piece.text for piece in valid]))


class Trainer(TimedTraining):
    """`tracks` and `valid` are int16 [M, samples], `mixer` brings rooms and noise, `probes` are for the log."""

    model: Student

    def __init__(
        self,
        tracks: np.ndarray,
        valid: np.ndarray,
        mixer: Mixer,
        folder: Path,
        minutes: float,
        rate: float,
        probes: dict[str, Clips] | None = None,
    ) -> None:
        super().__init__(
            Student().train(), folder, minutes, rate, warmup=500, betas=(0.9, 0.98), weight_decay=0.01, clip=1.0
        )
        self.tracks, self.valid, self.mixer, self.probes = tracks, valid, mixer, probes or {}
        self.iteration = 0
        self.units: dict[str, Tensor] = {}

    def averaged(self) -> Student:
        student = Student().eval()
        student.load_state_dict(self.average)
        return student

    def relabel(self, iteration: int) -> None:
        """Cluster frames anew, and give each frame of all tracks its unit."""
        features: Callable[[Tensor], Tensor] = mfcc if iteration == 1 else self.averaged().features

        def frames(tracks: np.ndarray) -> Iterator[Tensor]:
            for first in range(0, len(tracks), 8):
                yield features(normalized(tracks[first : first + 8]))

        sample = torch.cat([x_BTD.flatten(0, 1) for x_BTD in frames(self.tracks[:CLUSTERED])])
        centres_KD = cluster(sample, UNITS[iteration - 1], seed=iteration)
        self.units = {
            name: torch.cat([nearest(x_BTD, centres_KD) for x_BTD in frames(tracks)]).short()
            for name, tracks in (("train", self.tracks), ("valid", self.valid))
        }
        self.iteration = iteration
        write_tensors(self.folder / "units.safetensors", {**self.units, "centres": centres_KD}, iteration=iteration)

    def resume(self) -> None:
        """Weights from the last checkpoint; units are newer than that if the run was stopped just after `relabel`.

        Raises:
            ValueError: the units in the folder are of other tracks.
        """
        super().resume()
        path = self.folder / "units.safetensors"
        if not path.exists():
            self.relabel(1)
            return
        with safe_open(str(path), "pt") as file:
            self.iteration = int(file.metadata()["iteration"])
            self.units = {name: file.get_tensor(name) for name in ("train", "valid")}
        if len(self.units["train"]) != len(self.tracks) or len(self.units["valid"]) != len(self.valid):
            raise ValueError(f"{path} belongs to another set of tracks: use the same --hours, or an empty folder")

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """(sound as heard [B, N], units of the clean sound [B, T], which frames to mask [B, T])."""
        rng, heard, units = self.mixer.rng, [], []
        for _ in range(size):
            track, frame = rng.integers(len(self.tracks)), rng.integers(TRACK - WINDOW + 1)
            clean = self.tracks[track, frame * HOP :][: sample_count(WINDOW)].astype(np.float32) / 32767
            heard.append(normalized(self.mixer.placed(clean)))
            units.append(self.units["train"][track, frame : frame + WINDOW])
        return torch.stack(heard), torch.stack(units).long(), torch.from_numpy(mask_spans(size, WINDOW, rng))

    def loss(self, student: Student, audio_BN: Tensor, units_BT: Tensor, mask_BT: Tensor) -> dict[str, Tensor]:
        """Cross entropies of the units of masked and of unmasked (seen) frames, nats; how many masked are right."""
        with torch.autocast("cpu", torch.bfloat16):
            x_BTD = student.hubert(audio_BN, mask_time_indices=mask_BT).last_hidden_state
        logits_BTK = student.heads[self.iteration - 1](x_BTD.float())
        each_BT = nn.functional.cross_entropy(logits_BTK.transpose(1, 2), units_BT, reduction="none")
        masked, seen = each_BT[mask_BT].mean(), each_BT[~mask_BT].mean()
        right_BT = logits_BTK.detach().argmax(-1) == units_BT
        weight = max(0.0, 1 - self.used / SEEN)
        return {
            "total": masked + weight * seen if weight else masked,
            "masked": masked,
            "seen": seen,
            "accuracy": right_BT[mask_BT].float().mean(),
        }

    def train(self, size: int = 16, log_every: int = 50, check_every: int = 500) -> None:
        def terms() -> dict[str, Tensor]:
            if self.iteration == 1 and self.used >= SECOND:
                self.relabel(2)
            return self.loss(self.model, *self.draw(size))

        self.resume()
        self.run(terms, self.check, log_every, check_every)

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Of the averaged weights: masked prediction in clean sound of the valid split, and the probes."""
        student = self.averaged()
        mask_BT = torch.from_numpy(mask_spans(len(self.valid), TRACK, np.random.default_rng(0)))
        terms = self.loss(student, normalized(self.valid), self.units["valid"].long(), mask_BT)
        row = {"valid": float(terms["masked"]), "valid_accuracy": float(terms["accuracy"])}
        row |= {name: probed(student, clips) for name, clips in self.probes.items()}
        return {"iteration": self.iteration, **{name: round(value, 4) for name, value in row.items()}}

    def export(self) -> Path:
        """A folder as transformers saves it, without the heads: the averaged weights, as halves."""
        transformers = require("transformers", "ssl")
        hubert = self.averaged().hubert
        path = self.folder / "model.safetensors"
        save_file({name: value.half() for name, value in hubert.state_dict().items()}, path, {"format": "pt"})
        hubert.config.save_pretrained(self.folder)
        transformers.Wav2Vec2FeatureExtractor(sampling_rate=SAMPLE_RATE, do_normalize=True).save_pretrained(self.folder)
        return path


def main(
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    out: Annotated[Path, typer.Option(help="where checkpoints and the result go")],
    minutes: Annotated[float, typer.Option(help="training time on this machine")] = 40.0,
    hours: Annotated[float, typer.Option(help="of sound that is labelled and heard")] = 4.0,
    batch: Annotated[int, typer.Option(help="windows a step")] = 16,
    rate: Annotated[float, typer.Option(help="highest learning rate")] = 1e-3,
    synthetic: Annotated[int, typer.Option(help="utterances by espeak-ng")] = 6000,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    seed: int = 0,
) -> None:
    """Train the starter speech encoder (or go on where a stopped run was)."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    pieces = [*speech_pieces(audio, out, synthetic, seed), *sound_pieces(audio, "train")]
    held = [*spoken_pieces(audio, "valid"), *sound_pieces(audio, "valid")]
    seconds = sample_count(TRACK) / SAMPLE_RATE
    tracks, valid = make_tracks(pieces, round(hours * 3600 / seconds), seed), make_tracks(held, 24, seed)
    probes = {
        "digits": ([p for p in pieces if p.group == "digits"][::6], [p for p in held if p.group == "digits"]),
        "sounds": ([p for p in pieces if p.group == "esc10"], [p for p in held if p.group == "esc10"]),
    }
    mixer = Mixer([], *backgrounds(audio), seed + int(time.time()))
    trainer = Trainer(tracks, valid, mixer, out, minutes, rate, probes)
    trainer.train(batch)
    print(trainer.export())


if __name__ == "__main__":
    typer.run(main)
