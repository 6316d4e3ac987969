"""Train `starter:wavtokenizer`: `python -m training.train_wavtokenizer AUDIO --out DIR --minutes 120`.

A small WavTokenizer without its attention (so that the decoder stays local in time), trained from recordings and from
sound made here, with an energy-normalised waveform term and mel terms; no adversary. Two things are beside the usual:

*The latent follows known changes.* For a part of every batch the target is the same sound louder or softer, brighter or
duller, and the decoder gets the latent moved along one learned direction per attribute; the encoder of the changed
sound is pulled to the same place. So the attributes are (nearly) linear in the latent, where an SAE and probes can find
them. The directions themselves are thrown away: AudioSteer finds its own, through the SAE.

*The quantiser comes last.* In the last part the residual codebooks follow the latent by moving averages, and a part
of the batch is decoded through them.

The learning rate follows the share of `--minutes` that has been used; a run that was stopped goes on from its last
checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor

from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig
from hooks.networks.weight_norm import WeightNormConv1d
from training.codec_losses import SpectralDistance, band_error_ratio, log_angle, log_error_ratio
from training.sounds import Sound, cached
from training.source_filter_losses import tilt
from training.timed import TimedTraining

CONFIG = WavTokenizerConfig(
    dimension=128,
    n_filters=16,
    bins=1024,
    num_quantizers=8,
    width=256,
    hidden=768,
    num_layers=8,
    num_conditions=None,
    attention=False,
    phase_pair=True,
)
SHARES = {"notes": 2.0, "singing": 1.5, "tones": 1.5, "noise": 0.4, "esc10": 1.5, "digits": 1.2, "orders": 2.0,
          "keywords": 1.3, "ljspeech": 1.2, "speech_misc": 1.2, "espeak": 1.0, "noise_rir": 0.2}  # fmt: skip
SEGMENT_FRAMES = 48
UNITS = (6.0, 3.0)
"""One step along the directions: 6 dB of level, 3 dB per octave of tilt."""
LENGTHS = (2.0, 1.0)
"""How long such a step is in the latent. Fixed: a direction that is hard to follow would shrink away."""


class Batches:
    """Random segments and what each shall become."""

    def __init__(self, sounds: list[Sound], size: int, seed: int) -> None:
        self.groups: dict[str, list[Sound]] = {}
        for sound in sounds:
            self.groups.setdefault(sound.group, []).append(sound)
        shares = np.array([SHARES[group] for group in self.groups])
        self.names, self.shares = list(self.groups), shares / shares.sum()
        self.size, self.length = size, SEGMENT_FRAMES * CONFIG.hop_length
        self.rng = np.random.default_rng(seed)

    def cut(self, wave: np.ndarray) -> np.ndarray:
        """A random stretch, padded where the sound is short; the very ends are drawn as often as they should be."""
        spare = len(wave) - self.length
        start = self.rng.integers(-self.length // 8, spare + self.length // 8) if spare > 0 else 0
        start = int(np.clip(start, 0, max(spare, 0)))
        return np.pad(wave[start : start + self.length], (0, max(0, self.length - len(wave) + start)))

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """(inputs [B, N], what they become [B, N], changes [B, 2] in dB and dB per octave)."""
        inputs, changes = [], []
        for _ in range(self.size):
            group = self.groups[self.rng.choice(self.names, p=self.shares)]
            sound = group[self.rng.integers(len(group))]
            wave = sound.waveform
            if sound.shifted and self.rng.uniform() < 0.5:
                # copies at other pitches for variety; not too often, since moving the pitch leaves traces
                wave = sound.shifted[self.rng.integers(len(sound.shifted))][1]
            x = self.cut(wave)
            # recordings come at any level up to full scale; what they become may be louder than that
            gain = min(10 ** (self.rng.uniform(-14, 8) / 20), 0.98 / max(np.abs(x).max(), 1e-3))
            inputs.append(x * gain)
            changed = self.rng.uniform() < 0.35
            changes.append([self.rng.uniform(-12, 10), self.rng.uniform(-4.5, 4.5)] if changed else [0.0, 0.0])
        x_BN = torch.from_numpy(np.stack(inputs).astype(np.float32))
        change_B2 = torch.tensor(changes, dtype=torch.float32)
        y_BN = tilt(x_BN, change_B2[:, 1], CONFIG.sample_rate) * 10 ** (change_B2[:, :1] / 20)
        return x_BN, y_BN, change_B2


class TaughtCodec(WavTokenizer):
    """With the directions that it is taught to follow, one for level and one for tilt."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.directions = torch.nn.Parameter(0.1 * torch.randn(2, CONFIG.dimension))


class Trainer(TimedTraining):
    model: TaughtCodec

    def __init__(self, batches: Batches, folder: Path, minutes: float, rate: float) -> None:
        super().__init__(
            TaughtCodec(), folder, minutes, rate, warmup=200, betas=(0.9, 0.99), weight_decay=0.01, clip=2.0
        )
        self.batches = batches
        self.distance = SpectralDistance(CONFIG.sample_rate)

    @torch.no_grad()
    def start_from(self, folder: Path, rounds: int = 40) -> None:
        """Go on from the exported weights in a folder, with the directions that their encoder follows best."""
        weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        self.model.load_state_dict({**weights, "directions": self.model.directions})
        moves, gaps = [], []
        for _ in range(rounds):
            x_BN, y_BN, change_B2 = self.batches.draw()
            moves.append(change_B2 / torch.tensor(UNITS))
            gaps.append((self.model.encode(y_BN) - self.model.encode(x_BN)).mean(2))
        self.model.directions.copy_(torch.linalg.lstsq(torch.cat(moves), torch.cat(gaps)).solution)
        self.restart_average()

    @torch.no_grad()
    def fit_ends(self) -> None:
        """Start where learning is quick: latent channels of mean 0 and deviation 1, and an output with the average
        spectrum of the data, its energy in the middle of each window. From louder starts the way leads into silence.
        """
        convolutions = [m for m in self.model.encoder.modules() if isinstance(m, WeightNormConv1d)]
        for layer in convolutions:
            layer.weight_g.mul_(3**0.5)  # torch's uniform start shrinks what passes by that
            layer.bias.zero_()
        convolutions[0].weight_g.mul_(10.0)  # sound is small beside 1
        last = convolutions[-1]
        z_BDT = self.model.encode(self.batches.draw()[0])
        last.weight_g.div_(z_BDT.std((0, 2))[:, None, None].clamp(min=1e-6))
        z_BDT = self.model.encode(self.batches.draw()[0])
        last.bias.sub_(z_BDT.mean((0, 2)))
        n_fft, out = CONFIG.n_fft, self.model.head.out
        window = torch.hann_window(n_fft)
        frames = torch.stft(self.batches.draw()[0], n_fft, CONFIG.hop_length, window=window, return_complex=True)
        out.bias[: n_fft // 2 + 1] = (frames.abs() + 1e-3).log().mean((0, 2))
        out.bias[n_fft // 2 + 1 : n_fft + 2] = 0.3 * (-1.0) ** torch.arange(n_fft // 2 + 1)

    def loss(self) -> dict[str, Tensor]:
        x_BN, y_BN, change_B2 = self.batches.draw()
        edited = change_B2.abs().sum(1) > 0
        move_B2 = change_B2 / torch.tensor(UNITS)
        with torch.autocast("cpu", torch.bfloat16):
            z_BDT = self.model.encode(x_BN).float()
            target_BDT = self.model.encode(y_BN[edited]).float()
        # every channel is held near mean 0 and deviation 1, so that "near" in the latent has a scale
        mean_D, spread_D = z_BDT.mean((0, 2)), z_BDT.std((0, 2))
        scale = mean_D.square().mean() + (spread_D - 1).square().mean()
        directions_2D = torch.nn.functional.normalize(self.model.directions, dim=1)
        offset_BD = move_B2 @ (torch.tensor(LENGTHS)[:, None] * directions_2D)
        moved_BDT = z_BDT + offset_BD[:, :, None]
        if self.used > 0.9:
            with torch.no_grad():
                self.model.quantizer.update(z_BDT)
                through = (~edited) & (torch.rand(len(edited)) < 0.25)
                coded_BDT = self.model.quantizer(moved_BDT[through])[0] if through.any() else moved_BDT[through]
            # the encoder serves the continuous path; only the decoder learns to live with codes
            moved_BDT = moved_BDT.clone()
            moved_BDT[through] = coded_BDT
        # noise makes the decoder robust to what an SAE leaves out, and the directions large enough to be seen
        noisy_BDT = moved_BDT + 0.05 * torch.randn_like(moved_BDT)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.model.backbone(noisy_BDT)
            spectrum = self.model.head.out(hidden)
        output_BN = self.model.head.synthesise(spectrum.float())
        agree = (target_BDT - moved_BDT[edited]).square().mean((1, 2))
        # from the start this term would be met by an encoder that ignores its input
        agree_weight = 0.3 * min(1.0, max(0.0, (self.used - 0.06) / 0.2))
        spectral = self.distance(y_BN, output_BN)
        # levels first: the error ratio alone is lowest for silence while phases are not known yet
        ratio, bands = log_error_ratio(y_BN, output_BN), band_error_ratio(y_BN, output_BN, CONFIG.sample_rate)
        wave = 0.4 * log_angle(y_BN, output_BN) + (0.4 * ratio + 0.8 * bands if self.used > 0.03 else 0.0)
        total = spectral.mean() + wave.mean() + agree_weight * agree.mean() + 0.1 * scale
        return {
            "total": total,
            "spectral": spectral[~edited].mean(),
            "sdr": -10 / math.log(10) * ratio[~edited].mean(),
            "sdr_edit": -10 / math.log(10) * ratio[edited].mean(),
            "sdr_bands": -10 / math.log(10) * bands[~edited].mean(),
            "agree": agree.mean(),
            "spread": spread_D.mean(),
        }

    def train(self, start: Path | None = None, log_every: int = 50) -> None:
        self.resume()
        if self.step == 0:
            if start is None:
                self.fit_ends()
            else:
                self.start_from(start)
        self.run(self.loss, log_every=log_every)

    def export(self) -> Path:
        """The averaged weights in fp16, as the package ships them."""
        state = {name: value.half() for name, value in (self.model.state_dict() | self.average).items()}
        del state["directions"]
        # moving-average sums are for training only, but `strict=True` wants them: they are the means themselves
        path = self.folder / "model.safetensors"
        save_file({name: value.contiguous() for name, value in state.items()}, path)
        (self.folder / "config.json").write_text(
            json.dumps({"architecture": "wavtokenizer", "quantize": False, **CONFIG.to_dict()}, indent=2) + "\n"
        )
        return path


def main(
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    out: Annotated[Path, typer.Option(help="where checkpoints and the result go")],
    minutes: Annotated[float, typer.Option(help="training time on this machine")] = 120.0,
    batch: Annotated[int, typer.Option(help="segments a step")] = 10,
    rate: Annotated[float, typer.Option(help="highest learning rate")] = 6e-4,
    start: Annotated[Path | None, typer.Option(help="folder of exported weights to go on from")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    seed: int = 0,
) -> None:
    """Train the starter codec (or go on where a stopped run was)."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("medium")
    out.mkdir(parents=True, exist_ok=True)
    sounds = cached(audio, out, CONFIG.sample_rate, "train", seed)
    trainer = Trainer(Batches(sounds, batch, seed + int(time.time())), out, minutes, rate)
    trainer.train(start)
    print(trainer.export())


if __name__ == "__main__":
    typer.run(main)
