"""`steer evaluate residuals`: the ways in which an edit reaches the sound, compared with an ideal edit by DSP.

The reference of a loudness request is the input times a gain, and of a brightness request the input through a filter
that tilts its spectrum by so many dB per octave that the centroid moves as asked, its level kept. Every way gets the
same search for the same request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import Field
from torch import Tensor

from evaluation.concept_sets import DESCRIBED, has_speech
from evaluation.dataset import LabelledSound
from evaluation.evaluators.acoustics import SUBSETS, share
from evaluation.evaluators.options import RequestsConfig, for_codecs
from evaluation.file_edits import FileEditor, Goals, is_met, requests_for
from evaluation.frame import Evaluator
from evaluation.intervals import INTERVALS, clips_in, clustered_bootstrap
from evaluation.quality import mel_distance, pesq_wb, stoi
from evaluation.report import Progress, Report, Row, TableRow, line
from hooks.clip import Clip, read_clip
from hooks.samples import mix_weights
from steer.acoustics import change, measure
from steer.errors import EditError

WAYS = ("ratio", "drop", "keep")
UNTOUCHED = "input"
"""The input itself beside its ideal edit: how far the request moves it."""
ATTRIBUTES = ("loudness", "brightness")
STEEPEST = 12.0
"""dB per octave."""
NEAR_PERCENT = 0.1
COLUMNS = {"mel (dB)": "mel_db", "STOI": "stoi", "PESQ": "pesq"}


class ResidualsConfig(RequestsConfig):
    """Compare the ways in which an edit reaches the sound (ratio, drop, keep) with an ideal edit by DSP."""

    clips: int = Field(default=10, ge=1, description="Maximum number of clips of a subset.")


def tilted(x_CN: Tensor, slope: float, sample_rate: int) -> Tensor:
    """The spectrum tilted by `slope` dB per octave, level below 100 Hz, and the RMS level kept."""
    count = x_CN.shape[1]
    spectrum_CF = torch.fft.rfft(x_CN, 2 * count)
    hz_F = torch.linspace(0, sample_rate / 2, spectrum_CF.shape[1], dtype=x_CN.dtype)
    octaves_F = 0.5 * ((hz_F.square() + 100.0**2) / 1000.0**2).log2()
    y_CN = torch.fft.irfft(spectrum_CF * 10 ** (slope * octaves_F / 20), 2 * count)[:, :count]
    before, after = (s.square().mean().sqrt() for s in (x_CN, y_CN))
    return y_CN * before / after.clamp(min=1e-9)


def brightened(clip: Clip, percent: float) -> Tensor | None:
    """The clip tilted so that its centroid moves by `percent`; None where no tilt does that."""
    before = measure(clip.waveform, clip.sample_rate, pitch=False, lufs=False)
    low, high = -STEEPEST, STEEPEST
    for _ in range(24):
        slope = (low + high) / 2
        y_CN = tilted(clip.waveform, slope, clip.sample_rate)
        moved = change(before, measure(y_CN, clip.sample_rate, pitch=False, lufs=False))["brightness"]
        if moved is None:
            return None
        if abs(moved - percent) < NEAR_PERCENT:
            return y_CN
        low, high = (slope, high) if moved < percent else (low, slope)
    return None


def ideal(clip: Clip, goals: Goals) -> Tensor | None:
    """The input edited by DSP [C, N], for a goal of loudness or of brightness."""
    if "loudness" in goals:
        return clip.waveform * 10 ** (goals["loudness"] / 20)
    return brightened(clip, goals["brightness"])


def compared(reference_CN: Tensor, output_CN: Tensor, sample_rate: int, speech: bool) -> Row:
    weights_C = mix_weights(reference_CN)  # of channels that cancel each other the loudest alone
    x_N, y_N = weights_C @ reference_CN, weights_C @ output_CN
    return {
        "mel_db": mel_distance(x_N, y_N, sample_rate),
        "stoi": stoi(x_N, y_N, sample_rate) if speech else None,
        "pesq": pesq_wb(x_N, y_N, sample_rate) if speech else None,
    }


def clip_rows(editors: Mapping[str, FileEditor], file: LabelledSound, attribute: str, request: float) -> list[Row]:
    """One request in every way; none where it has no ideal edit."""
    clip, goals, speech = read_clip(file.path), {attribute: request}, bool(has_speech(file.labels))
    reference_CN = ideal(clip, goals)
    if reference_CN is None:
        return []
    head: Row = {"clip": file.name, "speaker": file.speaker, "subset": file.subset}
    head |= {"attribute": attribute, "request": request}
    same = compared(reference_CN, clip.waveform, clip.sample_rate, speech)
    rows: list[Row] = [{**head, "way": UNTOUCHED, "met": None, "failed": None, **same}]
    before = measure(clip.waveform, clip.sample_rate, pitch=False, lufs=False)
    for way, editor in editors.items():
        row: Row = {**head, "way": way, "met": False, "failed": None, **dict.fromkeys(COLUMNS.values())}
        try:
            after = read_clip(editor.edit(file.path, goals).path)
        except EditError as error:
            rows.append({**row, "failed": str(error)})
            continue
        changes = change(before, measure(after.waveform, after.sample_rate, pitch=False, lufs=False))
        near = compared(reference_CN, after.waveform, clip.sample_rate, speech)
        rows.append({**row, "met": is_met(goals, changes), "measured": changes[attribute], **near})
    return rows


def table(clips: Sequence[Row]) -> list[Row]:
    """A row for each attribute, subset and way."""
    rows = []
    for attribute in dict.fromkeys(row["attribute"] for row in clips):
        for subset in (*dict.fromkeys(row["subset"] for row in clips), "all"):
            for way in dict.fromkeys(row["way"] for row in clips):
                some = [r for r in clips if (r["attribute"], r["way"]) == (attribute, way)]
                some = [r for r in some if subset in (r["subset"], "all")]
                row: Row = {"attribute": attribute, "clips": subset, "way": way, "edits": len(some)}
                for head, key in COLUMNS.items():
                    known = [r for r in some if r[key] is not None]
                    mean = clustered_bootstrap([r[key] for r in known], clips_in(known))
                    row[head] = mean if known else None
                row["met"] = share(some, "met") if some and way != UNTOUCHED else None
                rows.append(row)
    return rows


def run(config: ResidualsConfig, progress: Progress = iter) -> Report:
    """Loudness and brightness requests in several ways, each compared with an ideal edit of the same file."""
    steered, subsets = config.steered(), config.chosen_subsets(SUBSETS)
    vectors, attributes = config.control_vectors(ATTRIBUTES)
    jobs = [
        (file, attribute, request)
        for file in config.dataset.sounds(subsets, config.split, config.clips, DESCRIBED)
        for attribute in attributes
        for request in requests_for(file.name, attribute, config.requests, config.seed)
    ]
    with TemporaryDirectory(prefix="steer-") as folder:
        editors = {way: FileEditor(steered, vectors, Path(folder), way) for way in WAYS}
        found = [clip_rows(editors, file, attribute, request) for file, attribute, request in progress(jobs)]
    rows = [row for some in found for row in some]
    about = config.about(steered, attributes) | {
        "clips": {subset: len({f.name for f, _, _ in jobs if f.subset == subset}) for subset in subsets},
        "without an ideal edit": found.count([]),
        "reference": "a gain, or a tilt in dB per octave with the level kept, of the input file at its own rate",
        "tolerances": {"loudness": "0.5 dB", "brightness": "5 % of the wanted centroid"},
        "intervals": INTERVALS,
    }
    count = len({file.name for file, _, _ in jobs})
    title = f"Written files against ideal edits by DSP: {steered.model.name}, {count} {config.split} clips"
    return Report(title, table(rows), rows, about)


def headline(report: Report) -> list[TableRow]:
    """Of the way that edits take by default."""
    by_way = {(row["attribute"], row["way"]): row["mel (dB)"] for row in report.rows if row["clips"] == "all"}
    return [
        line(f"mel distance (dB) from the ideal edit, {attribute}", result, input=by_way[attribute, UNTOUCHED])
        for (attribute, way), result in by_way.items()
        if way == WAYS[0]
    ]


RESIDUALS = Evaluator(
    name="residuals",
    config=ResidualsConfig,
    run=run,
    headline=headline,
    intervals=False,
    suits=for_codecs,
    extras=(("pystoi", "eval"), ("pesq", "eval")),
)
