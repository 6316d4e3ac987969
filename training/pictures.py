"""Pictures of what the starter codec does to recordings: `python -m training.pictures AUDIO --out docs/pictures`.

For a sentence, a sung note and a chord: the input, the codec's plain round trip, and the pitch moved by +4 and -5
semitones by `edit_sound`, as spectrograms up to 12 kHz.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from torch import Tensor

from hooks import Clip, open_model, read_clip
from hooks.model import Codec
from steer.editing.sound import edit_sound
from steer.recipe import DEFAULT_MODEL, Recipe
from steer.steered import SteeredModel

SHOWN_S = 3.0
SOUNDS = {
    "sentence": "ljspeech/LJ001-0018.flac",
    "sung-note": "singing/voice_a_m050_D3_2.flac",
}
CHORD = (57, 64, 69, 72)
MOVES = (4.0, -5.0)
TOP_HZ = 12_000
RANGE_DB = 75.0


def chord(sample_rate: int = 24_000, seconds: float = 2.0) -> Clip:
    """Four harmonic tones (A minor) that decay, like a plucked instrument's."""
    time = torch.arange(int(seconds * sample_rate), dtype=torch.float64) / sample_rate
    total = torch.zeros_like(time)
    for midi in CHORD:
        f0 = 440 * 2 ** ((midi - 69) / 12)
        for harmonic in range(1, int(TOP_HZ / f0)):
            level = torch.exp(-time * (0.8 + 0.15 * harmonic)) / harmonic
            total += level * torch.sin(2 * torch.pi * harmonic * f0 * time + harmonic)
    return Clip((0.3 * total / total.abs().max()).float(), sample_rate, "chord")


def spectrogram_db(x_N: Tensor, sample_rate: int) -> Tensor:
    """Power [F, T] in dB of the largest value, in windows of 43 ms, up to `TOP_HZ`."""
    n_fft = 2 ** round(torch.log2(torch.tensor(0.043 * sample_rate)).item())
    window = torch.hann_window(n_fft)
    power_FT = torch.stft(x_N, n_fft, n_fft // 8, window=window, return_complex=True).abs().square()
    power_FT = power_FT[: int(TOP_HZ / sample_rate * n_fft) + 1]
    return 10 * (power_FT / power_FT.max()).clamp(min=1e-12).log10()


def draw(name: str, sounds: dict[str, Clip]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), dpi=100, layout="constrained")
    for axes, (title, clip) in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, sounds.items(), strict=True):
        image_FT = spectrogram_db(clip.waveform[0], clip.sample_rate)
        top_khz = min(TOP_HZ, clip.sample_rate / 2) / 1000
        axes.imshow(
            image_FT.numpy(),
            origin="lower",
            aspect="auto",
            extent=(0, clip.seconds, 0, top_khz),
            vmin=-RANGE_DB,
            vmax=0,
            cmap="magma",
        )
        axes.set_title(f"{name}: {title}")
    figure.supxlabel("seconds")
    figure.supylabel("kHz")
    return figure


def main(
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    out: Annotated[Path, typer.Option(help="folder for the pictures")],
    model: Annotated[str, typer.Option(help="the codec")] = DEFAULT_MODEL,
    sae: Annotated[str, typer.Option(help="its SAE, with control vectors beside it")] = f"{DEFAULT_MODEL}/latent",
) -> None:
    """Draw input, round trip and two moves of pitch."""
    codec = open_model(model)
    assert isinstance(codec, Codec)
    recipe = Recipe.build({"model": model, "saes": {"latent": sae}})
    steered = SteeredModel(codec, recipe.open().saes)
    vectors = recipe.control_vectors()
    out.mkdir(parents=True, exist_ok=True)
    clips = {name: read_clip(audio / path) for name, path in SOUNDS.items()}
    clips["chord"] = chord()
    for name, clip in clips.items():
        clip = Clip(clip.waveform[:, : int(SHOWN_S * clip.sample_rate)], clip.sample_rate, name)
        sounds = {"input": clip, "round trip": codec.resynthesize(clip)}
        for semitones in MOVES:
            edited = edit_sound(clip, steered, goals={"pitch": semitones}, vectors=vectors)
            sounds[f"{semitones:+g} semitones"] = Clip(edited.samples.float(), edited.sample_rate)
        path = out / f"{name}.png"
        draw(name, sounds).savefig(path)
        Image.open(path).quantize(256).save(path, optimize=True)  # less than half the size
        print(path)


if __name__ == "__main__":
    typer.run(main)
