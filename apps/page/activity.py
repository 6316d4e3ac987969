"""The features of a sound along time as one picture, under its spectrogram and the words that were written.

Words stand at the time of their segments: those of single words, which openai-whisper can guess from a decoder's
attention, pile up where its heads were not chosen for that.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from apps.page.style import INK, on_any_ground
from apps.page.words import NOTHING
from apps.plot import SHOWN_S, require_plots
from apps.spectrogram import draw_spectrogram, spectrogram_db
from hooks import capture
from hooks.clip import Clip, as_clip
from hooks.model import Source
from hooks.transcript import Transcript
from steer.edits import Edit
from steer.steered import SteeredModel

ROWS, COLUMNS = 20, 600
WIDTH, FONT, LINE, ROW = 8.5, 9.0, 0.155, 0.21
"""The figure in inches, its letters in points, a line of words and a row of the heat map in inches."""
CHARACTERS, NARROWEST, MOST_LINES = 96, 14, 8
"""So many fit beside each other; a segment gets at least so many however short it is, and at most so many lines."""


@dataclass(frozen=True)
class Row:
    """A feature: its activation along the sound, the highest in each of `COLUMNS` stretches, and the mean over all."""

    site: str
    feature: int
    values_C: Tensor
    mean: float

    @property
    def name(self) -> str:
        return f"{self.site} {self.feature}"

    @property
    def peak(self) -> float:
        return float(self.values_C.max())


@dataclass(frozen=True)
class Activity:
    """What is drawn of a sound: mono and not longer than `SHOWN_S`, and of its features the most active, in order.

    `edited` says whether these are chosen among the edited ones.
    """

    clip: Clip
    rows: tuple[Row, ...]
    edited: bool

    def peak_s(self, row: Row) -> float:
        return (int(row.values_C.argmax()) + 0.5) / COLUMNS * self.clip.seconds

    def told(self) -> str:
        """The picture in words, for those who do not see it."""
        kind = "edited features" if self.edited else "features"
        what = f"Spectrogram of {self.clip.seconds:.1f} s of sound, the words written, and features along time."
        strongest = [f"{row.name} (highest at {self.peak_s(row):.1f} s)" for row in self.rows[:3] if row.peak > 0]
        return f"{what} Most active {kind}: {', '.join(strongest) or 'none'}."


@torch.no_grad()
def activity_of(steered: SteeredModel, edits: Mapping[str, Sequence[Edit]], source: Source) -> Activity:
    """The features of a sound, as the model is, that have the highest mean: of those that are edited, or of all.

    Padding is left out, and so are sites whose frames have no time.

    Raises:
        AudioFileError: a sound that cannot be read.
    """
    rate = steered.model.sample_rate
    assert rate is not None
    whole = as_clip(source, rate).mixed(1).resampled(rate)
    clip = Clip(whole.waveform[:, : round(SHOWN_S * rate)], rate, whole.name)
    chosen = {site: list(dict.fromkeys(chain(*(edit.moved for edit in some)))) for site, some in edits.items() if some}
    sites = [name for name in chosen or steered.saes if steered.sites[name].frame_rate]
    seen: dict[str, list[Tensor]] = {name: [] for name in sites}
    for captured in capture(steered.model, [clip], sites) if sites else ():
        for name, x_BTD in captured.activations.items():
            seen[name].append(x_BTD[0])
    rows: list[Row] = []
    for name, pieces in seen.items():
        f_TF = steered.saes[name].encode(torch.cat(pieces)[None])[0].float().cpu()
        wanted = chosen.get(name) or list(range(f_TF.shape[1]))
        mean_W = f_TF.mean(0)[wanted]
        for place in mean_W.topk(min(ROWS, len(wanted))).indices.tolist():
            values_C = torch.nn.functional.adaptive_max_pool1d(f_TF[None, :, wanted[place]], COLUMNS)[0]
            rows.append(Row(name, wanted[place], values_C, float(mean_W[place])))
    rows.sort(key=lambda row: -row.mean)
    return Activity(clip, tuple(row for row in rows[:ROWS] if row.peak > 0 or chosen), bool(chosen))


def draw(activity: Activity, transcripts: Mapping[str, Transcript]) -> Any:
    """The figure, for light and dark pages; `transcripts` by their names, such as baseline and edited.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_plots()
    from matplotlib.figure import Figure  # not pyplot: no window system, no state shared between threads

    seconds = activity.clip.seconds
    lines = {name: blocks_of(transcript, seconds) for name, transcript in transcripts.items()}
    inches = [
        1.9,
        *(LINE * (max(block.bottom for block in blocks) + 1) for blocks in lines.values()),
        max(0.4, ROW * len(activity.rows)),
    ]
    figure = Figure(figsize=(WIDTH, sum(inches) + 0.9), dpi=110, layout="constrained")
    panels = figure.subplots(len(inches), 1, sharex=True, height_ratios=inches)
    clip = activity.clip
    draw_spectrogram(panels[0], spectrogram_db(clip.waveform[0], clip.sample_rate), clip.sample_rate, 0, clip.seconds)
    panels[0].set_ylabel("Hz")
    panels[0].tick_params(labelbottom=False, bottom=False)
    for axes, (name, blocks) in zip(panels[1:-1], lines.items(), strict=True):
        draw_words(axes, name, blocks)
    draw_features(panels[-1], activity)
    for axes in panels:
        axes.tick_params(labelsize=FONT)
        axes.yaxis.label.set_fontsize(FONT)
        axes.spines[:].set_visible(False)
    panels[-1].set_xlim(0, seconds)
    panels[-1].set_xlabel("seconds", fontsize=FONT)
    return on_any_ground(figure)


def draw_features(axes: Any, activity: Activity) -> None:
    """Each row in shares of its own peak, which stands beside it: features are not measured in one unit."""
    rows = activity.rows
    if rows:
        values_RC = torch.stack([row.values_C / max(row.peak, 1e-9) for row in rows])
        axes.imshow(
            values_RC.numpy(),
            aspect="auto",
            extent=(0, activity.clip.seconds, len(rows), 0),
            vmin=0,
            vmax=1,
            cmap="viridis",
            interpolation="nearest",
        )
        axes.hlines(range(1, len(rows)), 0, activity.clip.seconds, color=INK, linewidth=0.4)
    middles = [place + 0.5 for place in range(len(rows))]
    axes.set_yticks(middles, [row.name for row in rows])
    peaks = axes.secondary_yaxis("right")
    peaks.set_yticks(middles, [f"{row.peak:.2g}" for row in rows])
    peaks.tick_params(colors=INK, labelsize=FONT, length=0)
    peaks.spines[:].set_visible(False)
    peaks.set_ylabel("highest (yellow)", color=INK, fontsize=FONT)


# --- words ---


@dataclass(frozen=True)
class Block:
    """A segment's text in lines: from `left` to `right` (seconds) on the page, from line `top` on."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    left: float
    right: float
    top: int

    @property
    def bottom(self) -> int:
        return self.top + len(self.lines)


def blocks_of(transcript: Transcript, seconds: float) -> list[Block]:
    """A transcript's segments at their times, as wide as there is room before the next, and lower where there is none.

    What begins after `seconds` is left out.
    """
    segments = [segment for segment in transcript.segments if segment["text"].strip() and segment["start"] < seconds]
    if not segments:
        segments = [{"start": 0.0, "end": seconds if transcript else 0.0, "text": str(transcript) or NOTHING}]
    blocks: list[Block] = []
    for segment, following in zip(segments, [*segments[1:], {"start": seconds}], strict=True):
        start_s, end_s = segment["start"], min(segment["end"], seconds)
        room = int((max(end_s, following["start"]) - start_s) / seconds * CHARACTERS) - 1
        lines = textwrap.wrap(segment["text"].strip(), max(NARROWEST, room), max_lines=MOST_LINES, placeholder=" …")
        width = (max(map(len, lines)) + 1) / CHARACTERS * seconds
        left = max(0.0, min(start_s, seconds - width))
        right = max(left + width, end_s)
        top = max((block.bottom + 1 for block in blocks if block.left < right and left < block.right), default=0)
        blocks.append(Block(start_s, end_s, tuple(lines), left, right, top))
    return blocks


def draw_words(axes: Any, name: str, blocks: Sequence[Block]) -> None:
    """A line over the span of each segment, its text below."""
    for block in blocks:
        if block.end_s > block.start_s:
            axes.plot((block.start_s, block.end_s), (block.top, block.top), color=INK, linewidth=1.5, marker="|")
        text = "\n".join(block.lines)
        # a dollar in a transcript begins no formula
        axes.text(
            block.left, block.top + 0.3, text, color=INK, fontsize=FONT, va="top", linespacing=1.1, parse_math=False
        )
    axes.set_ylim(max(block.bottom for block in blocks) + 0.5, -0.5)
    axes.set_yticks([0.8], [name])
    axes.tick_params(labelbottom=False, bottom=False, left=False)
