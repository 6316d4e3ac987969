"""One picture of an edit: waveforms, spectrograms, and loudness, brightness and pitch before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apps.files import write_result
from apps.spectrogram import draw_spectrogram, power_of, spectrogram_db
from hooks.clip import audio_info, read_blocks
from hooks.errors import require
from hooks.samples import mix_weights
from steer.acoustics import pitch_track
from steer.values import Span

SHOWN_S = 60.0
"""Of longer files this much is drawn: from a little before the first edited span on, or from the start."""
BEFORE, AFTER = "#5b6770", "#d1495b"


def require_plots() -> None:
    """Raises MissingExtraError if matplotlib is not there."""
    require("matplotlib", "eval")


def plot_file(
    before: Path, after: Path, picture: Path, during: Sequence[Span] | None = None, *, force: bool = False
) -> None:
    """Draw two files of the same rate and length as one PNG.

    Raises:
        AudioFileError: a file cannot be read, or the picture exists (without `force`) or cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    figure = drawn(before, after, during)
    write_result(picture, lambda path: figure.savefig(path, format="png"), force)


def drawn(before: Path, after: Path, during: Sequence[Span] | None = None) -> Any:
    """The figure of two files; raises as `plot_file`."""
    info = audio_info(before)
    start_s = 0.0
    if info.seconds > SHOWN_S and during:
        start_s = min(max(0.0, math.floor(during[0][0] - SHOWN_S / 12)), info.seconds - SHOWN_S)
    first, last = round(start_s * info.sample_rate), round(min(info.seconds, start_s + SHOWN_S) * info.sample_rate)
    sounds = []
    for path in (before, after):
        samples_CN = torch.cat(list(read_blocks(audio_info(path), last - first, start=first, end=last)), dim=1)
        sounds.append(samples_CN)
    weights_C = mix_weights(sounds[0])
    sounds = [weights_C @ samples_CN for samples_CN in sounds]
    return draw(sounds[0], sounds[1], info.sample_rate, start_s, during, (before.name, after.name))


def draw(
    before_N: Tensor,
    after_N: Tensor,
    sample_rate: int,
    start_s: float,
    during: Sequence[Span] | None,
    names: tuple[str, str],
) -> Any:
    """The figure of two mono waveforms [N]."""
    require_plots()
    from matplotlib.figure import Figure  # not pyplot: no window system, no state shared between threads

    figure = Figure(figsize=(12, 8.5), dpi=110, layout="constrained")
    grid = figure.add_gridspec(5, 2, height_ratios=(1.1, 2.4, 1.2, 1.2, 1.2))
    sounds = (before_N, after_N)
    spectra = [spectrogram_db(sound, sample_rate) for sound in sounds]
    peak = max(1e-4, *(float(sound.abs().max()) for sound in sounds)) * 1.05
    top = max(float(spectrum.max()) for spectrum in spectra)
    end_s = start_s + len(before_N) / sample_rate
    for column, color in enumerate((BEFORE, AFTER)):
        wave, spectrum = (figure.add_subplot(grid[row, column]) for row in (0, 1))
        wave.plot(
            torch.linspace(start_s, end_s, len(before_N)).numpy(), sounds[column].numpy(), color=color, linewidth=0.4
        )
        wave.set(title=f"{('before', 'after')[column]}: {names[column]}", xlim=(start_s, end_s), ylim=(-peak, peak))
        image = draw_spectrogram(spectrum, spectra[column], sample_rate, start_s, end_s, top)
        wave.tick_params(labelbottom=False, labelleft=column == 0)
        spectrum.tick_params(labelleft=column == 0)
        if column == 0:
            wave.set_ylabel("amplitude")
            spectrum.set_ylabel("frequency (Hz, mel)")
    figure.colorbar(image, ax=figure.axes[1::2], label="dB", pad=0.01)
    for row, (label, curves) in enumerate(curves_of(before_N, after_N, sample_rate).items(), start=2):
        axes = figure.add_subplot(grid[row, :])
        style = {"marker": ".", "markersize": 2.5, "linestyle": "none"} if "pitch" in label else {"linewidth": 1.2}
        for name, color, (seconds, values) in zip(("before", "after"), (BEFORE, AFTER), curves, strict=True):
            axes.plot((seconds + start_s).numpy(), values.numpy(), color=color, label=name, **style)
        for start, end in during or ():
            axes.axvspan(start, end, color="#edae49", alpha=0.2, linewidth=0)
        axes.set(ylabel=label, xlim=(start_s, end_s))
        axes.grid(alpha=0.25)
        axes.tick_params(labelbottom=row == 4)
        if row == 2:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderaxespad=0)
    axes.set_xlabel("seconds")
    return figure


Track = tuple[Tensor, Tensor]


def curves_of(before_N: Tensor, after_N: Tensor, sample_rate: int) -> dict[str, tuple[Track, Track]]:
    """Curves (seconds, values) of both sounds, by label; NaN where there is too little sound to say."""
    loudness, centroid, pitch = [], [], []
    for sound in (before_N, after_N):
        power_FT, hop = power_of(sound, sample_rate)
        seconds = torch.arange(power_FT.shape[1]) * hop / sample_rate
        # a Hann window passes 3/8 of the power, and one side of the spectrum holds half of it
        level_T = 10 * torch.log10((power_FT.sum(0) * 2 / (2 * len(power_FT) - 2) * 8 / 3).clamp(min=1e-12))
        magnitude_FT = power_FT.sqrt()
        hertz_F = torch.linspace(0, sample_rate / 2, len(power_FT))
        centre_T = (hertz_F @ magnitude_FT) / magnitude_FT.sum(0).clamp(min=1e-9)
        loudness.append((seconds, level_T))
        centroid.append((seconds, torch.where(level_T > level_T.max() - 40, centre_T, math.nan)))
        track = pitch_track(sound, sample_rate)
        pitch.append((torch.zeros(0), torch.zeros(0)) if track is None else (torch.arange(len(track)) / 100, track))
    return {
        "loudness (dB)": (loudness[0], loudness[1]),
        "centroid (Hz)": (centroid[0], centroid[1]),
        "pitch (MIDI)": (pitch[0], pitch[1]),
    }
