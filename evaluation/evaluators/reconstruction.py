"""`steer evaluate reconstruction`: what a codec's round trip keeps of a sound; what its quantiser or an SAE costs.

Every output is compared with the same reference: the clip as the codec gets it, mixed to one channel, at the codec's
rate. Other codecs and the yardsticks get that reference, and what they give is resampled to its rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from evaluation import yardsticks
from evaluation.concept_sets import DESCRIBED, has_pitch, has_speech
from evaluation.config import Names, Subject
from evaluation.dataset import IMPULSE_RESPONSE, Dataset, LabelledSound, read_sounds
from evaluation.evaluators.options import SubsetsConfig, for_codecs
from evaluation.frame import Evaluator
from evaluation.intervals import clips_in, clustered_bootstrap, mean_share
from evaluation.polyphony import MADE, made_clips
from evaluation.quality import dnsmos, dnsmos_absent, scores
from evaluation.report import Progress, Report, Row, TableRow, line
from hooks import AudioFileError, Clip, Codec, ModelError, open_model
from steer.acoustics import measure
from steer.recipe import default_saes
from steer.steered import SteeredModel

SUBSETS = ("speech_misc", "ljspeech", "digits", "notes", "singing", "esc10", "noise_rir", "music", *MADE)
INPUT = "input"
"""The path of the reference itself, which only DNSMOS measures."""
COLUMNS = {
    "mel (dB)": "mel_db",
    "STOI": "stoi",
    "PESQ": "pesq",
    "DNSMOS": "dnsmos",
    "SDR (dB)": "sdr_db",
    "level (± dB)": "level_db",
    "centroid (± %)": "centroid_percent",
    "pitch within 50 cents": "pitch_within_50",
}
"""Heads of the table, and the score that each is the mean of; those with ± are means of absolute values."""


class ReconstructionConfig(SubsetsConfig):
    """What the codec's plain round trip keeps, and what its quantiser and the SAE cost.

    Mel distance and SDR are measured for every sound; STOI, PESQ and DNSMOS (extra mos) for speech; the pitch for
    sounds that have one. A codec without an SAE of its own is measured without one.
    """

    subsets: Names = Field(
        default=(), description="Which subsets, with commas; chords and drums are made. Default: all that are there."
    )
    also: Names = Field(
        default=(),
        description="Another codec to measure too, with its own SAE if it has one. Repeatable.",
        json_schema_extra={"repeatable": True},
    )
    yardsticks: bool = Field(default=True, description="Measure MP3 and Opus too; this needs ffmpeg.")

    def open(self) -> Subject:
        if self.subject is None and self.model and not self.sae and not self.site and not default_saes(self.model):
            return open_model(self.model, device=self.device)
        return super().open()

    def another(self, name: str) -> Subject:
        """One of `also`, opened."""
        return ReconstructionConfig(audio=self.audio, model=name, device=self.device).open()


def codec_of(subject: Subject) -> Codec:
    """The codec that is measured.

    Raises:
        ModelError: it is another kind of model.
    """
    codec = subject.model if isinstance(subject, SteeredModel) else subject
    if not isinstance(codec, Codec) or codec.sample_rate is None:
        raise ModelError(f"{codec.name}: has no round trip to measure; name a codec")
    return codec


def round_trips(subject: Subject, audio_BCN: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Outputs [B, C, N] by path: past the quantiser, through the SAEs instead of the latent, quantised.

    Without SAEs, or without a quantiser, that path is left out.
    """
    codec = codec_of(subject)
    default = codec.quantize
    try:
        codec.quantize = False
        yield "continuous", codec.run(audio_BCN)
        if isinstance(subject, SteeredModel):
            with subject.edit(mode="reconstruct"):
                through_BCN = codec.run(audio_BCN)
            yield "through the SAE", through_BCN
        if codec.has_quantizer:
            codec.quantize = True
            yield "quantised", codec.run(audio_BCN)
    finally:
        codec.quantize = default


def fitted(output_BCN: Tensor, sample_rate: int, x_N: Tensor, wanted: int) -> Tensor:
    """An output as one channel at the reference's rate and length [N]."""
    clip = Clip(output_BCN[0].float().cpu(), sample_rate).mixed(1).resampled(wanted)
    y_N = clip.waveform[0, : len(x_N)]
    return torch.nn.functional.pad(y_N, (0, len(x_N) - len(y_N)))


def outputs(
    subject: Subject,
    clip: Clip,
    also: Mapping[str, Subject],
    beside: Sequence[yardsticks.Yardstick],
) -> Iterator[tuple[str, Tensor]]:
    """The reference (path `INPUT`) and all that is compared with it, each [N] at the rate of the subject's codec."""
    codec = codec_of(subject)
    assert codec.sample_rate is not None
    audio_BCN = codec.prepare(clip)
    x_N = Clip(audio_BCN[0].float().cpu(), codec.sample_rate).mixed(1).waveform[0]
    yield INPUT, x_N
    for path, output_BCN in round_trips(subject, audio_BCN):
        yield path, fitted(output_BCN, codec.sample_rate, x_N, codec.sample_rate)
    for name, other in also.items():
        another = codec_of(other)
        assert another.sample_rate is not None
        for path, output_BCN in round_trips(other, another.prepare(Clip(x_N, codec.sample_rate, clip.name))):
            yield f"{name}: {path}", fitted(output_BCN, another.sample_rate, x_N, codec.sample_rate)
    for yardstick in beside:
        yield yardstick.name, yardsticks.round_trip(x_N, codec.sample_rate, yardstick)


def clips_of(
    dataset: Dataset, subsets: Sequence[str] | None, split: str, limit: int | None
) -> tuple[list[tuple[LabelledSound, Clip]], list[str]]:
    """Files and their sounds of every subset, and the names of those that were not found.

    Where `subsets` is None those of `SUBSETS` are taken that the folder has, or all of a folder that has none of them.

    Raises:
        AudioFileError: a subset that was asked for has no clips of that split.
    """
    found: list[tuple[LabelledSound, Clip]] = []
    missing: list[str] = []
    reason: AudioFileError | None = None
    own = set(SUBSETS) & set(dataset.subsets)
    default = (*dataset.subsets, *MADE) if dataset.subsets and not own else SUBSETS
    for subset in default if subsets is None else subsets:
        if subset in MADE:
            found += [
                (LabelledSound(clip.name, clip.name, {"subset": subset}), clip) for clip in made_clips(subset, limit)
            ]
            continue
        try:
            found += read_sounds(dataset.sounds([subset], split, limit, DESCRIBED, [IMPULSE_RESPONSE]))
        except AudioFileError as error:
            if subsets is not None:
                raise
            missing.append(subset)
            reason = reason or error
    if reason and all(file.subset in MADE for file, _ in found):
        raise reason
    return found, missing


@torch.no_grad()
def run(config: ReconstructionConfig, progress: Progress = iter) -> Report:
    """Round trips of a split's clips, by subset and path. `clips` of the report has every score of every clip, with its
    sign.

    Raises:
        AudioFileError: no clips of that split, or none of a subset that was asked for.
        ModelError: a model that is not a codec.
        YardstickError: ffmpeg fails.
    """
    subject, also = config.open(), {name: config.another(name) for name in config.also}
    codec, *_ = map(codec_of, (subject, *also.values()))
    assert codec.sample_rate is not None
    beside, why = yardsticks.usable() if config.yardsticks else ([], "not asked for")
    found, missing = clips_of(config.dataset, config.subsets or None, config.split, config.clips)
    clips: list[Row] = []
    for file, clip in progress(found):
        speech, pitched = bool(has_speech(file.labels)), has_pitch(file.labels)
        x_N = before = None
        for path, y_N in outputs(subject, clip, also, beside):
            row: Row = {"clip": clip.name, "speaker": file.speaker, "subset": file.subset, "path": path}
            if x_N is None or before is None:
                x_N, before = y_N, measure(y_N[None], codec.sample_rate, pitch=pitched)
                clear = dnsmos(y_N, codec.sample_rate) if speech else None
                if clear is not None:
                    clips.append({**row, **dict.fromkeys(COLUMNS.values()), "dnsmos": clear})
                continue
            measured = scores(x_N, y_N, codec.sample_rate, speech=speech, pitched=pitched, before=before)
            clips.append({**row, **measured})
    about = {
        "model": codec.name,
        "also": list(also),
        "split": config.split,
        "sample rate": codec.sample_rate,
        "yardsticks": [one.name for one in beside],
        "left out": left_out(why, any(has_speech(file.labels) for file, _ in found), missing),
    }
    return Report("Round trip through the codec", table(clips), clips, about)


def left_out(yardsticks_why: str, speech: bool, missing: Sequence[str]) -> dict[str, str]:
    """What is not in the table, and why."""
    reasons = {"yardsticks": yardsticks_why, "DNSMOS": dnsmos_absent() if speech else ""}
    reasons |= dict.fromkeys(missing, "there are no clips of that split")
    return {name: why for name, why in reasons.items() if why}


def table(clips: Sequence[Row]) -> list[Row]:
    """A row for each subset and path: means over clips; None where no clip has that score."""
    rows = []
    for subset, path in dict.fromkeys((row["subset"], row["path"]) for row in clips):
        chosen = [row for row in clips if (row["subset"], row["path"]) == (subset, path)]
        row: Row = {"clips": subset, "path": path, "count": len(chosen)}
        for head, score in COLUMNS.items():
            known = [one for one in chosen if one[score] is not None]
            values = [abs(one[score]) if "±" in head else one[score] for one in known]
            mean = mean_share if score == "pitch_within_50" else clustered_bootstrap
            row[head] = mean(values, clips_in(known)) if known else None
        rows.append(row)
    return rows


def by_subset(report: Report) -> list[Report]:
    """A narrower table for each subset, without the columns that are in its title."""
    counts = {row["clips"]: row["count"] for row in report.rows}
    return [
        Report(
            f"{subset}: {count} {'clip' if count == 1 else 'clips'}",
            [
                {head: value for head, value in row.items() if head not in ("clips", "count")}
                for row in report.rows
                if row["clips"] == subset
            ],
        )
        for subset, count in counts.items()
    ]


def headline(report: Report) -> list[TableRow]:
    return [
        line(f"mel distance (dB) of the round trip, {row['clips']}", row["mel (dB)"], STOI=row["STOI"])
        for row in report.rows
        if row["path"] == "continuous"
    ]


RECONSTRUCTION = Evaluator(
    name="reconstruction",
    config=ReconstructionConfig,
    run=run,
    headline=headline,
    tables=by_subset,
    intervals=False,
    suits=for_codecs,
    extras=(("pystoi", "eval"), ("pesq", "eval")),
)
