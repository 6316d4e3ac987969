"""How time and memory grow with frames, layers, features edited, d_sae and files, as rows and as a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.models import EDITED, EXPANSION, Subject, chosen, hubert, random_sae
from benchmarks.settings import Settings, Told, row
from benchmarks.timing import Variant, peak_bytes
from evaluation.figures import SERIES, Panel, figure, finish, whiskers
from evaluation.report import Row
from hooks import Clip, capture
from hooks.errors import MissingExtraError
from steer import SAE, Ablate, SteeredModel, open_model
from steer.delta import site_edit
from steer.values import Frames

FRAMES, LAYERS = "growth with frames, all layers edited", "growth with edited layers"
FEATURES, D_SAE = "growth with features edited", "growth with d_sae, some features edited"
FILES, BATCH = "growth with files of 1 s", "16 sounds of 1 s, so many at once"


@torch.inference_mode()
def growth_line(settings: Settings) -> Told:
    rows = by_frames(settings) + by_layers(settings) + by_edit(settings) + by_files(settings) + by_batch(settings)
    return Told(rows, "MB: the most that torch holds at once beside weights; of frames and layers x base is x plain")


def edited(subject: Subject, layers: int, settings: Settings) -> Variant:
    """A pass with features edited in the first layers, through one SAE for all of them."""
    width = subject.model.sites[subject.sites[0]].width
    assert width is not None
    d_sae = width * EXPANSION
    sae = random_sae(width, d_sae, "relu", 1)
    sites = subject.sites[:layers]
    steered = SteeredModel(subject.model, dict.fromkeys(sites, sae), check=False)
    edit = Ablate(chosen(d_sae, settings.size(EDITED, 4)))
    return Variant(subject.run, partial(steered.edit, dict.fromkeys(sites, edit)))


def peak_of(variant: Variant) -> float:
    with variant.around():
        return peak_bytes(variant.run) / 1e6


def by_frames(settings: Settings) -> list[Row]:
    rows = []
    for seconds in (1.0, 2.0, 4.0, 8.0):
        subject = hubert(settings, seconds)
        variant = edited(subject, len(subject.sites), settings)
        timing = settings.compare({"plain": subject.run, "edited": variant}, "plain")["edited"]
        frames = next(iter(subject.activations().values())).shape[1]
        rows.append(row(FRAMES, str(frames), timing, number=peak_of(variant), unit="MB"))
    return rows


def by_layers(settings: Settings) -> list[Row]:
    subject = hubert(settings)
    counts = [count for count in (1, 3, 6, 12) if count <= len(subject.sites)]
    variants = {str(count): edited(subject, count, settings) for count in counts}
    times = settings.compare({"plain": Variant(subject.run), **variants}, "plain")
    return [row(LAYERS, name, times[name], number=peak_of(variant), unit="MB") for name, variant in variants.items()]


def by_edit(settings: Settings) -> list[Row]:
    """An edit alone: features at one d_sae, then d_sae at one number of features."""
    width, tokens = settings.size((768, 1500), (16, 32))
    x_BTD = torch.randn(1, tokens, width)
    frames = Frames.of(x_BTD, 50.0, 0.0)

    def one(d_sae: int, count: int) -> Callable[[], object]:
        edit = site_edit(random_sae(width, d_sae, "relu", 1), [Ablate(chosen(d_sae, count))])
        return partial(edit, x_BTD, frames)

    many, few = settings.size((6144, EDITED), (64, 4))
    counts: Sequence[int] = settings.size((1, 8, 32, 128, 512), (1, 4, 16))
    sizes: Sequence[int] = settings.size((1536, 3072, 6144, 12_288, 24_576), (64, 128))
    by_features = {str(count): one(many, count) for count in counts}
    by_size = {str(d_sae): one(d_sae, few) for d_sae in sizes}
    rows = []
    for line, variants in ((FEATURES, by_features), (D_SAE, by_size)):
        times = settings.compare(variants, next(iter(variants)))
        for name, run in variants.items():
            rows.append(row(line, name, times[name], number=peak_bytes(run) / 1e6, unit="MB"))
    return rows


def by_files(settings: Settings) -> list[Row]:
    """Sounds of 1 s through starter:wavtokenizer one after another."""
    codec = open_model("starter:wavtokenizer")
    sae = SAE.load("starter:wavtokenizer/latent")
    steered = SteeredModel(codec, sae, check=False)
    assert codec.sample_rate is not None
    clip = Clip(
        0.1 * torch.randn(codec.channels, round(settings.size(1.0, 0.2) * codec.sample_rate)), codec.sample_rate
    )
    edit = Ablate(chosen(sae.d_sae, settings.size(EDITED, 4)))

    def resynthesize(count: int) -> None:
        for _ in range(count):
            steered.resynthesize(clip)

    counts = settings.size((1, 2, 4, 8), (1, 2))
    around = partial(steered.edit, edit)
    variants = {str(count): Variant(partial(resynthesize, count), around) for count in counts}
    times = settings.compare(variants, "1")
    return [row(FILES, name, times[name], number=peak_of(variant), unit="MB") for name, variant in variants.items()]


def by_batch(settings: Settings) -> list[Row]:
    """Sounds of 1 s read at all layers of HuBERT, so many at once."""
    subject = hubert(settings)
    assert subject.model.sample_rate is not None
    sounds = list(torch.randn(16, 1, round(settings.size(1.0, 0.1) * subject.model.sample_rate)))

    def read(batch: int) -> None:
        for _ in capture(subject.model, sounds, subject.sites, batch=batch):
            pass

    variants = {str(batch): partial(read, batch) for batch in (1, 2, 4, 8)}
    times = settings.compare(variants, "1")
    return [row(BATCH, name, times[name], number=peak_bytes(run) / 1e6, unit="MB") for name, run in variants.items()]


def drawn(rows: Sequence[Row]) -> Any:
    """Time and memory along each of them, in matplotlib; None without it or without such rows."""
    lines = [line for line in (FRAMES, LAYERS, FEATURES, D_SAE, FILES, BATCH) if any(r["line"] == line for r in rows)]
    try:
        return figure([panel(line, [r for r in rows if r["line"] == line]) for line in lines]) if lines else None
    except MissingExtraError:
        return None


def panel(line: str, rows: Sequence[Row]) -> Panel:
    along = [int(one["variant"]) for one in rows]

    def draw(axes: Any) -> None:
        ms = [one["ms"] for one in rows]
        values = [one.value for one in ms]
        axes.errorbar(along, values, yerr=whiskers(ms, 1), color=SERIES[0], marker="o", label="ms")
        axes.plot(along, [one["number"] for one in rows], color=SERIES[2], marker="s", label="MB held at once")
        axes.set(xscale="log", yscale="log", xticks=along, xticklabels=[f"{one:,}" for one in along])
        axes.minorticks_off()
        finish(axes, line, "both", legend=True)

    return 10, draw
